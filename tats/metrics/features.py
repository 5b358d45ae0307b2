"""What describes clips by a few hundred numbers, and the small networks that need no published weights.

`FeatureNet` is a small 3D network that is trained on a dataset's own classes (`train_features.py`); its scores are
called FCD-trained and KCD-trained, never FVD. `RandomNet` is the same network untrained. The published networks are in
`networks.py`; `scores.compute` compares two sets of clips.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats import unpickle
from tats.flags import UserError
from tats.video import to_frames

KIND = "features"  # what a checkpoint of a FeatureNet says of itself
PLAYS = ("as it is", "slow", "frozen", "shuffled", "cut")  # how the clips of the second task are played
_CLIPS = 16  # clips that pass through a network at once, at most
_FRAMES = 256  # and frames of them: long clips go one by one


class Network(Protocol):
    """What `scores.compute` needs: features of clips, the names of the scores, and who the network is."""

    scores: tuple[str, str]  # names of the Frechet and of the kernel distance
    title: str  # what the Frechet distance is, in words
    unit: str  # what one row of features describes: "clip" or "frame"
    min_frames: int  # frames that a clip must have

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, width], or [B * T, width] in the order of clips for a unit "frame"."""
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

    scores: tuple[str, str] = ("FCD-trained", "KCD-trained")
    title = "trained-feature Frechet distance (not FVD)"
    unit = "clip"
    min_frames = 2

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


class RandomNet(FeatureNet):
    """A FeatureNet with random weights that a seed decides: for tests, and to see what a score is worth that no
    training has shaped. Weights have the variance that keeps the size of what flows through (He et al. 2015)."""

    scores = ("FCD-random", "KCD-random")
    title = "random-feature Frechet distance (not FVD)"

    def __init__(self, seed: int = 0):
        super().__init__(FeatureConfig(()))
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in (parameter for parameter in self.parameters() if parameter.ndim > 1):
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
        self.eval()

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is."""
        return super().describe() | {"name": "RandomNet", "trained_on": "nothing", "seed": self.seed}


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
        stored = unpickle.load(path)
    except UserError as error:
        raise UserError(f"{path} is no feature network: {error}") from None
    if not isinstance(stored, Mapping) or stored.get("kind") != KIND:
        raise UserError(f"{path} is no feature network: make one with tats evaluate --train_features --data_path DATA")
    try:
        config = stored["config"] | {name: tuple(stored["config"][name]) for name in ("label_names", "channels")}
        network = FeatureNet(FeatureConfig(**config))
        network.load_state_dict(stored["state_dict"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged: settings and weights are of no feature network ({reason})") from None
    return network.to(device).eval()


def clips(batches: Any) -> Iterator[Tensor]:
    """Clips as uint8 frames [b, T, H, W, 3], a few at a time.

    `batches` is one batch or an iterable of them; a batch is uint8 frames [B, T, H, W, C], a float video
    [B, C, T, H, W] in [-0.5, 0.5], or a dict that holds one under "video" or "frames". Grey clips become coloured.
    """
    return (frames for frames, _ in parts(batches))


def parts(batches: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    """As `clips`, each with the weights [b] of its clips where a batch holds "weight" [B]."""
    alone = isinstance(batches, (Tensor, np.ndarray, Mapping))
    for batch in [batches] if alone else batches:
        weights = None
        if isinstance(batch, Mapping):
            weights = torch.as_tensor(batch["weight"]) if "weight" in batch else None
            batch = batch["video"] if "video" in batch else batch["frames"]
        length = batch.shape[2 if _is_video(batch) else 1] if batch.ndim == 5 else 1
        step = max(1, min(_CLIPS, _FRAMES // max(1, length)))
        for start in range(0, len(batch), step):
            part = batch[start : start + step]  # an array may be a file: only this part is read
            frames = _frames(part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part)))
            yield frames, None if weights is None else weights[start : start + step]


def _is_video(batch: Any) -> bool:
    """Floats [B, C, T, H, W], not frames uint8 [B, T, H, W, C]."""
    return batch.is_floating_point() if isinstance(batch, Tensor) else np.issubdtype(batch.dtype, np.floating)


def _frames(part: Tensor) -> Tensor:
    if part.ndim != 5:
        raise ValueError(f"clips must be frames [B, T, H, W, C] or video [B, C, T, H, W], got {list(part.shape)}")
    frames = to_frames(part) if part.is_floating_point() else part
    if frames.dtype != torch.uint8 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be uint8 [B, T, H, W, 1 or 3], got {frames.dtype} {list(frames.shape)}")
    return frames.expand(*frames.shape[:-1], 3)
