"""Does a video of the embedded world turn at its walls when its sound clicks, and only then?

    heard = clicks_heard(sound, 16000, fps=16)             # [Click(frame=5, axis=0), Click(frame=11, axis=1)]
    seen = turns_seen(judge(frames).position)              # [Turn(frame=5, axis=0, wall="left")]
    print(compare(heard, seen, len(frames)).answered)      # 50.0 % (9.5-90.5 %), 1 of 2

A click names a pair of walls: 880 Hz left and right (axis 0), 440 Hz top and bottom (axis 1). A *turn* is where one
coordinate of the object changes its direction, with at least two frames on either side; where this is not at a wall, in
mid-air, no click can account for it. A click is *answered* by a turn at a wall of its pair at most NEAR frames away, a
turn is *accounted for* by such a click.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import CLICK_SECONDS, CLICKS, HIGH, LOW, Reflection
from tats.metrics.counts import Count

NEAR = 2  # frames between a click and the turn that answers it
WALLS = (("left", "right"), ("top", "bottom"))  # by axis: the low and the high one
PITCHES = (CLICKS["left"], CLICKS["top"])  # hertz, by axis
REACH = 4  # frames on either side of a turn that its slopes are taken from
VISIBLE = 0.004  # picture sides per frame: slower than this towards a wall, a turn drowns in a VQGAN's jitter
AT_WALL = 0.045  # how far from a wall the outermost frame of a turn may be: a fast step, and blur
LOUD = 0.05  # amplitude of a tone that counts as a click; the dataset's are 0.45
RISE = 2.0  # and it must grow by this factor from the frame before


@dataclass(frozen=True)
class Click:
    """A click begins with `frame`; it names the walls across `axis` (0: left and right, 1: top and bottom)."""

    frame: int
    axis: int


@dataclass(frozen=True)
class Turn:
    """`frame` is the first after the coordinate `axis` has changed its direction; `wall` is None in mid-air."""

    frame: int
    axis: int
    wall: str | None


@dataclass(frozen=True)
class Agreement:
    """Clicks and turns of some videos, held against each other."""

    answered: Count  # clicks that have a turn
    turns_without: Count  # turns that have no click

    def __add__(self, other: "Agreement") -> "Agreement":
        pairs = ((self.answered, other.answered), (self.turns_without, other.turns_without))
        return Agreement(*(Count(a.hits + b.hits, a.total + b.total) for a, b in pairs))


NOTHING = Agreement(Count(0, 0), Count(0, 0))


def clicks_of(reflections: Iterable[Reflection]) -> list[Click]:
    """The clicks that a drawn video has by its truth, one for each reflection."""
    return [Click(each.frame, int(each.wall in WALLS[1])) for each in reflections]


def clicks_heard(sound: NDArray[np.floating], rate: int, fps: float) -> list[Click]:
    """The clicks in a sound, by their frames.  float [samples], in [-1, 1]

    In each frame the amplitude of both pitches over the length of a click is measured; a click begins where one of them
    is loud and has risen since the frame before.
    """
    length = round(CLICK_SECONDS * rate)
    frames = math.ceil(len(sound) / rate * fps - 1e-6)
    padded = np.pad(np.asarray(sound, np.float64), (0, length))
    windows = np.stack([padded[start : start + length] for start in (round(f / fps * rate) for f in range(frames))])
    fade = np.exp(-np.arange(length) / (length / 5))  # as the clicks fade
    found = []
    for axis, pitch in enumerate(PITCHES):
        wave = fade * np.exp(-2j * math.pi * pitch * np.arange(length) / rate)
        loud = np.abs(windows @ wave) * 2 / (fade**2).sum()  # [frames], amplitude of the tone at its beginning
        before = np.append(0.0, loud[:-1])
        found += [Click(int(f), axis) for f in np.flatnonzero((loud > LOUD) & (loud > RISE * before))]
    return sorted(found, key=lambda click: (click.frame, click.axis))


def turns_seen(positions: NDArray[np.float64]) -> list[Turn]:
    """The turns of a path float [T, 2], picture sides, NaN where no object was found."""
    found = []
    for axis in (0, 1):
        path = positions[:, axis]
        bends = [_bend(path, frame) for frame in range(len(path))]  # how sharply it turns in front of each frame
        for frame, bend in enumerate(bends):
            around = bends[max(frame - REACH, 0) : frame + REACH + 1]
            if bend and bend == max(around) and bends.index(bend, max(frame - REACH, 0)) == frame:
                found.append(Turn(frame, axis, _wall(path, frame, axis)))
    return sorted(found, key=lambda turn: (turn.frame, turn.axis))


def compare(clicks: Iterable[Click], turns: Iterable[Turn], frames: int) -> Agreement:
    """Hold the clicks of a video of so many frames against its turns. A click in the first two frames or in the last
    one, where its turn could not be seen, accounts for turns, but is not counted itself."""
    heard, seen = list(clicks), list(turns)
    answered = [
        any(turn.wall is not None and _together(click, turn) for turn in seen)
        for click in heard
        if 2 <= click.frame <= frames - 2
    ]
    without = [turn.wall is None or not any(_together(click, turn) for click in heard) for turn in seen]
    return Agreement(Count(sum(answered), len(answered)), Count(sum(without), len(without)))


def total(agreements: Sequence[Agreement]) -> Agreement:
    """Several videos together."""
    return sum(agreements, NOTHING)


def _together(click: Click, turn: Turn) -> bool:
    return click.axis == turn.axis and abs(click.frame - turn.frame) <= NEAR


def _bend(path: NDArray[np.float64], frame: int) -> float:
    """The change of slope between the frames before `frame` and those from it on, where the slope changes its sign; 0
    where it does not, or is too small, or cannot be seen."""
    before, after = path[max(frame - REACH, 0) : frame], path[frame : frame + REACH]
    if min(len(before), len(after)) < 2 or not np.isfinite(before).all() or not np.isfinite(after).all():
        return 0.0
    first, second = _slope(before), _slope(after)
    if first * second >= 0 or min(abs(first), abs(second)) < VISIBLE:
        return 0.0
    return abs(first - second)


def _slope(path: NDArray[np.float64]) -> float:
    """Of a straight line through equally spaced values, by least squares."""
    time = np.arange(len(path)) - (len(path) - 1) / 2
    return float(time @ path / (time @ time))


def _wall(path: NDArray[np.float64], frame: int, axis: int) -> str | None:
    """The wall at which a path turns in front of `frame`."""
    near = path[frame - 1 : frame + 1]
    if near.min() <= LOW + AT_WALL and path[frame - 2] > near.min():
        return WALLS[axis][0]
    if near.max() >= HIGH - AT_WALL and path[frame - 2] < near.max():
        return WALLS[axis][1]
    return None
