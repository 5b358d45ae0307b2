"""Errors at the joint of a given and a new part are found there, and told from errors elsewhere."""

import dataclasses

import numpy as np
import pytest

from tats.data.shapes import draw_truth, render
from tats.metrics.joint import KINDS, Watch, summary, tiles

GIVEN, TOTAL, FACTOR = 12, 28, 4


def watched(frames):
    watch = Watch()
    for first in range(0, len(frames), 5):  # pieces that fit nothing
        watch.add(frames[first : first + 5])
    return tiles(watch.seen(), GIVEN, FACTOR)


def straight(velocity, start=(0.3, 0.3), colour="red", shape="circle"):
    truth = draw_truth(0, 0, frames=TOTAL)
    return dataclasses.replace(truth, colour=colour, shape=shape, start=start, velocity=velocity)


def joined(before, after):
    """The first frames of one video, then the others of another."""
    return np.concatenate([render(before, 32)[:GIVEN], render(after, 32)[GIVEN:]])


def errors(found, part):
    counts = summary([found])[part]
    return {kind: counts[kind].hits for kind in KINDS if counts[kind].hits}


@pytest.mark.parametrize("index", range(6))
def test_a_true_video_has_no_error_anywhere(index):
    counts = summary([watched(render(draw_truth(3, index, frames=TOTAL), 32))])
    assert [counts[part]["any"].total for part in ("given", "joint", "new")] == [2, 1, 3]
    assert all(count.hits == 0 for part in counts.values() for count in part.values())


def test_each_kind_of_error_is_found_at_the_joint_and_nowhere_else():
    slow = straight((0.02, 0.0))
    jumped = dataclasses.replace(slow, start=(0.3, 0.55))
    place = slow.start[0] + 0.02 * GIVEN  # where the new part begins
    faster = straight((0.04, 0.0), (place - 0.04 * GIVEN, 0.3))
    turned = straight((0.0, 0.02), (place, 0.3 - 0.02 * GIVEN))
    other = dataclasses.replace(slow, colour="blue", shape="square")
    cases = {"jump": jumped, "speed": faster, "turn": turned, "object": other}
    for kind, after in cases.items():
        found = watched(joined(slow, after))
        at_joint = errors(found, "joint")
        assert at_joint.pop("any") == 1 and kind in at_joint
        assert errors(found, "given") == errors(found, "new") == {}, kind


def test_an_error_in_the_new_part_is_none_of_the_joint():
    slow = straight((0.02, 0.0), (0.2, 0.3))
    frames = render(slow, 32)
    frames[20:] = render(dataclasses.replace(slow, colour="green"), 32)[20:]
    found = watched(frames)
    assert errors(found, "new") == {"object": 1, "any": 1}
    assert errors(found, "given") == errors(found, "joint") == {}


def test_what_cannot_be_told_is_not_counted():
    frames = render(straight((0.02, 0.0)), 32)[:16]
    watch = Watch()
    watch.add(frames)
    counts = summary([tiles(watch.seen(), 4, 4)])  # three given steps tell no speed
    assert counts["joint"]["speed"].total == 0 and counts["joint"]["jump"].total == 1
    assert counts["given"]["any"].total == 0


@pytest.mark.parametrize("given", [0, TOTAL])
def test_a_video_without_a_joint_is_refused(given):
    watch = Watch()
    watch.add(render(straight((0.02, 0.0)), 32))
    with pytest.raises(ValueError, match="given must lie in"):
        tiles(watch.seen(), given, FACTOR)
