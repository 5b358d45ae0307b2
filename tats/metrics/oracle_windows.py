"""The oracle over time: a verdict on every window of a video of the embedded world, however long it is.

    for window in judge_windows(video, "red", "circle"):           # video as tats.metrics.windows.stream takes it
        print(window.first, window.right_object, window.motion, window.valid, window.speed_of_start)

What is held is a window and a few steps, so that a video without end can be judged while it is made. A step counts in
the window of its later frame: between two windows nothing is missed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import COLOURS, SHAPES
from tats.metrics.counts import Count
from tats.metrics.oracle import (
    KEPT,
    Judgement,
    Looks,
    Scores,
    is_inside,
    is_right,
    look,
    most,
    softness,
    summary,
    typical_speed,
    verdict,
)
from tats.metrics.oracle_track import Steps, Tracker
from tats.metrics.windows import stream

LENGTH = 16  # frames of a window


@dataclass(frozen=True)
class WindowScores(Scores):
    """The verdict on one window of a long video."""

    first: int  # its first frame
    speed: float  # typical speed, picture sides per frame; NaN where nothing could be followed
    speed_of_start: bool  # that of the first window that has one, within a quarter


class WindowJudge:
    """Judges a video piece by piece: hand in frames, take out the windows that are known by now.

    colour, shape: names of what is asked for; None: what most frames of the first window show. A rest that does not
    fill a window is not judged.
    """

    def __init__(self, colour: str | None = None, shape: str | None = None, length: int = LENGTH):
        self._colour = None if colour is None else list(COLOURS).index(colour)
        self._shape = None if shape is None else SHAPES.index(shape)
        self._cutter = _Cutter(length)
        self._tracker = Tracker()
        self._looks: list[Looks] = []  # of the first frames, until it is known what is asked for
        self._seen = 0  # frames of these

    def add(self, frames: NDArray[np.uint8]) -> list[WindowScores]:
        """Take in frames uint8 [n, H, H, 3]; returns the windows that are known now, in their order."""
        if not len(frames):
            return []
        self._looks.append(look(frames))
        self._seen += len(frames)
        return self._judge() if self._seen >= self._cutter.length else []

    def finish(self) -> list[WindowScores]:
        """The rest of the windows: the video ends here."""
        found = self._judge() if self._looks else []
        return found + self._cutter.add_steps(self._tracker.finish())

    def _judge(self) -> list[WindowScores]:
        whole = Looks(*(np.concatenate([getattr(part, each.name) for part in self._looks]) for each in fields(Looks)))
        self._looks = []
        start = slice(self._cutter.length)
        self._colour = most(whole.colour[start]) if self._colour is None else self._colour
        self._shape = most(whole.shape[start]) if self._shape is None else self._shape
        self._cutter.add_frames(is_right(whole, self._colour, self._shape), is_inside(whole), softness(whole))
        return self._cutter.add_steps(self._tracker.add(whole.position))


def judge_windows(
    video: Any, colour: str | None = None, shape: str | None = None, length: int = LENGTH
) -> Iterator[WindowScores]:
    """Judge a video window by window while it comes; arguments as of `WindowJudge`, the video as `stream` takes it."""
    judge = WindowJudge(colour, shape, length)
    for frames in stream(video):
        yield from judge.add(frames.numpy())
    yield from judge.finish()


def windows_of(judgement: Judgement, length: int = LENGTH) -> list[WindowScores]:
    """The windows of a video that was judged as a whole; what `judge_windows` says of it."""
    cutter = _Cutter(length)
    cutter.add_frames(judgement.right, judgement.inside, softness(judgement.looks))
    return cutter.add_steps(judgement.track)


def over_time(videos: Sequence[Sequence[Scores]]) -> list[dict[str, Count]]:
    """How many videos pass each test in window w, for every w: {test: Count}, with `speed_of_start` for `WindowScores`.
    Videos may differ in length; the later windows count the long ones."""
    found = []
    for place in range(max(map(len, videos), default=0)):
        part = [windows[place] for windows in videos if place < len(windows)]
        kept = [window.speed_of_start for window in part if isinstance(window, WindowScores)]
        found.append(summary(part) | ({"speed_of_start": Count(sum(kept), len(kept))} if kept else {}))
    return found


class _Cutter:
    """Cuts what is seen in frames, and the steps, into windows; the steps lag behind."""

    def __init__(self, length: int):
        if length < 4:
            raise ValueError(f"a window must have at least 4 frames to judge a motion, got {length}")
        self.length = length
        self._first = 0  # frame of the next window
        self._home = math.nan  # the speed that is to be kept
        self._right, self._inside, self._soft = np.zeros(0, bool), np.zeros(0, bool), np.zeros(0)
        self._steps: Steps | None = None

    def add_frames(self, right: NDArray[np.bool_], inside: NDArray[np.bool_], soft: NDArray[np.float64]) -> None:
        self._right = np.append(self._right, right)
        self._inside = np.append(self._inside, inside)
        self._soft = np.append(self._soft, soft)

    def add_steps(self, steps: Steps) -> list[WindowScores]:
        """The windows whose steps are all known now."""
        steps = steps.part(0, len(steps.agrees)) if self._steps is None else Steps.joined([self._steps, steps])
        found, frame, step = [], 0, 0
        while True:
            count = self.length if self._first else self.length - 1  # no step leads to the first frame
            if step + count > len(steps.agrees):
                break
            found.append(self._window(slice(frame, frame + self.length), steps.part(step, step + count)))
            frame, step = frame + self.length, step + count
            self._first += self.length
        self._right, self._inside, self._soft = self._right[frame:], self._inside[frame:], self._soft[frame:]
        self._steps = steps.part(step, len(steps.agrees))
        return found

    def _window(self, frames: slice, steps: Steps) -> WindowScores:
        speed = typical_speed(steps)
        if math.isnan(self._home):
            self._home = speed
        scores = verdict(self._right[frames], self._inside[frames], self._soft[frames], steps)
        return WindowScores(*scores, self._first, speed, abs(speed - self._home) <= KEPT * self._home)
