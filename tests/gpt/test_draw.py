"""Drawing: what is left to draw from, how often it is drawn, and the noise behind it."""

import pytest
import torch
from tats.kernels.draw_code.reference import FIRST_LOOK, pick

from tats.gpt.draw import Draw, filter_logits, seeded_noise


@pytest.mark.parametrize(
    "top_k, top_p", [(None, None), (0, 1.0), (40, 0.9), (700, 0.5), (2048, 0.99), (5000, 0.92), (3, 0.0)]
)
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_probabilities_are_those_of_the_published_filter(top_k, top_p, spread):
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * spread
    assert logits.shape[1] > FIRST_LOOK
    expected = filter_logits(logits, top_k or 0, 1.0 if top_p is None else top_p).softmax(-1)
    given = Draw(top_k, top_p).probabilities(logits)
    assert torch.equal(given > 0, expected > 0)
    assert torch.allclose(given, expected, rtol=1e-10)


def test_all_equals_of_the_kth_are_kept_and_greedy_takes_the_first():
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0]])
    assert (Draw(3).probabilities(logits) > 0).tolist() == [[False, True, True, True, True]]
    assert Draw(1)(logits, torch.tensor([0.99])).item() == 1


def test_temperature_divides_before_anything_is_left_out():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Draw(7, 0.8, 0.5).probabilities(logits), Draw(7, 0.8).probabilities(logits * 2), atol=1e-6)


def test_codes_are_drawn_as_often_as_they_are_likely():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    u = seeded_noise([3])(0, 20000)[0]
    drawn = pick(probabilities.expand(len(u), -1), u)
    shares = drawn.bincount(minlength=6) / len(u)
    assert shares[[0, 2, 5]].sum() == 0
    assert (shares - probabilities).abs().max() < 4 * (0.25 / len(u)) ** 0.5


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_noise_never_give_an_impossible_code(u):
    probabilities = torch.tensor([[0.0, 0.3, 0.7, 0.0]])
    assert pick(probabilities, torch.tensor([u], dtype=torch.float64)).item() == (1 if u == 0 else 2)


def test_noise_depends_on_seed_and_frame_alone():
    noise = seeded_noise([0, 7, 2**40])
    first = noise(5, 100)
    assert first.shape == (3, 100) and first.dtype == torch.float64
    assert first.min() >= 0 and first.max() < 1
    assert torch.equal(seeded_noise([7])(5, 60)[0], first[1, :60])
    assert not torch.equal(noise(6, 100), first)
    everything = torch.cat([seeded_noise(range(50))(frame, 64).flatten() for frame in range(5)])
    assert everything.unique().numel() == everything.numel()
    assert abs(everything.mean() - 0.5) < 4 * (1 / 12 / everything.numel()) ** 0.5
