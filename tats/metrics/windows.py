"""Measures long videos window by window: any score of clips over time, in memory that does not grow with their length.

    for first, value in score_windows(lambda clip: judge(clip.numpy()).motion, video, length=16):
        ...
    for first, db in score_windows(lambda a, b: psnr(a[None], b[None]).mean(), original, other):
        ...
    sets = sets_over_time(videos, network.features)             # one Moments per window, over all videos
    curve = [part.distance(real) for part in sets]              # the Frechet distance of each window to real clips

A video is given in any form that `stream` takes: whole, or as an iterator of its pieces. Windows are `length` frames
long and begin `stride` frames apart (None: one after the other); a rest that does not fill a window is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from tats.metrics.frechet import Moments
from tats.video import to_frames

BATCH = 16  # windows that a network sees at once
_CHUNK = 64  # frames of a long array that are held at once
_FORMS = (
    "a piece of a video must be frames uint8 [n, H, W, 1 or 3], one frame [H, W, 1 or 3], or video float [C, n, H, W] "
    "or [1, C, n, H, W]"
)


class Gatherer(Protocol):
    """Takes in features [n, width], batch after batch: `Moments`, or whatever else a set metric is made from."""

    def add(self, features: Any) -> None:
        """Take in some features."""
        ...


G = TypeVar("G", bound=Gatherer)


def stream(video: Any) -> Iterator[Tensor]:
    """The pieces of one video as uint8 frames [n, H, W, 3], 1 <= n <= 64.

    `video` is uint8 frames [T, H, W, C], a float video [C, T, H, W] or [1, C, T, H, W] in [-0.5, 0.5], one frame uint8
    [H, W, C] (arrays or tensors; C is 3, or 1 for grey), or an iterable of any of these: the pieces of a video in
    their order. An iterator is gone through once, and only as far as it is asked for.

    Raises:
        ValueError: something else is among the pieces, or their pictures differ in size.
    """
    size = None
    for piece in [video] if hasattr(video, "shape") else video:
        for frames in _cut(piece):
            if size is not None and size != frames.shape[1:]:
                raise ValueError(f"pieces of a video differ in size: {list(size)}, then {list(frames.shape[1:])}")
            size = frames.shape[1:]
            yield frames


class Cutter:
    """Cuts a video that is handed in piece by piece into windows. At most a window and a piece are held."""

    def __init__(self, length: int = 16, stride: int | None = None):
        self.length, self.stride = length, length if stride is None else stride
        if self.length < 1 or self.stride < 1:
            raise ValueError(f"windows need a length and a stride of at least 1, got {length} and {stride}")
        self._held: list[Tensor] = []  # pieces that begin with the first frame of the next window
        self._count = self._skip = 0  # frames held; frames to leave out before the next window, if stride > length

    def add(self, frames: Tensor) -> list[Tensor]:
        """Take in frames uint8 [n, H, W, 3]; returns the windows that are complete now, [length, H, W, 3] each."""
        dropped = min(self._skip, len(frames))
        self._skip -= dropped
        self._held.append(frames[dropped:])
        self._count += len(frames) - dropped
        if self._count < self.length:
            return []
        whole, first, found = torch.cat(self._held), 0, []
        while first + self.length <= len(whole):
            found.append(whole[first : first + self.length])
            first += self.stride
        self._skip = max(0, first - len(whole))
        self._held = [whole[first:].clone()]  # a copy, so that the rest is let go
        self._count = len(self._held[0])
        return found


def windows(video: Any, length: int = 16, stride: int | None = None) -> Iterator[Tensor]:
    """Successive windows of one video: uint8 [length, H, W, 3] each."""
    cutter = Cutter(length, stride)
    for frames in stream(video):
        yield from cutter.add(frames)


def score_windows(
    score: Callable[..., Any], *videos: Any, length: int = 16, stride: int | None = None
) -> Iterator[tuple[int, Any]]:
    """A score of clips over time: yields (first frame of the window, score of the window).

    score: takes as many clips uint8 [length, H, W, 3] as there are videos, windows of the same frames of each: one
    video for scores that need no reference, two for those that compare (PSNR, SSIM). It ends with the shortest.
    """
    if not videos:
        raise ValueError("score_windows needs a video")
    step = length if stride is None else stride
    for number, clips in enumerate(zip(*(windows(video, length, stride) for video in videos))):
        yield number * step, score(*clips)


def batches_of_windows(video: Any, length: int = 16, stride: int | None = None, batch: int = BATCH) -> Iterator[Tensor]:
    """The windows of one video, a few at a time, as networks want them: uint8 [b, length, H, W, 3], b <= batch."""
    waiting: list[Tensor] = []
    for clip in windows(video, length, stride):
        waiting.append(clip)
        if len(waiting) == batch:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


@torch.inference_mode()
def sets_over_time(
    videos: Iterable[Any],
    features: Callable[[Tensor], Tensor],
    new: Callable[[], G] = Moments,  # type: ignore[assignment]
    *,
    length: int = 16,
    stride: int | None = None,
    batch: int = BATCH,
) -> list[G]:
    """Gather the features of window w of all videos, for every w: what a set metric over time is made from.

    Videos come one after the other and are streamed; what is held grows with the number of windows, not with the number
    of videos or their size. Where videos differ in length, later windows have fewer members (`Moments.count`).

    Args:
        videos: each in a form that `stream` takes.
        features: uint8 [b, length, H, W, 3] -> [b, width], or [b * length, width] for a network of single frames.
        new: makes an empty gatherer, by default `Moments`, whose `distance` is the Frechet distance (FVD with I3D).
    """
    gathered: list[G] = []
    for video in videos:
        place = 0
        for clips in batches_of_windows(video, length, stride, batch):
            for rows in features(clips).float().cpu().chunk(len(clips)):
                if place == len(gathered):
                    gathered.append(new())
                gathered[place].add(rows)
                place += 1
    return gathered


def _cut(piece: Any) -> Iterator[Tensor]:
    """A piece as uint8 frames [n, H, W, 3], at most _CHUNK of them at a time: an array may be a file on the disk."""
    floating = np.issubdtype(piece.dtype, np.floating) if isinstance(piece, np.ndarray) else piece.is_floating_point()
    if floating and piece.ndim == 5 and len(piece) == 1:
        piece = piece[0]
    if not floating and piece.ndim == 3:
        piece = piece[None]
    if piece.ndim != 4:
        raise ValueError(f"{_FORMS}, got {_name(piece)}")
    axis = 1 if floating else 0  # of time
    for first in range(0, piece.shape[axis], _CHUNK):
        part = piece[:, first : first + _CHUNK] if floating else piece[first : first + _CHUNK]
        part = part.detach().cpu() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
        frames = to_frames(part) if floating else part
        if frames.dtype != torch.uint8 or frames.shape[-1] not in (1, 3):
            raise ValueError(f"{_FORMS}, got {_name(piece)}")
        yield frames.expand(*frames.shape[:-1], 3)


def _name(piece: Any) -> str:
    return f"{str(piece.dtype).removeprefix('torch.')} {list(piece.shape)}"
