"""Directions, speeds and places of videos are told apart, and their shares compared."""

import math
from types import SimpleNamespace

import pytest

from tats.metrics.spread import direction, distance, histogram, place, speed, spread


def test_directions_speeds_and_places_are_told_apart():
    centre = (0.5, 0.5)
    turns = [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)]
    assert [direction(centre, turn) for turn in turns] == list(range(8))
    assert [speed(centre, (0.0, v)) for v in (0.02, 0.04)] == [0, 1]
    places = [place((x, y), (0, 0)) for y in (0.14, 0.5, 0.86) for x in (0.14, 0.5, 0.86)]
    assert places == list(range(9))


def test_the_distance_of_two_histograms():
    same = histogram([1, 1, 2, 3])
    assert same == {1: 0.5, 2: 0.25, 3: 0.25}
    assert distance(same, same) == 0
    assert distance(same, {7: 1.0}) == 1
    assert distance(same, {1: 1.0}) == pytest.approx(0.5)


def test_spread_leaves_out_clips_without_the_right_object():
    def seen(velocity, right=True):
        return SimpleNamespace(start=(0.5, 0.5), velocity=velocity, right_object=right)

    truth = [((0.5, 0.5), (0.02, 0.0)), ((0.5, 0.5), (0.04, 0.0))]
    samples = [seen((0.02, 0.0)), seen((0.0, 0.04), right=False), seen((math.nan, 0.0))]
    tests = [seen((0.02, 0.0)), seen((0.04, 0.0))]
    found = spread({"samples": samples, "test clips": tests}, truth)
    assert found["direction"] == {"samples": 0, "test clips": 0}
    assert found["speed"] == {"samples": 0.5, "test clips": 0}
    assert found["place"] == {"samples": 0, "test clips": 0}
    assert "samples" not in spread({"samples": [], "test clips": tests}, truth)["place"]
