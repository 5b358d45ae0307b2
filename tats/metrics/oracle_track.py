"""Follows a shape from frame to frame: does it fly straight, and turn at the walls and nowhere else?

A step agrees when the displacement is the current velocity, reflected where the path crosses a wall, within
`max(0.35 * speed, TOLERANCE)`. The current velocity is an average over the last steps that agreed. Two steps in a row
that disagree with it but agree with each other are a change of course in mid-air: the follower goes on with the new
velocity and remembers the break.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import HIGH, LOW, fold

SHARE = 0.35  # of the speed: how far a step may be off
TOLERANCE = 0.3 / 32  # and at least this, picture sides: 0.3 pixels at 32 pixels
JUMP = 0.06  # a step this far off is a teleport: one and a half fast steps
EARLY = 0.4 / 32  # a turn this far before the wall still counts as a turn at the wall
LOCKS = 6  # frames tried as the place where the velocity is first known
MEMORY = 6  # steps that the current velocity averages over
SPAN = 6  # steps over which a local speed is measured

Point = tuple[float, float]


@dataclass(frozen=True)
class Track:
    """The motion in a video of T frames; row k of an array is about the step from frame k to frame k + 1."""

    agrees: NDArray[np.bool_]  # [T - 1] the step is the current velocity, or a reflection explains it
    jumps: NDArray[np.bool_]  # [T - 1] teleports
    breaks: NDArray[np.bool_]  # [T - 1] a new course was taken in mid-air
    turns: NDArray[np.bool_]  # [T - 1] a reflection at a wall
    speed: NDArray[np.float64]  # [T - 1] over the SPAN steps around, picture sides per frame; NaN where unknown
    start: Point  # fitted to the whole path; NaN where nothing could be followed
    velocity: Point


def follow(positions: NDArray[np.float64]) -> Track:
    """Judge a path.  positions float [T, 2], NaN where no shape was found; T >= 2."""
    points: list[Point] = [(x, y) for x, y in positions.tolist()]
    tracks = (_from_lock(points, first, velocity) for first, velocity in _locks(points))
    best = None
    for track in tracks:
        if best is None or track.agrees.sum() > best.agrees.sum():
            best = track
        if best.agrees.all():
            break
    if best is not None:
        return best
    none = np.zeros(len(points) - 1, bool)
    unknown = (math.nan, math.nan)
    return Track(none, none.copy(), none.copy(), none.copy(), np.full(len(none), math.nan), unknown, unknown)


def _from_lock(points: list[Point], first: int, velocity: Point) -> Track:
    """Follow forwards and backwards from frame `first`, where `velocity` is known."""
    after = _Follower(velocity, points[first:])
    before = _Follower((-velocity[0], -velocity[1]), points[first::-1])
    free = np.array([(-x, -y) for x, y in reversed(before.free)] + after.free)  # [T - 1, 2], straight without walls
    start, fitted = _line(points[first], first, free, before.signs)
    return Track(
        agrees=np.array(before.agrees[::-1] + after.agrees, bool),
        jumps=np.array(before.jumps[::-1] + after.jumps, bool),
        breaks=np.array(before.breaks[::-1] + after.breaks, bool),
        turns=np.array(before.turns[::-1] + after.turns, bool),
        speed=_local_speed(free),
        start=start,
        velocity=fitted,
    )


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
    """Walks along `points` with a current velocity and keeps one entry for each step."""

    def __init__(self, velocity: Point, points: list[Point]):
        self.agrees: list[bool] = []
        self.jumps: list[bool] = []
        self.breaks: list[bool] = []
        self.turns: list[bool] = []
        self.free: list[Point] = []
        self.signs = (1.0, 1.0)  # of the current velocity against the first, flipped by each reflection
        self.velocity = velocity
        self.seen = 2  # steps in the average
        self.stray: Point | None = None  # the displacement of the step before, if it disagreed
        for p, q in pairwise(points):
            self._step(p, q)

    def _step(self, p: Point, q: Point) -> None:
        (ex, sx), (ey, sy) = (_reflect(p[axis], q[axis], self.velocity[axis]) for axis in (0, 1))
        error = math.hypot(ex, ey)  # NaN where a frame shows nothing
        vx, vy = self.velocity
        agrees = error <= max(SHARE * math.hypot(vx, vy), TOLERANCE)
        breaks = False
        if agrees or not math.isnan(error):
            turned = vx * sx, vy * sy
            signs = self.signs[0] * sx, self.signs[1] * sy
            self.free.append((signs[0] * (turned[0] + ex), signs[1] * (turned[1] + ey)))
        else:
            self.free.append((math.nan, math.nan))
        if agrees:
            self.seen += 1
            gain = 1 / min(self.seen, MEMORY)
            self.velocity = turned[0] + gain * ex, turned[1] + gain * ey
            self.signs = signs
            self.stray = None
        elif not math.isnan(error):
            moved = q[0] - p[0], q[1] - p[1]
            breaks = self._new_course(moved)
        self.agrees.append(agrees)
        self.jumps.append(error > JUMP)
        self.breaks.append(breaks)
        self.turns.append(agrees and (sx < 0 or sy < 0))

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


def _local_speed(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of the mean step over SPAN steps, given to the step in their middle; the ends repeat the nearest one."""
    span = min(SPAN, len(free))
    known = np.isfinite(free[:, 0])
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(np.where(known[:, None], free, 0), 0)])
    holes = np.concatenate([[0], np.cumsum(~known)])
    speed = np.linalg.norm(total[span:] - total[:-span], axis=1) / span  # [T - span]
    speed[holes[span:] > holes[:-span]] = math.nan
    left = (span - 1) // 2
    return np.pad(speed, (left, len(free) - len(speed) - left), mode="edge")


def _line(at: Point, frame: int, free: NDArray[np.float64], signs: Point) -> tuple[Point, Point]:
    """Place in frame 0 and velocity of its step, from a straight line through the unfolded path by least squares.
    `at` is the place in `frame`, `signs` those of the velocity in frame 0 against the one in `frame`."""
    known = np.isfinite(free[:, 0])
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(np.where(known[:, None], free, 0), 0)])  # [T, 2]
    path += np.asarray(at) - path[frame]
    time = np.arange(len(path)) - (len(path) - 1) / 2
    slope = time @ path / (time @ time)  # [2]
    start = fold(path.mean(0) + slope * time[0])
    return (float(start[0]), float(start[1])), (float(slope[0] * signs[0]), float(slope[1] * signs[1]))
