"""The oracle over time: what is judged piece by piece is what is judged as a whole, and drops where the law breaks."""

import dataclasses
import itertools

import numpy as np
import pytest
from corruptions import bounced, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from tats.data.shapes import CLASSES, COLOURS, SHAPES, draw_truth, fold, render
from tats.metrics.counts import Count
from tats.metrics.oracle import judge
from tats.metrics.oracle_track import HORIZON, Steps, Tracker, follow
from tats.metrics.oracle_windows import WindowJudge, judge_windows, over_time, windows_of

FIELDS = [field.name for field in dataclasses.fields(Steps)]


def equal(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name in ("free", "speed")) for name in FIELDS
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 3 * HORIZON), st.lists(st.integers(0, 90), max_size=5))
def test_a_path_in_pieces_is_judged_as_the_whole(seed, frames, sizes):
    rng = np.random.default_rng(seed)
    path = draw_truth(seed, seed % 7, frames=frames).positions + rng.normal(
        0, rng.choice([0, 0.002, 0.02]), (frames, 2)
    )
    if seed % 2:
        path[rng.random(frames) < 0.2] = np.nan
    if seed % 3 == 0:
        path[: frames // 2] = np.nan  # nothing to be seen at first
    tracker, parts, first = Tracker(), [], 0
    for size in sizes:
        parts.append(tracker.add(path[first : first + size]))
        first += size
    parts += [tracker.add(path[first:]), tracker.finish()]
    whole = follow(path)
    assert len(whole.agrees) == frames - 1
    assert equal(Steps.joined(parts), whole)


def test_the_steps_of_a_stream_lag_a_little_and_nothing_piles_up():
    truth = draw_truth(5, 0, frames=600)
    tracker, known = Tracker(), 0
    for frame, place in enumerate(truth.positions):
        steps = tracker.add(place[None])
        known += len(steps.agrees)
        assert steps.agrees.all()
        if frame >= HORIZON:
            assert known == frame - 3
    assert len(tracker._rows) <= 8 and len(tracker._waiting) == 1
    assert known + len(tracker.finish().agrees) == 599


def test_an_object_that_appears_late_is_followed_from_then_on():
    path = draw_truth(5, 0, frames=400).positions
    path[:200] = np.nan
    track = follow(path)
    assert not track.agrees[:200].any() and np.isnan(track.speed[:195]).all()
    assert track.agrees[200:].all()


def strange_film():
    """192 frames: perfect, another colour in 48-79, gone in 100-103, slow from 144 on."""
    truth = draw_truth(3, 4, frames=192)
    moves = np.tile(truth.velocity, (191, 1))
    moves[144:] *= 0.3
    colours = np.tile(COLOURS[truth.colour], (192, 1))
    colours[48:80] = COLOURS["yellow" if truth.colour != "yellow" else "red"]
    frames = drawn(truth, bounced(truth.start, moves), 32, colours=colours)
    frames[100:104] = 0
    return truth, frames


@pytest.mark.parametrize("sizes, asked", [((1,), True), ((7, 100, 3), True), ((7, 100, 3), False), ((192,), False)])
def test_a_stream_is_judged_as_the_whole(sizes, asked):
    truth, frames = strange_film()
    words = (truth.colour, truth.shape) if asked else (None, None)
    cuts = itertools.accumulate(itertools.cycle(sizes), initial=0)
    pieces = (frames[a:b] for a, b in itertools.takewhile(lambda ab: ab[0] < 192, itertools.pairwise(cuts)))
    whole = windows_of(judge(frames, truth.colour, truth.shape))
    streamed = list(judge_windows(pieces, *words))
    assert len(whole) == 12
    assert repr(streamed) == repr(whole)  # NaN included


def test_a_perfect_film_stays_at_one():
    for index in range(3):
        truth = draw_truth(9, index, frames=160)
        windows = list(judge_windows(render(truth, 32), truth.colour, truth.shape))
        assert [window.first for window in windows] == list(range(0, 160, 16))
        assert all(window.valid and window.motion == 1 and window.speed_of_start for window in windows)


def test_every_breach_shows_in_its_window():
    truth, frames = strange_film()
    windows = list(judge_windows(frames, truth.colour, truth.shape, 16))
    assert {window.first for window in windows if not window.right_object} == {48, 64, 96}
    assert all(window.speed_of_start for window in windows if window.first < 96)
    assert all(not window.speed_of_start and not window.legal_speed for window in windows[-2:])
    assert windows[-1].motion == 1 and windows[-1].keeps_speed and not windows[-1].valid
    assert windows[-1].speed == pytest.approx(0.3 * windows[0].speed, rel=0.1)


def test_a_teleport_between_two_windows_is_not_missed():
    truth = draw_truth(3, 1, frames=64)
    places = truth.positions.copy()
    places[32:] = fold(places[32:] + 0.3)
    windows = list(judge_windows(drawn(truth, places, 32), truth.colour, truth.shape, 16))
    assert [window.teleports for window in windows][:2] == [0, 0] and windows[2].teleports >= 1
    assert not windows[2].valid


def test_a_video_without_end_is_judged_while_it_comes():
    truth = draw_truth(1, 2, frames=5000)
    asked = itertools.count()
    pieces = (render(dataclasses.replace(truth, start=tuple(truth.positions[k]), frames=1), 32) for k in asked)
    judged = WindowJudge(truth.colour, truth.shape)
    first = next(found for piece in pieces for found in [judged.add(piece)] if found)
    assert [window.first for window in first] == [0, 16, 32]  # all that the first HORIZON frames settle
    assert next(asked) == HORIZON


def test_windows_of_many_videos_are_counted():
    films = [draw_truth(2, index, frames=frames) for index, frames in ((0, 64), (1, 64), (2, 40))]
    videos = [windows_of(judge(render(film, 32), film.colour, film.shape)) for film in films]
    curve = over_time(videos)
    assert [each["valid"] for each in curve] == [Count(3, 3), Count(3, 3), Count(2, 2), Count(2, 2)]
    assert curve[0]["speed_of_start"] == Count(3, 3)
    wrong = [windows_of(judge(render(films[0], 32), *CLASSES[(CLASSES.index(films[0].label) + 1) % 12].split("_")))]
    assert over_time(wrong)[1]["right_object"] == Count(0, 1)
    assert over_time([]) == []


def test_what_can_not_be_judged_is_refused():
    with pytest.raises(ValueError, match="at least 4 frames"):
        WindowJudge(length=3)
    with pytest.raises(ValueError, match="is not in"):
        WindowJudge("pink", SHAPES[0])
