"""Generators of any length: the first frame at once, only what is needed in memory, and on from wherever it stopped."""

import itertools
import time

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt.api import sample_hierarchical_codes, sample_long_codes, sample_wide_codes
from tats.gpt.condition import condition
from tats.gpt.endless import back_between, back_long, back_wide
from tats.gpt.objective import crop_places, predict
from tats.gpt.plans import gap_group, plan_between, plan_long, plan_wide, plan_wide_as_published

LENGTHS = {"none": 1, "label": 1, "text": 3, "stft": 4}
CONDITIONS = {
    "none": {},
    "label": {"label": [0, 2]},
    "text": {"text": torch.tensor([[1, 2, 0], [0, 0, 1]])},
    "stft": {"sound": torch.tensor([[[[0, 1], [2, 1]]], [[[2, 2], [0, 1]]]])},
}
MANY = 100_000
SETTINGS = {"label": 1, "seeds": [3, 4], "top_k": 20, "top_p": 0.9, "temperature": 1.2}


def pair(step, frames=3):
    """A coarse transformer and the one that fills its gaps."""
    return tiny_gpt((frames, 2, 2), stride=step), tiny_gpt((step + 1, 2, 2), n_unmasked=4)


def best_of_training(gpt, cond, codes, places=None):
    """Argmax over code ids of one training pass over a finished window: [B, t, h, w]."""
    with torch.no_grad():
        logits, _ = predict(gpt, cond, codes, places=places)
    return logits[..., gpt.config.code_offset :].argmax(-1).view_as(codes)


def whole(frames):
    return torch.stack(list(frames), 1)


def long(length, **more):
    return sample_long_codes(tiny_gpt().float(), length, 3, **SETTINGS, **more)


def wide(length, **more):
    return sample_wide_codes(tiny_gpt((3, 3, 2), places=(3, 6, 6)).float(), length, (5, 4), 2, **SETTINGS, **more)


def hierarchical(length, step=3, **more):
    coarse, fine = pair(step)
    return sample_hierarchical_codes(coarse.float(), fine.float(), length, 2, gap_batch=8, **SETTINGS, **more)


@pytest.mark.parametrize("make, length", [(long, MANY), (wide, MANY), (hierarchical, MANY - (MANY - 1) % 3)])
def test_the_first_frames_of_a_hundred_thousand_come_at_once(make, length):
    start = time.process_time()
    frames = make(length)
    assert len(list(itertools.islice(frames, 4))) == 4
    assert time.process_time() - start < 5


def test_plans_of_any_length_take_no_room():
    length = 10**12 + 1
    for plan in (
        plan_long(length, 3),
        plan_between(length, 4),
        plan_wide(length, (5, 5), (3, 3), 2),
        plan_wide_as_published(length, (5, 5), (3, 3, 3), 2),
    ):
        assert len(plan) > 10**11
        assert plan[-1].frames.stop == length
    with pytest.raises(IndexError):
        plan_long(4, 2)[3]


@pytest.mark.parametrize("most", [1, 2, 5, 8, 64])
def test_gaps_run_alone_at_first_and_then_as_many_as_fit(most):
    groups = [gap_group(gap, most) for gap in range(3 * most + 10)]
    assert groups[0] == range(1)
    assert all(gap in group and len(group) <= most for gap, group in enumerate(groups))
    assert all(groups[other] == group for group in groups for other in group if other < len(groups))
    assert len(groups[2 * most]) == most


@pytest.mark.parametrize("given", [0, 2, 4, 7])
@pytest.mark.parametrize("make, length", [(long, 9), (wide, 6), (hierarchical, 22)])
def test_a_video_that_was_stopped_goes_on_bit_by_bit(make, length, given):
    first = whole(make(length))
    known = first[:, :given] if given else None
    video = whole(make(length, known=known))
    for done in range(given, length):
        if make is hierarchical:
            back = back_between(done, given, 2, 3, 8 // 2)
        else:
            back = back_long(done, given, 3) if make is long else back_wide(done, given, 3)
        assert len(back) <= max(given, 2 * 3 + 1) and back.stop <= max(done, given)
        frames = make(length, known=video[:, back.start : back.stop], start=back.start)
        again = whole(itertools.islice(frames, len(back) + 5))  # a group of gaps that was begun, and what follows
        assert torch.equal(again, video[:, back.start : back.start + again.shape[1]])


WIDE = [((5, 4), 2, 0), ((3, 5), 0, 0), ((3, 2), 1, 0), ((3, 5), 0, 2), ((3, 2), 1, 3), ((4, 6), 2, 1)]


@pytest.mark.parametrize("key", CONDITIONS)
@pytest.mark.parametrize("size, context, given", WIDE)
def test_wide_pictures_agree_with_training_behind_given_frames_too(key, size, context, given):
    gpt = tiny_gpt((3, 3, 2), key=key, n_cond=LENGTHS[key], places=(3, 6, 6))
    known = torch.randint(37, (2, given, *size), generator=torch.Generator().manual_seed(1))
    codes = whole(sample_wide_codes(gpt, 5, size, context, seeds=[0, 1], top_k=1, known=known, **CONDITIONS[key]))
    assert torch.equal(codes[:, :given], known)
    cond = condition(gpt.config, 2, **CONDITIONS[key])
    for window in plan_wide(5, size, (3, 2), context, given):
        shown = torch.zeros(2, 3, 3, 2, dtype=torch.long)  # frames behind the window are not seen
        part = codes[:, window.frames.start : window.frames.stop, window.rows.start : window.rows.stop]
        shown[:, : window.new + 1] = part[..., window.columns.start : window.columns.stop]
        box = torch.tensor([[window.rows.start, window.rows.stop, window.columns.start, window.columns.stop]])
        best = best_of_training(gpt, cond, shown, crop_places((3, 3, 2), box))
        new = (..., slice(window.new_rows.start, 3), slice(window.new_columns.start, 2))
        assert torch.equal(shown[:, window.new][new], best[:, window.new][new])


@pytest.mark.parametrize("key", ["none", "label"])
@pytest.mark.parametrize("step, context, given", [(2, 1, 0), (3, 2, 5), (6, 0, 0), (5, 2, 12), (4, 1, 1)])
def test_hierarchies_of_every_step_agree_with_the_training_of_both_models(key, step, context, given):
    coarse = tiny_gpt((3, 2, 2), stride=step, key=key)
    fine = tiny_gpt((step + 1, 2, 2), n_unmasked=4, key=key)
    total = 4 * step + 1
    known = torch.randint(37, (2, given, 2, 2), generator=torch.Generator().manual_seed(1))
    made = sample_hierarchical_codes(
        coarse, fine, total, context, seeds=[0, 1], top_k=1, gap_batch=4, known=known, **CONDITIONS[key]
    )
    codes, cond = whole(made), condition(coarse.config, 2, **CONDITIONS[key])
    assert torch.equal(codes[:, :given], known)
    keys, there = codes[:, ::step], -(-given // step)
    for window in plan_long(5, context, 1, there):
        shown = keys[:, window.frames.start : window.frames.stop]
        best = best_of_training(coarse, cond, shown)
        assert torch.equal(shown[:, window.new.start :], best[:, window.new.start :])
    for window in plan_between(total, step, given):
        shown = codes[:, window.frames.start : window.frames.stop]
        best = best_of_training(fine, cond, shown)
        assert torch.equal(shown[:, window.new.start : step], best[:, window.new.start : step])


def test_the_published_order_of_wide_windows_keeps_given_frames():
    gpt = tiny_gpt((3, 3, 2), key="none", places=(3, 6, 6))
    more = {"seeds": [0], "top_k": 1, "as_published": True}
    video = whole(sample_wide_codes(gpt, 5, (4, 4), 1, **more))
    again = whole(sample_wide_codes(gpt, 5, (4, 4), 1, known=video[:, :2], **more))
    assert torch.equal(again, video)


@pytest.mark.parametrize(
    "known, message",
    [
        (torch.zeros(1, 2, 2, 2).long(), r"known codes must be \[2, t, 2, 2\]"),
        (torch.zeros(2, 2, 2).long(), r"got \[2, 2, 2\]"),
        (torch.full((2, 2, 2, 2), 37), "lie in 0..36, got 37..37"),
    ],
)
def test_known_codes_that_do_not_fit_are_refused(known, message):
    with pytest.raises(UserError, match=message):
        long(9, known=known)


def test_a_start_needs_the_frames_in_front_of_it():
    with pytest.raises(ValueError, match="must be the 3 frames"):
        long(9, known=torch.zeros(2, 2, 2, 2).long(), start=4)
    with pytest.raises(ValueError, match="a multiple of 3"):
        hierarchical(13, known=torch.zeros(2, 7, 2, 2).long(), start=2)
