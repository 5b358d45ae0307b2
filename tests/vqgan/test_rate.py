"""Codes that cost their rarity: what looks alike gathers in one code, and codes out of use retire."""

import torch

from tats.vqgan.codebook import RARE, Codebook
from tats.vqgan.draws import Draws


def world(rate: float) -> tuple[Codebook, torch.Tensor]:
    """Two codes close together and one far away; the first is used a hundred times as often as the second."""
    book = Codebook(3, 2, restart=False)
    book.embeddings.copy_(torch.tensor([[0.0, 0.0], [0.2, 0.0], [5.0, 5.0]]))
    book.N.copy_(torch.tensor([100.0, 1.0, 50.0]))
    book.z_avg.copy_(book.embeddings * book.N[:, None])
    book.rate = rate
    near_the_rare_one = torch.tensor([[0.15, 0.0], [4.0, 4.0]]).T.view(1, 2, 1, 1, 2)
    return book, near_the_rare_one


def test_rate_prefers_the_code_in_use():
    for rate, expected in [(0.0, [1, 2]), (0.2, [0, 2])]:
        book, z = world(rate)
        assert book.train().nearest(z).flatten().tolist() == expected


def test_outside_training_the_nearest_code_counts():
    book, z = world(0.2)
    assert book.eval().nearest(z).flatten().tolist() == [1, 2]


def test_the_price_is_the_definition():
    torch.manual_seed(0)
    book = Codebook(20, 4, restart=False)
    book.N.copy_(torch.rand(20) * 10)
    book.rate = 0.3
    z = torch.randn(2, 4, 3, 2, 2)
    flat = z.movedim(1, -1).flatten(0, 3)
    squared = torch.cdist(flat.double(), book.embeddings.double()).square()
    share = (book.N.double() + RARE) / (book.N.double() + RARE).sum()
    cost = squared - 0.3 * squared.min(1).values.mean() * share.log()
    assert torch.equal(book.train().nearest(z).flatten(), cost.argmin(1))


def test_codes_out_of_use_retire_to_the_one_used_most():
    book, z = world(0.2)
    book.retiring = True
    book.N[1] = 0.02
    book.train()(z)  # its average falls below the limit
    assert torch.equal(book.embeddings[1], book.embeddings[0])
    assert book.eval().nearest(z).flatten().tolist() == [0, 2]


def test_unused_codes_start_anew_where_vectors_are_represented_worst():
    book = Codebook(4, 2, restart_thres=0.5)
    book.embeddings.copy_(torch.tensor([[0.0, 0.0], [9.0, 9.0], [8.0, 8.0], [0.1, 0.0]]))
    book.N.copy_(torch.tensor([100.0, 0.0, 0.0, 50.0]))
    book.z_avg.copy_(book.embeddings * book.N[:, None])
    book.rate = 0.2
    z = torch.zeros(1, 2, 2, 2, 2)  # seven vectors on a code, one far from all of those in use
    z[0, :, 1, 1, 1] = torch.tensor([-3.0, 0.0])
    book.train()(z, Draws(seed=0))
    placed = book.embeddings[(book.N == 0.5).nonzero()[:, 0]]
    assert len(placed) == 2
    assert torch.equal(placed[0], torch.tensor([-3.0, 0.0]))  # drawn first: the others have no distance at all
    assert torch.allclose(book.z_avg[book.N == 0.5], placed * 0.5)


def test_codes_that_retire_do_not_start_anew():
    book, z = world(0.2)
    book.restart, book.restart_thres, book.retiring = True, 0.5, True
    book.N[1] = 0.01
    book.train()(z)
    assert torch.equal(book.embeddings[1], book.embeddings[0]) and book.N[1] < 0.02
