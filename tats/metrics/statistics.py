"""What a network says of a set of clips, in memory that does not grow: moments, and a sample of features.

The kernel distance needs features themselves. Up to `KEEP` of them are kept; of more, those whose places have the
smallest hashes, so that the choice depends neither on the order of the clips nor on the number of processes.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats.arrays import read_npz
from tats.flags import UserError
from tats.metrics.features import Network, parts
from tats.metrics.frechet import Moments
from tats.metrics.processes import ALONE, World

KEEP = 10_000  # features that are kept for the kernel distance
_FRAMES = 1 << 20  # more than a video has: places of frames are clip * _FRAMES + frame


@dataclass
class Statistics:
    """Moments and kept features of a set of clips (or of the frames of clips)."""

    network: dict[str, Any] = field(default_factory=dict)  # what the network says of itself
    moments: Moments = field(default_factory=Moments)
    clips: int = 0
    shape: tuple[int, ...] | None = None  # frames, height and width of a clip; no frames where they differ
    keep: int = KEEP
    _kept: list[Tensor] = field(default_factory=list, repr=False)  # float32 [n, width] each
    _places: list[Tensor] = field(default_factory=list, repr=False)  # int64 [n] each

    def add(self, features: Tensor, places: Tensor, weights: Tensor | None = None) -> None:
        """Take in features [n, width] that stand at `places` int64 [n] among all; each place must come once."""
        features = features.detach().float().cpu()
        self.moments.add(features, weights)
        self._kept.append(features)
        self._places.append(places.cpu())
        if sum(map(len, self._places)) > 2 * self.keep:
            self._choose()

    def merge(self, other: "Statistics") -> None:
        """Take in what another gathered with the same network, of other places."""
        self.moments.merge(other.moments)
        self.clips += other.clips
        self.shape = self.shape or other.shape
        self._kept += other._kept
        self._places += other._places
        self._choose()

    @property
    def features(self) -> Tensor:
        """The kept features float32 [n, width], in the order of their places."""
        self._choose()
        return self._kept[0] if self._kept else torch.zeros(0, 0)

    @property
    def places(self) -> Tensor:
        """Where the kept features stand among all, int64 [n], ascending."""
        self._choose()
        return self._places[0] if self._places else torch.zeros(0, dtype=torch.int64)

    @property
    def complete(self) -> bool:
        """Every feature was kept."""
        return len(self.features) == self.moments.count

    def _choose(self) -> None:
        """One tensor of the features that stay, ordered by place."""
        if not self._kept or (len(self._kept) == 1 and len(self._kept[0]) <= self.keep):
            return
        places, kept = torch.cat(self._places), torch.cat(self._kept)
        order = np.argsort(places.numpy(), kind="stable")
        if len(order) > self.keep:
            chosen = np.argpartition(_hash(places.numpy()), self.keep - 1)[: self.keep]
            order = chosen[np.argsort(places.numpy()[chosen], kind="stable")]
        at = torch.from_numpy(order)
        self._places, self._kept = [places[at]], [kept[at]]

    def merged(self, world: World) -> "Statistics":
        """The statistics of all processes together; equal in each of them.

        Raises:
            UserError: the processes met clips of different shapes.
        """
        if world.size == 1:
            return self
        size = world.sum(torch.tensor([self.clips, self.moments.count], dtype=torch.int64))
        width = int(world.gather(torch.tensor([self.moments.width])).max())
        shapes = world.gather(torch.tensor([self.shape or (0, 0, 0)]))
        known = {tuple(row) for row in shapes.tolist() if row[-1]}
        world.agree(f"the clips differ in shape: {sorted(known)}" if len(known) > 1 else None)
        whole = Statistics(self.network, clips=int(size[0]), shape=next(iter(known), None), keep=self.keep)
        if not int(size[1]):
            return whole
        mine = self.moments
        mean = mine.mean if mine.mean is not None else torch.zeros(width, dtype=torch.float64)
        scatter = mine.scatter if mine.scatter is not None else torch.zeros(width, width, dtype=torch.float64)
        weight, squares = world.sum(torch.tensor([mine.weight, mine.squares], dtype=torch.float64)).tolist()
        shared = world.sum(mine.weight * mean) / weight
        scatter = world.sum(scatter + mine.weight * torch.outer(mean - shared, mean - shared))
        whole.moments = Moments(int(size[1]), shared, scatter, weight, squares)
        kept = self.features if len(self.features) else torch.zeros(0, width)
        whole._kept, whole._places = [world.gather(kept)], [world.gather(self.places)]
        whole._kept.append(torch.zeros(0, width))  # two pieces: they are put in order when they are joined
        whole._places.append(torch.zeros(0, dtype=torch.int64))
        return whole

    def save(self, path: str | Path) -> None:
        """Write plain arrays, whole or not at all; processes that write the same file do not disturb each other."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        moments = self.moments
        if moments.mean is None or moments.scatter is None:
            raise ValueError("there is nothing to store: no clips were added")
        try:
            with partial.open("wb") as file:
                np.savez(
                    file,
                    network=np.array(json.dumps(self.network)),
                    sizes=np.array([self.clips, moments.count, self.keep]),
                    shape=np.array(self.shape or (0, 0, 0)),
                    weights=np.array([moments.weight, moments.squares]),
                    mean=moments.mean.numpy(),
                    scatter=moments.scatter.numpy(),
                    features=self.features.numpy(),
                    places=self.places.numpy(),
                )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "Statistics":
        """Read what `save` wrote; nothing is unpickled.

        Raises:
            ArrayError, ValueError, KeyError: the file is damaged or something else.
        """
        arrays = read_npz(Path(path))
        about, sizes, weights, shape = (arrays[name] for name in ("network", "sizes", "weights", "shape"))
        mean, scatter, features, places = (arrays[name] for name in ("mean", "scatter", "features", "places"))
        network = json.loads(str(about))
        plain = all(each.ndim == 1 for each in (sizes, weights, shape)) and isinstance(network, dict)
        if not plain or (len(sizes), len(weights), len(shape)) != (3, 2, 3) or places.dtype != np.int64:
            raise ValueError("no statistics of clips")
        clips, count, keep = sizes.tolist()
        (width,) = mean.shape
        fits = scatter.shape == (width, width) and features.shape == (len(places), width) and places.ndim == 1
        numbers = all(each.dtype in (np.float32, np.float64) for each in (mean, scatter, features, weights))
        finite = numbers and all(bool(np.isfinite(each).all()) for each in (mean, scatter, features, weights))
        kept = keep > 0 and len(places) == min(count, keep)
        if not fits or not finite or count < 1 or clips < 0 or not kept or weights.min() <= 0:
            raise ValueError("moments and features contradict each other, or are no numbers")
        size = (int(shape[0]), int(shape[1]), int(shape[2]))
        found = cls(network, clips=clips, shape=size if size[-1] else None, keep=keep)
        weight, squares = weights.tolist()
        found.moments = Moments(count, torch.from_numpy(mean), torch.from_numpy(scatter), weight, squares)
        found._kept, found._places = [torch.from_numpy(features)], [torch.from_numpy(places)]
        return found


def _hash(places: np.ndarray) -> np.ndarray:
    """A number that looks random for each place: the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    z = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@torch.inference_mode()
def describe_clips(batches: Any, network: Network, name: str, *, world: World = ALONE, keep: int = KEEP) -> Statistics:
    """Statistics of all clips, given as `tats.metrics.features.clips` takes them and gone through once.

    A batch that is a dict may hold "weight" [B], the weight of each clip (of each of its frames, for a network that
    describes frames). Of several processes each gives its own share, as `world.share` deals it.

    Args:
        name: says in errors whose clips these are.
        keep: features that are kept for the kernel distance.

    Raises:
        UserError: there are fewer than two clips, or their shapes differ; in every process alike.
    """
    found, failure = Statistics(network.describe(), keep=keep), None
    try:
        for frames, weights in parts(batches):
            _take(found, frames, weights, network, name, world)
    except UserError as error:
        failure = str(error)
    world.agree(failure)
    whole = found.merged(world)
    if whole.moments.count < 2:
        raise UserError(f"a score needs at least 2 {name} clips, got {whole.moments.count}")
    return whole


def _take(found: Statistics, frames: Tensor, weights: Tensor | None, network: Network, name: str, world: World) -> None:
    """Describe a few clips, frames uint8 [b, T, H, W, 3]."""
    by_frame = network.unit == "frame"
    shape = (0 if by_frame else frames.shape[1], *frames.shape[2:4])
    if found.shape is not None and shape != found.shape:
        raise UserError(f"the {name} clips differ in shape: {list(found.shape)} and {list(shape)}")
    found.shape = shape
    features = network.features(frames)  # [b, width] or [b * T, width]
    clips = torch.tensor([world.index(found.clips + k) for k in range(len(frames))])
    found.clips += len(frames)
    inside = torch.arange(frames.shape[1] if by_frame else 1)
    if weights is not None:
        weights = weights.repeat_interleave(len(inside))
    found.add(features, (clips[:, None] * _FRAMES + inside).flatten(), weights)
