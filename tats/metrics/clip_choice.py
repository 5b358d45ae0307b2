"""Which clips of a data set a score takes: a list of places, written down before anything is read.

A place is (video, first frame). What is random comes from the seed alone, so the list is the same on every machine and
for every number of processes, which take every n-th of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tats.data.loader import Clips, Order, Source
from tats.metrics.protocols import Protocol

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """Clips of a data set: the video and the first frame of each, int64 [n], and what each counts (None: 1)."""

    videos: Integers
    starts: Integers
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.videos)


def choose(protocol: Protocol, source: Source, seed: int, limit: int | None = None) -> Choice:
    """The clips that a protocol takes from the videos of a source, which stand in the order of their names.

    limit: clips at most (None: as many as the protocol says for real clips). Where a protocol takes more windows than
    there are videos, they are gone through again, at other places.
    """
    wanted = protocol.n_real if limit is None else limit
    starts = source.starts
    draw = np.random.default_rng([seed, 1])
    if protocol.real_clips == "frames":
        return _every_frame(starts, protocol.by_video, wanted)
    if protocol.real_clips == "consecutive":
        return _cut(_side_by_side(starts, protocol.span), wanted)
    if protocol.real_clips == "first":
        videos = np.arange(len(starts), dtype=np.int64)[:wanted]
        return Choice(videos, draw.integers(starts[videos]))
    if protocol.real_clips == "windows":
        clips = Clips(source, seed, train=True)
        places = Order(len(clips), wanted or len(clips), seed, True, 0, 1).batch(0)
        videos, firsts = np.array([clips.window(place) for place in places], np.int64).T
        return Choice(videos, firsts)
    count = len(starts) if wanted is None else wanted
    visits = [draw.permutation(len(starts)) for _ in range(-(-count // len(starts)))]
    videos = np.concatenate(visits)[:count].astype(np.int64)
    return Choice(videos, draw.integers(starts[videos]))


def offset_of(protocol: Protocol, room: int, clip: int, seed: int) -> int:
    """First frame of generated clip number `clip`: 0, or random up to the protocol's offset; `room` is the last frame
    at which it may start."""
    last = min(room, protocol.offset)
    return int(np.random.default_rng([seed, 2, clip]).integers(last + 1)) if last > 0 else 0


def _side_by_side(starts: Integers, span: int) -> Choice:
    counts = (starts + span - 1) // span  # a video in which n windows may start has n + span - 1 frames
    videos = np.repeat(np.arange(len(starts), dtype=np.int64), counts)
    first = np.cumsum(counts) - counts
    return Choice(videos, (np.arange(len(videos), dtype=np.int64) - first[videos]) * span)


def _every_frame(starts: Integers, by_video: bool, wanted: int | None) -> Choice:
    """Single frames, of a source whose clips are one frame long: one may start at every frame."""
    chosen = _side_by_side(starts, 1)
    weights = 1 / starts[chosen.videos].astype(np.float64) if by_video else None
    return _cut(Choice(chosen.videos, chosen.starts, weights), wanted)


def _cut(choice: Choice, wanted: int | None) -> Choice:
    weights = None if choice.weights is None else choice.weights[:wanted]
    return Choice(choice.videos[:wanted], choice.starts[:wanted], weights)
