"""Codes that cost their rarity: what looks alike gathers in one code, and codes out of use retire."""

import torch

from tats.vqgan.codebook import RARE, Codebook


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
