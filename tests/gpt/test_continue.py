"""Every sampler goes on from given codes: as if it had made them itself, as trained, and from nothing else."""

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.gpt.api import (
    continue_codes,
    sample_codes,
    sample_hierarchical_codes,
    sample_long_codes,
    sample_wide_codes,
)
from tats.gpt.objective import predict

SETTINGS = {"top_k": 20, "top_p": 0.9, "temperature": 1.2, "temperature_init": 2.0, "label": 1, "seeds": [5, 6]}
COARSE, FINE = (3, 2, 2), (5, 2, 2)


def stacked(frames):
    return torch.stack(list(frames), 1)


def short(known, **more):
    return sample_codes(tiny_gpt(), known=known, **{**SETTINGS, **more})


def long(known, **more):
    return stacked(sample_long_codes(tiny_gpt(), 9, 3, known=known, **{**SETTINGS, **more}))


def wide(known, **more):
    gpt = tiny_gpt((3, 2, 2), places=(3, 4, 4))
    return stacked(sample_wide_codes(gpt, 5, (4, 3), 1, known=known, **{**SETTINGS, **more}))


def hierarchical(known, **more):
    coarse, fine = tiny_gpt(COARSE, stride=4), tiny_gpt(FINE, n_unmasked=4)
    return stacked(sample_hierarchical_codes(coarse, fine, 17, 2, known=known, gap_batch=4, **{**SETTINGS, **more}))


@pytest.mark.parametrize("sampler", [short, long, wide, hierarchical])
@pytest.mark.parametrize("given", [1, 2, 4])
def test_a_video_goes_on_as_if_the_given_frames_had_been_sampled(sampler, given):
    video = sampler(None)
    assert torch.equal(sampler(video[:, :given]), video)


@pytest.mark.parametrize("given", [5, 8, 9, 13, 16])
def test_a_hierarchy_goes_on_from_the_middle_of_a_gap(given):
    video = hierarchical(None)
    assert torch.equal(hierarchical(video[:, :given]), video)


def any_codes(t, h=2, w=2, seed=1):
    return torch.randint(37, (2, t, h, w), generator=torch.Generator().manual_seed(seed))


def best(gpt, codes):
    """Argmax over code ids of one training pass over a finished window: [B, t, h, w]."""
    with torch.no_grad():
        logits, _ = predict(gpt, torch.tensor([[1], [1]]), codes)
    return logits[..., gpt.config.code_offset :].argmax(-1).view_as(codes)


@pytest.mark.parametrize("given", [1, 2, 5])
def test_what_follows_given_frames_agrees_with_training(given):
    gpt, known = tiny_gpt(), any_codes(given)
    codes = stacked(continue_codes(gpt, known, 8, 2, label=1, top_k=1))
    assert torch.equal(codes[:, :given], known)
    for t in range(given, 8):
        assert torch.equal(codes[:, t], best(gpt, codes[:, max(t - 2, 0) : t + 1])[:, -1])


@pytest.mark.parametrize("given", [1, 4, 5, 7, 10])
def test_a_hierarchy_behind_given_frames_agrees_with_training(given):
    coarse, fine, known = tiny_gpt(COARSE, stride=4), tiny_gpt(FINE, n_unmasked=4), any_codes(given)
    codes = hierarchical(known, top_k=1, temperature_init=1.0)
    assert torch.equal(codes[:, :given], known)
    keys = codes[:, ::4]
    for k in range(-(-given // 4), 5):
        assert torch.equal(keys[:, k], best(coarse, keys[:, max(k - 2, 0) : k + 1])[:, -1])
    for t in range(0, 16, 4):
        new = slice(max(given - t, 1), 4)  # within the gap
        assert torch.equal(codes[:, t : t + 5][:, new], best(fine, codes[:, t : t + 5])[:, new])


def test_given_frames_beyond_the_context_change_nothing():
    gpt, known = tiny_gpt(), any_codes(5)
    other = torch.cat([any_codes(3, seed=2), known[:, 3:]], 1)
    made = [stacked(continue_codes(gpt, codes, 9, 2, label=1, seeds=[3, 4])) for codes in (known, other)]
    assert not torch.equal(made[0][:, :5], made[1][:, :5]) and torch.equal(made[0][:, 5:], made[1][:, 5:])


def test_every_given_video_has_a_seed_of_its_own():
    gpt, known = tiny_gpt(), any_codes(2)[:1].expand(3, -1, -1, -1)
    made = stacked(continue_codes(gpt, known, 6, 2, label=1))
    assert made.unique(dim=0).shape[0] == 3
    assert torch.equal(made, stacked(continue_codes(gpt, known, 6, 2, label=1, seeds=[0, 1, 2])))


def test_given_codes_that_are_no_batch_of_videos_are_refused():
    with pytest.raises(ValueError, match=r"codes must be \[B, t, h, w\], got \[2, 2, 2\]"):
        continue_codes(tiny_gpt(), any_codes(2)[0], 6, label=1)
