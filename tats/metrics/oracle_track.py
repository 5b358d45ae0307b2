"""Follows a shape from frame to frame: does it fly straight, and turn at the walls and nowhere else?

A step agrees when the displacement is the current velocity, reflected where the path crosses a wall, within
`max(0.35 * speed, TOLERANCE)`. The current velocity is an average over the last steps that agreed. Two steps in a row
that disagree with it but agree with each other are a change of course in mid-air: the follower goes on with the new
velocity and remembers the break. `follow` takes a whole path, `Tracker` one that comes in pieces and may never end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import HIGH, LOW, fold

SHARE = 0.35  # of the speed: how far a step may be off
TOLERANCE = 0.3 / 32  # and at least this, picture sides: 0.3 pixels at 32 pixels
JUMP = 0.06  # a step this far off is a teleport: one and a half fast steps
EARLY = 0.4 / 32  # a turn this far before the wall still counts as a turn at the wall
LOCKS = 6  # frames tried as the place where the velocity is first known
HORIZON = 64  # frames on which it is decided which of these places is the best
MEMORY = 6  # steps that the current velocity averages over
SPAN = 6  # steps over which a local speed is measured

Point = tuple[float, float]
Row = tuple[bool, bool, bool, bool, float, float]
"""What a follower says of a step: agrees, jumps, breaks, turns, and x and y of its displacement without walls."""


@dataclass(frozen=True)
class Steps:
    """Successive steps of a path; row k of an array is about a step from one frame to the next."""

    agrees: NDArray[np.bool_]  # [n] the step is the current velocity, or a reflection explains it
    jumps: NDArray[np.bool_]  # [n] teleports
    breaks: NDArray[np.bool_]  # [n] a new course was taken in mid-air
    turns: NDArray[np.bool_]  # [n] a reflection at a wall
    free: NDArray[np.float64]  # [n, 2] the displacement as it would be without walls; NaN where unknown
    speed: NDArray[np.float64]  # [n] over the SPAN steps around, picture sides per frame; NaN where unknown

    @classmethod
    def joined(cls, parts: "Sequence[Steps]") -> "Steps":
        """Parts that follow each other as one."""
        return cls(
            **{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Steps)}
        )

    def part(self, first: int, last: int) -> "Steps":
        """Steps first..last-1 alone."""
        return Steps(**{each.name: getattr(self, each.name)[first:last] for each in fields(Steps)})


@dataclass(frozen=True)
class Track(Steps):
    """The motion in a video of T frames: its T - 1 steps, and a straight line fitted to the whole unfolded path."""

    start: Point  # place in frame 0; NaN where nothing could be followed
    velocity: Point  # of the first step


def follow(positions: NDArray[np.float64]) -> Track:
    """Judge a path.  positions float [T, 2], NaN where no shape was found; T >= 2."""
    tracker = Tracker()
    steps = Steps.joined([tracker.add(positions), tracker.finish()])
    if tracker.lock is None:
        start = velocity = (math.nan, math.nan)
    else:
        start, velocity = _line(*tracker.lock, steps.free)
    return Track(**vars(steps), start=start, velocity=velocity)


class Tracker:
    """Judges a path piece by piece; what it holds does not grow with the path.

    Where the velocity is first known is decided on the first HORIZON frames; while nothing can be followed there, these
    steps count as wrong and the next HORIZON frames are tried.
    """

    def __init__(self) -> None:
        self.lock: tuple[Point, int, Point] | None = None  # place, frame, and signs of the velocity in frame 0
        self._waiting: list[Point] = []  # places that are not followed yet; without the velocity, up to HORIZON
        self._frames = 0  # frames in front of those
        self._follower: _Follower | None = None
        self._rows: list[Row] = []  # steps whose speed is not known yet, and those in front that it needs
        self._before = 0  # of these rows: given out already
        self._speed = math.nan  # of the last step that was given out

    def add(self, positions: NDArray[np.float64]) -> Steps:
        """Take in places float [n, 2], NaN where no shape was found. Returns the steps that are known now, in their
        order: the last three are not, and of the first HORIZON none."""
        for x, y in positions.tolist():
            self._waiting.append((x, y))
            if self._follower is not None:
                self._follower.walk(self._waiting)
                self._waiting = self._waiting[-1:]
            elif len(self._waiting) == HORIZON:
                self._begin()
        return self._settle(final=False)

    def finish(self) -> Steps:
        """The rest of the steps: the path ends here."""
        if self._follower is None and len(self._waiting) > 1:
            self._begin()
        return self._settle(final=True)

    def _begin(self) -> None:
        """Find the velocity in the places that wait, and follow the path from there backwards and forwards."""
        points = self._waiting
        best: tuple[int, int, _Follower, _Follower] | None = None
        for first, velocity in _locks(points):
            after = _Follower(velocity)
            before = _Follower((-velocity[0], -velocity[1]))
            after.walk(points[first:])
            before.walk(points[first::-1])
            agreed = sum(row[0] for row in before.rows + after.rows)
            if best is None or agreed > best[0]:
                best = agreed, first, before, after
            if best[0] == len(points) - 1:
                break
        if best is None:
            self._rows += [(False, False, False, False, math.nan, math.nan)] * (len(points) - 1)
        else:
            _, first, before, self._follower = best
            self._rows += [(*row[:4], -row[4], -row[5]) for row in reversed(before.rows)]
            if self.lock is None:
                self.lock = points[first], self._frames + first, before.signs
        self._frames += len(points) - 1
        self._waiting = points[-1:]

    def _settle(self, final: bool) -> Steps:
        """Give out the steps whose speed is known: the length of the mean step over SPAN steps, given to the step in
        their middle; the ends of the path repeat the nearest one."""
        if self._follower is not None:
            self._rows += self._follower.rows
            self._follower.rows = []
        rows, begun = self._rows, self._before
        free = np.array([row[4:] for row in rows], np.float64).reshape(-1, 2)
        span = min(SPAN, len(rows)) if final and not begun else SPAN
        count = len(rows) - span + 1 if span else 0
        left = (span - 1) // 2
        speed = np.zeros(0)
        if count > 0:
            speed = np.linalg.norm(sum(free[k : k + count] for k in range(span)) / span, axis=1)  # [count]
            speed = speed if begun else np.concatenate([np.repeat(speed[0], left), speed])
            self._speed = float(speed[-1])
        done = len(rows) if final else begun + len(speed)
        speed = np.append(speed, np.full(done - begun - len(speed), self._speed))
        agrees, jumps, breaks, turns = (np.array([row[kind] for row in rows[begun:done]], bool) for kind in range(4))
        self._before = min(done, (SPAN - 1) // 2)
        self._rows = rows[done - self._before :]
        return Steps(agrees, jumps, breaks, turns, free[begun:done], speed)


def _locks(points: list[Point]) -> list[tuple[int, Point]]:
    """The first LOCKS frames from which two steps or more (at most four) agree with each other, with the mean of
    these steps; the steadiest first, since a step that bounced a little can hide among the others."""
    found: list[tuple[float, int, Point]] = []
    for first in range(len(points) - 2):
        x, y = points[first]
        best = None
        for last in range(first + 2, min(first + 4, len(points) - 1) + 1):
            n = last - first
            vx, vy = (points[last][0] - x) / n, (points[last][1] - y) / n
            steps = pairwise(points[first : last + 1])
            spread = max(math.hypot(b[0] - a[0] - vx, b[1] - a[1] - vy) for a, b in steps)
            if not spread <= max(SHARE * math.hypot(vx, vy), TOLERANCE):  # NaN is not
                break
            best = spread / n, first, (vx, vy)
        if best is not None:
            found.append(best)
        if len(found) == LOCKS:
            break
    return [(first, velocity) for _, first, velocity in sorted(found)]


class _Follower:
    """Walks along places with a current velocity and keeps one row for each step."""

    def __init__(self, velocity: Point):
        self.rows: list[Row] = []
        self.signs = (1.0, 1.0)  # of the current velocity against the first, flipped by each reflection
        self.velocity = velocity
        self.seen = 2  # steps in the average
        self.stray: Point | None = None  # the displacement of the step before, if it disagreed

    def walk(self, points: list[Point]) -> None:
        """Take the steps between some places; the first of them is where it stands."""
        for p, q in pairwise(points):
            self._step(p, q)

    def _step(self, p: Point, q: Point) -> None:
        (ex, sx), (ey, sy) = (_reflect(p[axis], q[axis], self.velocity[axis]) for axis in (0, 1))
        error = math.hypot(ex, ey)  # NaN where a frame shows nothing
        vx, vy = self.velocity
        agrees = error <= max(SHARE * math.hypot(vx, vy), TOLERANCE)
        breaks, free = False, (math.nan, math.nan)
        if agrees or not math.isnan(error):
            turned = vx * sx, vy * sy
            signs = self.signs[0] * sx, self.signs[1] * sy
            free = signs[0] * (turned[0] + ex), signs[1] * (turned[1] + ey)
        if agrees:
            self.seen += 1
            gain = 1 / min(self.seen, MEMORY)
            self.velocity = turned[0] + gain * ex, turned[1] + gain * ey
            self.signs = signs
            self.stray = None
        elif not math.isnan(error):
            moved = q[0] - p[0], q[1] - p[1]
            breaks = self._new_course(moved)
        self.rows.append((agrees, error > JUMP, breaks, agrees and (sx < 0 or sy < 0), *free))

    def _new_course(self, moved: Point) -> bool:
        """After a step that disagreed: take its course if the step before went the same way."""
        last, self.stray = self.stray, moved
        if last is None:
            return False
        vx, vy = (moved[0] + last[0]) / 2, (moved[1] + last[1]) / 2
        if math.hypot(moved[0] - last[0], moved[1] - last[1]) > max(SHARE * math.hypot(vx, vy), TOLERANCE):
            return False
        self.velocity, self.seen, self.stray = (vx, vy), 2, None
        return True


def _reflect(p: float, q: float, v: float) -> tuple[float, float]:
    """Along one axis: by how much the step from p to q misses the prediction, and -1 if that bounced, else 1."""
    to, sign = p + v, 1.0
    if to < LOW and v < 0:
        to, sign = 2 * LOW - to, -1.0
    elif to > HIGH and v > 0:
        to, sign = 2 * HIGH - to, -1.0
    near = min(p, q) - LOW if v < 0 else HIGH - max(p, q)
    if abs(q - to) > TOLERANCE / 2 and near <= abs(v) / 2 + EARLY and abs(q - (p - v)) < abs(q - to):
        to, sign = p - v, -1.0  # it has turned just before the wall, or before it was seen to
    return q - to, sign


def _line(at: Point, frame: int, signs: Point, free: NDArray[np.float64]) -> tuple[Point, Point]:
    """Place in frame 0 and velocity of its step, from a straight line through the unfolded path by least squares.
    `at` is the place in `frame`, `signs` those of the velocity in frame 0 against the one in `frame`."""
    known = np.isfinite(free[:, 0])
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(np.where(known[:, None], free, 0), 0)])  # [T, 2]
    path += np.asarray(at) - path[frame]
    time = np.arange(len(path)) - (len(path) - 1) / 2
    slope = time @ path / (time @ time)  # [2]
    start = fold(path.mean(0) + slope * time[0])
    return (float(start[0]), float(start[1])), (float(slope[0] * signs[0]), float(slope[1] * signs[1]))
