"""The side of a score that comes from a data set: real clips, as a protocol chooses them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tats.data.config import DataConfig
from tats.data.loader import Failure, Source, leave_signals
from tats.data.module import VideoData
from tats.flags import UserError
from tats.metrics.clip_choice import Choice, choose
from tats.metrics.processes import ALONE, World
from tats.metrics.protocols import Protocol
from tats.metrics.sides import Batch, files_print, quantised, resized


def data_clips(data: DataConfig, protocol: Protocol, seed: int = 0) -> "DataClips":
    """The real clips of a data set. Of `data` counts where the videos lie and how they are read; length, rate and size
    of the clips are the protocol's.

    Raises:
        UserError: the data is missing or unreadable, holds codes, or its videos are too short.
    """
    if data.data_path is None:
        raise UserError("a score compares with real clips: --data_path is needed")
    if data.vtokens:
        raise UserError("a score compares pixels: leave --vtokens out and give the videos")
    frames = 1 if protocol.real_clips == "frames" else protocol.frames
    if frames is None:
        raise UserError(f"--protocol {protocol.name} takes clips of any length: name one with --sequence_length")
    length = frames if data.image_folder else (frames - 1) * protocol.stride + 1
    side = protocol.size[0] if protocol.size else data.resolution
    cut = replace(data, sequence_length=length, resolution=side, sample_every_n_frames=protocol.stride)
    opened = VideoData(cut, seed=seed)
    sources = [opened.source(split) for split in protocol.split.split("+")]
    source = sources[0] if len(sources) == 1 else Joined(sources)
    about = {"path": data.data_path, "split": protocol.split, "form": type(sources[0]).__name__,
             "image_channels": data.image_channels}  # fmt: skip
    return DataClips(source, protocol, about, data.batch_size, data.num_workers)


class DataClips:
    """Clips of a data set, as a protocol chooses them.

    source: videos in the order of their names (a `tats.data` source, made for windows of the protocol's span). about:
    plain values that say what it is.
    """

    pixels = "raw"

    def __init__(self, source: Any, protocol: Protocol, about: dict[str, Any], batch_size: int = 16, workers: int = 0):
        self.source, self.protocol, self.about = source, protocol, about
        self.batch_size, self.workers = batch_size, workers
        self._count = len(choose(protocol, source, 0))

    def __len__(self) -> int:
        return self._count

    def describe(self) -> dict[str, Any]:
        """What the data set is, its videos and how many clips are taken."""
        return {**self.about, "videos": len(self.source.starts), "clips": len(self)}

    def key(self) -> dict[str, Any]:
        """The files of the data set, and how its clips are read."""
        return {**self.about, "files": files_print(Path(self.about["path"]).expanduser()), "clips": len(self)}

    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """See `Side`."""
        chosen = choose(self.protocol, self.source, seed)
        places = list(world.share(part))
        loader = DataLoader(
            _Places(self.source, self.protocol, chosen),
            sampler=places,
            batch_size=self.batch_size,
            num_workers=min(self.workers, -(-len(places) // self.batch_size)),
            collate_fn=_stack,
            worker_init_fn=leave_signals,
        )
        done = 0
        for batch in loader:
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            numbers = places[done : done + len(batch)]
            done += len(batch)
            found = {"frames": batch}
            if chosen.weights is not None:
                found["weight"] = torch.from_numpy(chosen.weights[numbers])
            yield found


class _Places(Dataset):
    """The chosen clips of a source by number: frames uint8 [T, H, W, C]."""

    def __init__(self, source: Any, protocol: Protocol, choice: Choice):
        self.source, self.protocol, self.choice = source, protocol, choice

    def __len__(self) -> int:
        return len(self.choice)

    def __getitem__(self, number: int) -> Tensor | Failure:
        video, start = int(self.choice.videos[number]), int(self.choice.starts[number])
        try:
            if self.protocol.size is None or self.protocol.resize != "bilinear" or len(set(self.protocol.size)) > 1:
                frames = torch.from_numpy(np.ascontiguousarray(_stored(self.source, video, start)))
                return resized(frames, self.protocol.size, self.protocol.resize, self.protocol.levels)
            clip = self.source.read(video, start, np.random.default_rng(0))
            return quantised(clip["video"], self.protocol.levels)
        except UserError as error:  # raised in the main process: a worker would wrap it in a trace
            return Failure(str(error))


def _stored(source: Any, video: int, start: int) -> np.ndarray:
    """Frames of a window as they are stored, uint8 [T, H, W, C]."""
    read = getattr(source, "frames", None)
    if read is None:
        raise UserError(
            "these data give their pictures as squares only: name a square --resolution, such as --resolution 128"
        )
    return read(video, start)


def _stack(clips: "Sequence[Tensor | Failure]") -> "Tensor | Failure":
    read: list[Tensor] = []
    for clip in clips:
        if isinstance(clip, Failure):
            return clip
        read.append(clip)
    if len({each.shape for each in read}) > 1:
        sizes = sorted({tuple(each.shape[:3]) for each in read})
        return Failure(f"the real clips differ in shape ({sizes}): name their size with --resolution")
    return torch.stack(read)


class Joined:
    """Several splits of a data set as one source, ordered by the names of the videos."""

    def __init__(self, sources: Sequence[Source]):
        self.sources, self.span = sources, sources[0].span
        of = [(source, video) for source in range(len(sources)) for video in range(len(sources[source].starts))]
        names: list[str] = [name for source in sources for name in getattr(source, "names", [])]
        by_name = sorted(range(len(of)), key=names.__getitem__) if len(names) == len(of) else range(len(of))
        self.places = [of[number] for number in by_name]
        self.names = [names[number] for number in by_name] if names else []
        self.starts = np.array([sources[source].starts[video] for source, video in self.places], np.int64)
        self.clips = np.array([sources[source].clips[video] for source, video in self.places], np.int64)

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip, as the split it belongs to reads it."""
        source, within = self.places[video]
        return self.sources[source].read(within, start, draw)

    def frames(self, video: int, start: int) -> np.ndarray:
        """Frames of one window as stored: uint8 [T, H, W, C]."""
        source, within = self.places[video]
        return _stored(self.sources[source], within, start)
