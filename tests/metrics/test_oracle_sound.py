"""Clicks are heard, turns are seen, and both are held against each other."""

import math

import numpy as np
import pytest

from tats.data.shapes import HIGH, LOW, Truth, clicks, draw_truth, fold, render_many
from tats.metrics.counts import Count
from tats.metrics.oracle import look
from tats.metrics.oracle_sound import Agreement, Click, Turn, clicks_heard, clicks_of, compare, total, turns_seen

N = 96


@pytest.fixture(scope="module")
def seen():
    """Some drawn videos, and the turns that are seen in them."""
    truths = [draw_truth(300, index, frames=16) for index in range(N)]
    return truths, [turns_seen(look(frames).position) for frames in render_many(truths, 32)]


def agreement(truths, turns):
    return total([compare(clicks_of(truth.reflections), each, truth.frames) for truth, each in zip(truths, turns)])


def test_true_videos_turn_at_their_clicks_and_nowhere_else(seen):
    found = agreement(*seen)
    assert found.answered.total > 40 and found.answered.share >= 0.95
    assert found.turns_without.hits == 0 and found.turns_without.total > 40


def test_clicks_of_other_videos_are_answered_by_chance_only(seen):
    truths, turns = seen
    found = agreement(truths[1:] + truths[:1], turns)
    assert found.answered.share < 0.25 and found.turns_without.share > 0.75


def test_turns_have_the_frame_and_the_wall_of_the_truth(seen):
    for truth, turns in zip(*seen):
        true = {(each.frame, each.wall) for each in truth.reflections}
        for turn in turns:
            assert {(turn.frame + off, turn.wall) for off in (-1, 0, 1)} & true, (truth.index, turn)


def test_jitter_moves_no_turn_and_makes_none():
    rng = np.random.default_rng(0)
    truths = [draw_truth(301, index, frames=32) for index in range(48)]
    turns = [turns_seen(truth.positions + rng.normal(0, 0.1 / 32, (32, 2))) for truth in truths]
    found = agreement(truths, turns)
    assert found.answered.share >= 0.95 and found.turns_without.share <= 0.02


def path(x):
    """A path that goes along x and stands still in y."""
    return np.stack([np.asarray(x, float), np.full(len(x), 0.5)], 1)


def test_turns_in_mid_air_are_at_no_wall():
    there = 0.4 + 0.03 * np.arange(8)
    assert turns_seen(path(np.concatenate([there, there[::-1]]))) == [Turn(8, 0, None)]
    bounced = fold(0.6 + 0.04 * np.arange(16))
    assert [turn.wall for turn in turns_seen(path(bounced))] == ["right"]
    assert [turn.wall for turn in turns_seen(path(LOW + HIGH - bounced))] == ["left"]
    assert turns_seen(path(bounced)[:, ::-1])[0].wall == "bottom"


def test_nothing_turns_where_nothing_is_seen_or_moves():
    assert turns_seen(path(np.full(16, 0.5))) == [] and turns_seen(path(np.linspace(0.2, 0.8, 16))) == []
    hidden = path(fold(0.6 + 0.04 * np.arange(16)))
    hidden[5:9] = math.nan  # the turn is in front of frame 7
    assert turns_seen(hidden) == [] and turns_seen(np.full((16, 2), math.nan)) == [] and turns_seen(path([0.5])) == []


def test_only_the_named_wall_answers_and_only_soon():
    turns = [Turn(8, 0, "left"), Turn(5, 1, None)]
    for click, answered in ((Click(6, 0), 1), (Click(10, 0), 1), (Click(11, 0), 0), (Click(8, 1), 0), (Click(5, 1), 0)):
        assert compare([click], turns, 16).answered == Count(answered, 1)
    assert compare([Click(8, 0)], turns, 16).turns_without == Count(1, 2)
    assert compare([Click(8, 0), Click(5, 1)], turns, 16).turns_without == Count(1, 2)  # none in mid-air is explained
    ends = [Click(frame, 0) for frame in (0, 1, 2, 14, 15)]
    assert compare(ends, [Turn(2, 0, "left")], 16) == Agreement(Count(1, 2), Count(0, 1))
    assert total([]) == Agreement(Count(0, 0), Count(0, 0))


@pytest.mark.parametrize("fps, rate", [(16, 16000), (25, 44100)])
def test_clicks_are_heard_at_their_frames(fps, rate):
    for index in range(24):
        truth = draw_truth(302, index, frames=48)
        assert clicks_heard(clicks(truth, fps, rate), rate, fps) == clicks_of(truth.reflections)


def test_noise_and_other_tones_are_no_clicks():
    rng = np.random.default_rng(0)
    time = np.arange(16000) / 16000
    assert clicks_heard(np.zeros(16000), 16000, 16) == []
    assert clicks_heard(rng.normal(0, 0.05, 16000), 16000, 16) == []
    assert clicks_heard(0.45 * np.sin(2 * np.pi * 3000 * time), 16000, 16) == []


def test_both_walls_at_once_are_two_clicks():
    corner = Truth(0, "red", "circle", "fast", (0.75, 0.75), (0.028284271, 0.028284271), 16)
    assert clicks_heard(clicks(corner, 16), 16000, 16) == clicks_of(corner.reflections) == [Click(4, 0), Click(4, 1)]
