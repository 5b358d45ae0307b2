"""Conditions that change on the way: a long video is what its parts make by hand, and a sound is cut to each window."""

from fractions import Fraction

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt.api import sample_codes, sample_hierarchical_codes, sample_long_codes, sample_wide_codes
from tats.gpt.condition import condition
from tats.gpt.course import Change, Course, rate_of
from tats.gpt.endless import back_between, back_long
from tats.gpt.objective import crop_places, predict
from tats.gpt.plans import plan_between, plan_long, plan_wide

SETTINGS = {"seeds": [3, 4], "top_k": 20, "top_p": 0.9, "temperature": 1.2}


def best_of_training(gpt, cond, codes, places=None):
    """Argmax over code ids of one training pass over a finished window: [B, t, h, w]."""
    with torch.no_grad():
        logits, _ = predict(gpt, cond, codes, places=places)
    return logits[..., gpt.config.code_offset :].argmax(-1).view_as(codes)


def whole(frames):
    return torch.stack(list(frames), 1)


def pair(step, **more):
    """A coarse transformer and the one that fills its gaps."""
    return tiny_gpt((3, 2, 2), stride=step, **more), tiny_gpt((step + 1, 2, 2), n_unmasked=4, **more)


@pytest.mark.parametrize("changes", [(4,), (1, 2, 7), (2, 3)])
@pytest.mark.parametrize("context", [0, 1, 3])
def test_a_schedule_gives_what_its_parts_give_by_hand(changes, context):
    gpt, labels = tiny_gpt(), [0, 2, 1, 2]
    schedule = [Change(frame, label=label) for frame, label in zip(changes, labels[1:])]
    made = whole(sample_long_codes(gpt, 9, context, label=0, schedule=schedule, **SETTINGS))
    by_hand = None
    for end, label in zip([*changes, 9], labels):
        frames = sample_long_codes(gpt, 9, context, label=label, known=by_hand, **SETTINGS)
        by_hand = whole(frames)[:, :end]
    assert torch.equal(made, by_hand)
    other = whole(sample_long_codes(gpt, 9, context, label=0, **SETTINGS))
    assert torch.equal(made[:, : changes[0]], other[:, : changes[0]]) and not torch.equal(made, other)


@pytest.mark.parametrize("step, changes", [(4, (4,)), (4, (6, 11)), (3, (1, 2)), (2, (5,))])
def test_both_models_of_a_hierarchy_follow_a_schedule(step, changes):
    coarse, fine = pair(step)
    total, context = 4 * step + 1, 2
    schedule = [Change(frame, label=label) for frame, label in zip(changes, [2, 1])]

    def cond(frame):
        return torch.full((2, 1), [0, *(change.label for change in schedule)][sum(t <= frame for t in changes)])

    made = sample_hierarchical_codes(
        coarse, fine, total, context, label=0, schedule=schedule, seeds=[0, 1], top_k=1, gap_batch=4
    )
    codes = whole(made)
    keys = codes[:, ::step]
    for window in plan_long(5, context):
        shown = keys[:, window.frames.start : window.frames.stop]
        for place in window.new:
            best = best_of_training(coarse, cond(window.frames[place] * step), shown)
            assert torch.equal(shown[:, place], best[:, place])
    for window in plan_between(total, step):
        shown = codes[:, window.frames.start : window.frames.stop]
        for place in window.new:
            best = best_of_training(fine, cond(window.frames[place]), shown)
            assert torch.equal(shown[:, place], best[:, place])


def test_a_schedule_changes_wide_pictures_too():
    gpt = tiny_gpt((3, 3, 2), places=(3, 6, 6))
    codes = whole(sample_wide_codes(gpt, 4, (5, 4), 2, label=0, schedule=[Change(2, label=1)], seeds=[0], top_k=1))
    for window in plan_wide(4, (5, 4), (3, 2), 2):
        shown = torch.zeros(1, 3, 3, 2, dtype=torch.long)
        part = codes[:, window.frames.start : window.frames.stop, window.rows.start : window.rows.stop]
        shown[:, : window.new + 1] = part[..., window.columns.start : window.columns.stop]
        box = torch.tensor([[window.rows.start, window.rows.stop, window.columns.start, window.columns.stop]])
        cond = torch.tensor([[int(window.frames[window.new] >= 2)]])
        best = best_of_training(gpt, cond, shown, crop_places((3, 3, 2), box))
        new = (..., slice(window.new_rows.start, 3), slice(window.new_columns.start, 2))
        assert torch.equal(shown[:, window.new][new], best[:, window.new][new])


@pytest.mark.parametrize("done", range(1, 12))
def test_a_video_with_a_schedule_goes_on_bit_by_bit_after_a_stop(done):
    more = {**SETTINGS, "label": 0, "schedule": [Change(2, label=2), Change(7, label=1)]}
    gpt, (coarse, fine) = tiny_gpt().float(), (model.float() for model in pair(3))
    video = whole(sample_long_codes(gpt, 13, 3, **more))
    back = back_long(done, 0, 3)
    again = sample_long_codes(gpt, 13, 3, known=video[:, back.start : back.stop], start=back.start, **more)
    assert torch.equal(whole(again), video[:, back.start :])
    video = whole(sample_hierarchical_codes(coarse, fine, 13, 2, gap_batch=8, **more))
    back = back_between(done, 0, 2, 3, 4)
    known = video[:, back.start : back.stop]
    again = sample_hierarchical_codes(coarse, fine, 13, 2, gap_batch=8, known=known, start=back.start, **more)
    assert torch.equal(whole(again), video[:, back.start :])


@pytest.mark.parametrize("per_frame", [1, 2, 0.5])
@pytest.mark.parametrize("context", [1, 3])
def test_every_window_takes_the_sound_of_its_own_frames(per_frame, context):
    length = int(4 * per_frame)  # frames of sound beside the 4 of a window
    gpt = tiny_gpt((4, 2, 2), key="stft", n_cond=length * 2, code_offset=50)
    sound = torch.randint(50, (2, int(9 * per_frame), 2, 1), generator=torch.Generator().manual_seed(1))
    codes = whole(sample_long_codes(gpt, 9, context, sound=sound, seeds=[0, 1], top_k=1))
    longer = torch.cat([sound, sound[:, -1:].expand(-1, length, -1, -1)], 1)  # its last frame goes on
    for window in plan_long(9, context):
        first = int(window.frames.start * per_frame)
        cond = longer[:, first : first + length].flatten(1)
        shown = codes[:, window.frames.start : window.frames.stop]
        best = best_of_training(gpt, cond, shown)
        assert torch.equal(shown[:, window.new.start :], best[:, window.new.start :])


def test_a_hierarchy_takes_the_sound_of_its_frames_in_both_models():
    coarse = tiny_gpt((3, 2, 2), stride=4, key="stft", n_cond=9, code_offset=50)  # of clips of 9 latent frames
    fine = tiny_gpt((5, 2, 2), n_unmasked=4, key="stft", n_cond=5, code_offset=50)
    sound = torch.randint(50, (1, 30, 1, 1), generator=torch.Generator().manual_seed(1))
    codes = whole(sample_hierarchical_codes(coarse, fine, 17, 2, sound=sound, seeds=[0], top_k=1, gap_batch=3))
    for t in range(3):
        shown = codes[:, 4 * t : 4 * t + 9 : 4]
        assert torch.equal(shown[:, 2], best_of_training(coarse, sound[:, 4 * t : 4 * t + 9].flatten(1), shown)[:, 2])
    for t in range(0, 16, 4):
        shown = codes[:, t : t + 5]
        best = best_of_training(fine, sound[:, t : t + 5].flatten(1), shown)
        assert torch.equal(shown[:, 1:4], best[:, 1:4])


def test_a_sound_of_one_window_holds_for_all_and_a_schedule_joins_sounds():
    gpt = tiny_gpt((4, 2, 2), key="stft", n_cond=4, code_offset=50)
    first, second = torch.randint(50, (2, 12, 1, 1), generator=torch.Generator().manual_seed(1))
    course = Course(gpt.config, 2, 9, {"sound": first[:4]})
    assert torch.equal(course.cond_for(range(3, 7), 6), first[:4].view(1, 4).expand(2, -1))
    joined = torch.cat([first[:5], second])[None]
    course = Course(gpt.config, 2, 9, {"sound": first}, [Change(5, sound=second)])
    for start in range(6):
        cond = course.cond_for(range(start, start + 4), start + 3)
        assert torch.equal(cond, joined[:, start : start + 4].view(1, 4).expand(2, -1))


@pytest.mark.parametrize(
    "window, stride, length, rate",
    [(4, 0, 4, 1), (4, 0, 8, 2), (4, 0, 2, Fraction(1, 2)), (5, 0, 3, Fraction(1, 2)), (4, 0, 12, 3), (3, 4, 9, 1)],
)
def test_the_rate_of_a_sound_follows_from_its_window(window, stride, length, rate):
    assert rate_of(tiny_gpt((window, 2, 2), stride=stride).config, length) == rate


def test_combined_conditions_change_one_by_one():
    gpt = tiny_gpt(key="label+text", conditions=(("label", 1, 3), ("text", 2, 5)))
    texts = [torch.tensor([1, 4]), torch.tensor([0, 2])]
    schedule = [Change(0, text=texts[0]), Change(3, label=2), Change(5, text=texts[1])]
    course = Course(gpt.config, 1, 9, {"label": 1, "text": torch.tensor([0, 0])}, schedule)
    found = [course.cond_for(range(t - 1, t + 1), t).tolist()[0] for t in (1, 3, 5, 8)]
    assert found == [[1, 4, 7], [2, 4, 7], [2, 3, 5], [2, 3, 5]]
    assert torch.equal(course.conds[0], condition(gpt.config, 1, label=1, text=texts[0]))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda gpt: [Change(3, label=1), Change(3, label=2)],
            r"in the order of their frames, from 0 on; got \[3, 3\]",
        ),
        (lambda gpt: [Change(-1, label=1)], r"from 0 on; got \[-1\]"),
        (lambda gpt: [Change(2, text=torch.zeros(1, 2).long())], "takes a label, but a label and a text"),
        (lambda gpt: [Change(2, label=3)], "ids of the condition lie in 0..2"),
        (lambda gpt: [Change(2, cfg_scale=2.0)], "--cfg_scale 2 needs a transformer that was trained with --cond_drop"),
    ],
)
def test_a_schedule_that_does_not_go_is_refused_before_a_frame_is_made(call, message):
    gpt = tiny_gpt()
    with pytest.raises(UserError, match=message):
        sample_long_codes(gpt, 9, 3, label=0, seeds=[0], schedule=call(gpt))


def test_a_sound_must_last_as_long_as_the_video():
    gpt = tiny_gpt((4, 2, 2), key="stft", n_cond=4, code_offset=50)
    with pytest.raises(UserError, match="has 8 frames of codes, and 9 latent frames of video need 9: give a longer"):
        sample_long_codes(gpt, 9, 3, sound=torch.zeros(8, 1, 1).long())
    assert sample_codes(gpt, sound=torch.zeros(8, 1, 1).long()).shape == (1, 4, 2, 2)  # the sound of its beginning
    with pytest.raises(UserError, match="which does not tell which belong together"):
        sample_long_codes(
            tiny_gpt((7, 2, 2), key="stft", n_cond=5, code_offset=50), 9, 3, sound=torch.zeros(9, 1, 1).long()
        )
