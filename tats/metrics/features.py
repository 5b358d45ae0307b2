"""Networks that describe a clip by a few hundred numbers, and the scores made from them.

`FeatureNet` is a small 3D network that is trained on a dataset's own classes (`train_features.py`); its scores are
called FCD-trained and KCD-trained, never FVD. `I3DFeatures` wraps the network behind the published FVD and KVD, for
those who have its weights. `compute` compares two sets of clips, given as iterators, in memory that does not grow.
"""

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.flags import UserError
from tats.metrics.frechet import Moments, kernel_distance
from tats.metrics.i3d import I3D, preprocess
from tats.video import to_frames

KIND = "features"  # what a checkpoint of a FeatureNet says of itself
PLAYS = ("as it is", "slow", "frozen", "shuffled", "cut")  # how the clips of the second task are played
_CLIPS = 16  # clips that pass through a network at once


class Network(Protocol):
    """What `compute` needs: features of clips, the names of the scores, and who the network is."""

    scores: tuple[str, str]  # names of the Frechet and of the kernel distance
    title: str  # what the Frechet distance is, in words

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, width]."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values: name, fingerprint, width, how frames are prepared."""
        ...


@dataclass(frozen=True)
class FeatureConfig:
    """Sizes of a FeatureNet and what it was trained on; stored in its checkpoint."""

    label_names: tuple[str, ...]  # the classes of its data, in the order of their labels; empty without labels
    size: int = 32  # pictures are averaged down (or up) to this width and height
    channels: tuple[int, ...] = (16, 32, 64, 96)
    accuracy: float | None = None  # share of test clips whose class is recognised
    play_accuracy: float | None = None  # share of test clips whose way of playing is recognised


class FeatureNet(nn.Module):
    """Four 3D convolutions over pictures and their change from frame to frame; the features are their mean over time
    and place. Two tasks train it: which class a clip shows, and how it is played (`PLAYS`), so that both looks and
    motion move the features. 240 thousand weights at the default sizes."""

    scores = ("FCD-trained", "KCD-trained")
    title = "trained-feature Frechet distance (not FVD)"

    def __init__(self, config: FeatureConfig):
        super().__init__()
        self.config = config
        channels = (6, *config.channels)
        strides = [(1, 2, 2), (2, 2, 2), (2, 2, 2)] + [(1, 1, 1)] * len(config.channels[3:])
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for number, stride in enumerate(strides[: len(config.channels)]):
            depth = 1 if number == 0 else 3  # the first layer sees time in the change from frame to frame
            self.convs.append(
                nn.Conv3d(channels[number], channels[number + 1], (depth, 3, 3), stride, (depth // 2, 1, 1), bias=False)
            )
            self.norms.append(nn.BatchNorm3d(channels[number + 1]))
        self.classes = nn.Linear(channels[-1], max(1, len(config.label_names)))
        self.plays = nn.Linear(channels[-1], len(PLAYS))

    @property
    def width(self) -> int:
        """Numbers that describe a clip."""
        return self.config.channels[-1]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, T, H, W, 3] -> logits of the class [B, classes] and of the way of playing [B, 5]."""
        features = self.features(frames)
        return self.classes(features), self.plays(features)

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, width]. At least two frames."""
        frames = shrink_frames(frames, self.config.size).to(self.plays.weight.device)
        x = frames.movedim(-1, 1).float() / 127.5 - 1  # [B, 3, T, size, size]
        change = F.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 0, 1, 0))
        x = torch.cat([x, change], 1)  # [B, 6, T, size, size]
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
        return x.mean((2, 3, 4))  # [B, width]

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is; equal weights have equal fingerprints."""
        return {
            "name": "FeatureNet",
            "trained_on": f"{len(self.config.label_names)} classes of the data" if self.config.label_names else "time",
            "fingerprint": fingerprint(self),
            "width": self.width,
            "weights": sum(p.numel() for p in self.parameters()),
            "accuracy": self.config.accuracy,
            "play_accuracy": self.config.play_accuracy,
            "frames": f"uint8, averaged to {self.config.size}x{self.config.size}",
        }


class I3DFeatures:
    """The network of the published FVD: 400 logits of I3D, frames resized to 224 x 224 without antialiasing."""

    scores = ("FVD", "KVD")
    title = "FVD, protocol tats"

    def __init__(self, i3d: I3D):
        self.i3d = i3d.eval()

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "I3DFeatures":
        """From `i3d_pretrained_400.pt`, a plain state dict."""
        return cls(I3D.load(path).to(device))

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, 400]. At least nine frames."""
        if frames.shape[1] < 9:
            raise UserError(f"FVD needs clips of at least 9 frames, these have {frames.shape[1]}")
        return self.i3d(preprocess(frames.to(next(self.i3d.parameters()).device)))

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is and how frames are prepared."""
        return {
            "name": "I3D, 400 logits",
            "protocol": "tats",
            "fingerprint": fingerprint(self.i3d),
            "width": 400,
            "frames": "uint8, bilinear to 224x224 without antialiasing, 2x/255-1",
        }


def shrink_frames(frames: Tensor, size: int) -> Tensor:
    """uint8 [B, T, H, W, 3] -> uint8 [B, T, size, size, 3]: means of the pixels that fall together, rounded."""
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.shape[1] < 2:
        raise ValueError(f"frames must be uint8 [B, T, H, W, 3] with T >= 2, got {frames.dtype} {list(frames.shape)}")
    if frames.shape[2:4] == (size, size):
        return frames
    pictures = frames.flatten(0, 1).movedim(-1, 1).float()  # [B*T, 3, H, W]
    small = F.adaptive_avg_pool2d(pictures, size).round().to(torch.uint8)
    return small.movedim(1, -1).unflatten(0, frames.shape[:2])


def fingerprint(module: nn.Module) -> str:
    """Twelve hexadecimal digits that change with any weight or its name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def save(network: FeatureNet, path: str | Path) -> None:
    """Write the network as tensors and plain values, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    torch.save({"kind": KIND, "config": asdict(network.config), "state_dict": network.state_dict()}, partial)
    partial.replace(path)


def load(path: str | Path, device: str | torch.device = "cpu") -> FeatureNet:
    """Read what `save` wrote; runs nothing that the file holds.

    Raises:
        UserError: there is no such file, or it is no checkpoint of a FeatureNet.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no feature network at {path}: make one with tats evaluate --train_features --data_path DATA")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is no feature network: {str(error).splitlines()[0]}") from error
    if not isinstance(stored, Mapping) or stored.get("kind") != KIND:
        raise UserError(f"{path} is no feature network: make one with tats evaluate --train_features --data_path DATA")
    config = stored["config"] | {name: tuple(stored["config"][name]) for name in ("label_names", "channels")}
    network = FeatureNet(FeatureConfig(**config))
    network.load_state_dict(stored["state_dict"])
    return network.to(device).eval()


def open_network(
    features: str | Path | None = None, i3d_ckpt: str | Path | None = None, device: str | torch.device = "cpu"
) -> Network:
    """The network that a command asks for: I3D with the weights `i3d_ckpt` (a path, or the name of fetched weights), or
    a trained FeatureNet.

    Raises:
        UserError: neither or both are given, or the file is missing or something else.
    """
    if features is not None and i3d_ckpt is not None:
        raise UserError("a trained feature network and --i3d_ckpt are two networks: give one of them")
    if i3d_ckpt is not None:
        from tats import weights

        return I3DFeatures.load(weights.find(i3d_ckpt, "--i3d_ckpt"), device)
    if features is None:
        raise UserError(
            "a score needs a network: --i3d_ckpt FILE for FVD, or one trained on your data "
            "(tats evaluate --train_features --data_path DATA --features_ckpt FILE)"
        )
    return load(features, device)


def clips(batches: Any) -> Iterator[Tensor]:
    """Clips as uint8 frames [b, T, H, W, 3], a few at a time.

    `batches` is one batch or an iterable of them; a batch is uint8 frames [B, T, H, W, C], a float video
    [B, C, T, H, W] in [-0.5, 0.5], or a dict that holds one under "video" or "frames". Grey clips become coloured.
    """
    alone = isinstance(batches, (Tensor, np.ndarray, Mapping))
    for batch in [batches] if alone else batches:
        if isinstance(batch, Mapping):
            batch = batch["video"] if "video" in batch else batch["frames"]
        for start in range(0, len(batch), _CLIPS):
            part = batch[start : start + _CLIPS]  # an array may be a file: only this part is read
            yield _frames(part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part)))


def _frames(part: Tensor) -> Tensor:
    if part.ndim != 5:
        raise ValueError(f"clips must be frames [B, T, H, W, C] or video [B, C, T, H, W], got {list(part.shape)}")
    frames = to_frames(part) if part.is_floating_point() else part
    if frames.dtype != torch.uint8 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be uint8 [B, T, H, W, 1 or 3], got {frames.dtype} {list(frames.shape)}")
    return frames.expand(*frames.shape[:-1], 3)


@dataclass
class Described:
    """What a network says of a set of clips: their moments, and the features themselves for the kernel distance."""

    moments: Moments
    features: Tensor  # float32 [clips, width]
    shape: tuple[int, ...]  # frames, height and width of a clip


@torch.inference_mode()
def describe_clips(batches: Any, network: Network, name: str) -> Described:
    """Features of all clips. `name` says in errors whose clips these are.

    Raises:
        UserError: there are fewer than two clips, or their shapes differ.
    """
    moments, features, shape = Moments(), [], None
    for frames in clips(batches):
        if shape is not None and tuple(frames.shape[1:4]) != shape:
            raise UserError(f"the {name} clips differ in shape: {list(shape)} and {list(frames.shape[1:4])}")
        shape = tuple(frames.shape[1:4])
        features.append(network.features(frames).float().cpu())
        moments.add(features[-1])
    if shape is None or moments.count < 2:
        raise UserError(f"a score needs at least 2 {name} clips, got {moments.count}")
    return Described(moments, torch.cat(features), shape)


def compute(generated: Any, real: Any, network: Network) -> dict[str, Any]:
    """Compare two sets of clips; each is given as `clips` takes it, and gone through once.

    Returns:
        Plain values: the title in words, both distances under the network's own names (`FCD-trained`, `KCD-trained` or
        `FVD`, `KVD`), counts, the network with its fingerprint, what limits the numbers, and one line to print.

    Raises:
        UserError: too few clips, clips of several shapes, or of different length on the two sides.
    """
    theirs, ours = describe_clips(real, network, "real"), describe_clips(generated, network, "generated")
    if ours.shape[0] != theirs.shape[0]:
        raise UserError(
            f"generated clips have {ours.shape[0]} frames, real ones {theirs.shape[0]}: a score compares equal lengths"
        )
    first, second = network.scores
    described = network.describe()
    values = (ours.moments.distance(theirs.moments), kernel_distance(ours.features, theirs.features))
    counts = (ours.moments.count, theirs.moments.count)
    line = f"{first} {values[0]:.4g}, {second} {values[1]:.4g} ({counts[0]} generated against {counts[1]} real clips"
    return {
        "score": network.title,
        first: values[0],
        second: values[1],
        "n_generated": counts[0],
        "n_real": counts[1],
        "clip_generated": list(ours.shape),
        "clip_real": list(theirs.shape),
        "covariance": "unbiased (N-1)",
        "network": described,
        "notes": _limits(ours, theirs),
        "line": f"{line}; {described['name']} {described['fingerprint']})",
    }


def _limits(ours: Described, theirs: Described) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = []
    for name, side in (("generated", ours), ("real", theirs)):
        if side.moments.singular:
            notes.append(
                f"{side.moments.count} {name} clips are too few for a covariance of {side.moments.width} dimensions: "
                f"it is singular and the Frechet distance too large; at least {side.moments.width + 1} are needed"
            )
    if ours.shape[1:] != theirs.shape[1:]:
        notes.append(f"pictures differ in size: {list(ours.shape[1:])} generated, {list(theirs.shape[1:])} real")
    return notes
