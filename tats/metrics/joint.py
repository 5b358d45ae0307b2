"""Errors of the embedded world's law where a given part ends and an invented one begins, apart from those elsewhere.

A video is cut into tiles of as many steps as a latent frame has frames, each around the step from one latent frame to
the next. One tile is the joint: the step from the last given frame to the first new one. In every tile it is asked
whether the object jumps, turns in mid-air, changes its speed or becomes another object, so that the joint is compared
with tiles of the given and of the new part that are judged alike.

    watch = Watch()
    for piece in pieces:                  # uint8 [n, H, W, 3] of one video, in order
        watch.add(piece)
    found = tiles(watch.seen(), given=8, per_latent=4)
    print(summary([found])["joint"]["any"])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tats.metrics.counts import Count
from tats.metrics.oracle import KEPT, Looks, look
from tats.metrics.oracle_track import SPAN, follow

KINDS = {
    "jump": "the object jumps",
    "turn": "it turns in mid-air",
    "speed": "it changes its speed",
    "object": "it becomes another object",
    "any": "any of these",
}
PARTS = ("given", "joint", "new")
_LEFT = (SPAN - 1) // 2  # a local speed is that of SPAN steps, from this many in front of its own on


class Watch:
    """Looks at a video piece by piece and keeps a few numbers per frame."""

    def __init__(self) -> None:
        self._looks: list[Looks] = []

    def add(self, frames: NDArray[np.uint8]) -> None:
        """The next frames, uint8 [n, H, H, 3]."""
        if len(frames):
            self._looks.append(look(frames))

    def seen(self) -> Looks:
        """What all frames so far show."""
        if not self._looks:
            raise ValueError("no frames were added")
        return Looks(*(np.concatenate([getattr(part, f.name) for part in self._looks]) for f in fields(Looks)))


@dataclass(frozen=True)
class Tiles:
    """The tiles of one video; True where the law is broken in that way. NaN where it can't be told (speed, near the
    ends, and where nothing is seen)."""

    part: NDArray[np.int64]  # [n] index into PARTS
    errors: dict[str, NDArray[np.float64]]  # per kind: [n] of 0, 1, NaN


def tiles(looks: Looks, given: int, per_latent: int) -> Tiles:
    """Judge a video of T frames whose first `given` ones were given; a latent frame decodes to `per_latent` frames.

    Raises:
        ValueError: the video has no joint (0 < given < T, T >= 4).
    """
    total = len(looks.objects)
    if not 0 < given < total or total < 4:
        raise ValueError(f"given must lie in 1..{total - 1} of 4 frames or more, got {given} of {total}")
    track = follow(looks.position)
    same = (looks.colour[1:] == looks.colour[:-1]) & (looks.shape[1:] == looks.shape[:-1])
    alone = (looks.objects[1:] == 1) & (looks.objects[:-1] == 1)
    steps = {"jump": track.jumps, "turn": track.breaks, "object": ~(same & alone)}  # each [T - 1]
    first = given % per_latent or per_latent
    seams = np.arange(first, total, per_latent)  # frames that begin a latent frame, the first new one among them
    errors: dict[str, NDArray[np.float64]] = {}
    for kind, wrong in steps.items():
        ranges = (slice(max(s - 1 - (per_latent - 1) // 2, 0), s + per_latent // 2) for s in seams)
        errors[kind] = np.array([float(wrong[tile].any()) for tile in ranges])
    errors["speed"] = np.array([_speed_changes(track.speed, int(s), given) for s in seams])
    known = np.nan_to_num(np.stack(list(errors.values())))
    errors["any"] = known.max(0)
    return Tiles(np.where(seams < given, 0, np.where(seams == given, 1, 2)), errors)


def summary(found: Sequence[Tiles]) -> dict[str, dict[str, Count]]:
    """Tiles with an error of each kind, in the given part, at the joint, and in the new part behind it."""
    counts: dict[str, dict[str, Count]] = {}
    for number, part in enumerate(PARTS):
        counts[part] = {}
        for kind in KINDS:
            values = np.concatenate([video.errors[kind][video.part == number] for video in found])
            values = values[~np.isnan(values)]
            counts[part][kind] = Count(int(values.sum()), len(values))
    return counts


def _speed_changes(speed: NDArray[np.float64], seam: int, joint: int) -> float:
    """1 where the local speeds of the SPAN steps in front of a seam and of those behind it differ, 0 where not, NaN
    where they aren't all there or hold the step over the joint.  speed [T - 1] of the steps around each step"""
    before, after = range(seam - 1 - SPAN, seam - 1), range(seam, seam + SPAN)
    beyond = before.start < 0 or after.stop > len(speed)
    if beyond or (seam != joint and (joint - 1 in before or joint - 1 in after)):
        return math.nan
    old, new = float(speed[before.start + _LEFT]), float(speed[after.start + _LEFT])
    if not math.isfinite(old) or not math.isfinite(new):
        return math.nan
    return float(abs(new - old) > KEPT * old)
