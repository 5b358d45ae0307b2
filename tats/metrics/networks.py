"""The published networks as features.

Each class says how frames are prepared for its network, what its scores are called, and which weights it holds. Plain
weight files fill the modules of this package; TorchScript files are called as their authors call them.

    network = open_named("i3d-torchscript", "weights/i3d_torchscript.pt")
    features = network.features(frames)                  # uint8 [B, T, H, W, 3] -> float32 [B, 400]
"""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats import weights
from tats.flags import UserError
from tats.metrics import c3d, i3d, inception, videomae
from tats.metrics.features import Network, fingerprint, load
from tats.metrics.stored import is_torchscript, load_torchscript

PIXELS = ("levels", "unit", "signed", "imagenet")  # how a network of one's own takes pixels
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its pixels in [0, 1]
_CONTRACT = (("size", 224), ("pixels", "unit"), ("unit", "clip"))  # what FILE.json may say, and what holds without
_PICTURES = 32  # pictures that pass through a network of pictures at once


class Classifier(Protocol):
    """What an inception score needs."""

    unit: str
    min_frames: int

    def probabilities(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, classes] or [B * T, classes], rows that sum to 1."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values, as for `Network`."""
        ...


class _Wrapped:
    """What all have in common: the module, the file it came from, and a check of the clips' length."""

    scores: tuple[str, str] = ("FVD", "KVD")
    title = ""
    unit = "clip"
    min_frames = 1
    name = ""
    width = 0
    prepared = ""  # how frames reach the network

    def __init__(self, module: nn.Module, path: str | Path | None = None):
        self.module = module.eval()
        self.path = path
        self.sha256 = weights.sha256(Path(path)) if path is not None else None
        self.fingerprint = self.sha256[:12] if self._script and self.sha256 else fingerprint(module)

    @property
    def _script(self) -> bool:
        return isinstance(self.module, torch.jit.ScriptModule)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next((each.device for each in self.module.parameters()), torch.device("cpu"))

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is and how frames are prepared."""
        known = {} if self.path is None else {"file": Path(self.path).name, "sha256": self.sha256}
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "width": self.width,
            "frames": self.prepared,
            "torchscript": self._script,
            **known,
        }

    def _check(self, frames: Tensor) -> None:
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
            raise ValueError(f"frames must be uint8 [B, T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        if frames.shape[1] < self.min_frames:
            raise UserError(
                f"{self.scores[0]} needs clips of at least {self.min_frames} frames, these have {frames.shape[1]}"
            )


class I3DFeatures(_Wrapped):
    """The network of FVD as in the TATS paper: 400 logits of I3D, plain weights, frames resized to 224 x 224 without
    antialiasing."""

    title = "FVD, protocol tats"
    min_frames = 9
    name = "I3D, 400 logits"
    width = 400
    prepared = "uint8, bilinear to 224x224 without antialiasing, 2x/255-1"

    def __init__(self, network: i3d.I3D, path: str | Path | None = None):
        super().__init__(network, path)
        self.module = i3d.folded(network)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "I3DFeatures":
        """From `i3d_pretrained_400.pt`, a plain state dict."""
        return cls(i3d.I3D.load(path).to(device), path)

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, 400]. At least nine frames."""
        self._check(frames)
        video = i3d.preprocess(frames.to(self.device))  # [B, 3, T, 224, 224]
        return self.module(video.contiguous(memory_format=torch.channels_last_3d))


class I3DScript(_Wrapped):
    """The network of FVD as most papers use it: `i3d_torchscript.pt`, which prepares frames itself."""

    title = "FVD"
    min_frames = 10
    name = "I3D, 400 logits, TorchScript"
    width = 400
    prepared = "uint8, by the file itself: rescale=True, resize=True"

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, 400]. At least ten frames."""
        self._check(frames)
        video = frames.permute(0, 4, 1, 2, 3).to(self.device)  # uint8 [B, 3, T, H, W]
        return self.module(video, rescale=True, resize=True, return_features=True)


class C3DFeatures(_Wrapped):
    """The classifier of the inception score of videos, C3D over UCF-101; its 4096 numbers below the logits serve as
    features of clips too."""

    scores = ("C3D-FD", "C3D-KD")
    title = "Frechet distance of C3D features (not FVD)"
    min_frames = c3d.FRAMES
    name = "C3D"
    width = 4096
    prepared = "uint8, bilinear to 112x112, blue green red, minus the mean of the data"

    def _check(self, frames: Tensor) -> None:
        super()._check(frames)
        if frames.shape[1] != c3d.FRAMES:
            raise UserError(f"C3D takes clips of {c3d.FRAMES} frames, these have {frames.shape[1]}")

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, 16, H, W, 3] -> float32 [B, 4096], behind fc6 as usual for C3D; plain weights only."""
        self._check(frames)
        if not isinstance(self.module, c3d.C3D):
            raise UserError(f"{self.path} answers with classes only: it makes an inception score, no distances")
        return F.relu(self.module.fc6(self.module.pooled(c3d.preprocess(frames.to(self.device)))))

    def probabilities(self, frames: Tensor) -> Tensor:
        """uint8 [B, 16, H, W, 3] -> float32 [B, 101]; a TorchScript file prepares frames itself."""
        self._check(frames)
        if self._script:
            return self.module(frames.permute(0, 4, 1, 2, 3).to(self.device))
        return self.module(c3d.preprocess(frames.to(self.device))).softmax(1)


class InceptionFeatures(_Wrapped):
    """The network of FID, KID and the inception score of pictures: every frame of a clip is described by itself."""

    scores = ("FID", "KID")
    title = "FID"
    unit = "frame"
    name = "Inception-v3 of 2015, pool"
    width = inception.WIDTH
    prepared = "uint8, bilinear to 299x299 without antialiasing, 2x/255-1 (a TorchScript file: by itself)"

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B * T, 2048]."""
        self._check(frames)
        return torch.cat([self._pool(part) for part in frames.flatten(0, 1).split(_PICTURES)])

    def probabilities(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B * T, 1008], without the bias of the last layer, as published."""
        self._check(frames)
        return torch.cat([self._answers(part) for part in frames.flatten(0, 1).split(_PICTURES)])

    def _pool(self, pictures: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> [n, 2048]"""
        if self._script:
            return self.module(pictures.permute(0, 3, 1, 2).to(self.device), return_features=True)
        return self.module(inception.preprocess(pictures[None].to(self.device)))

    def _answers(self, pictures: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> [n, 1008]"""
        if self._script:
            return self.module(pictures.permute(0, 3, 1, 2).to(self.device), no_output_bias=True)
        return self.module.probabilities(self._pool(pictures))  # type: ignore[operator]


class VideoMAEFeatures(_Wrapped):
    """The network of the content-debiased FVD: VideoMAE v2, which sees motion better than looks."""

    scores = ("CD-FVD", "CD-KVD")
    title = "content-debiased FVD"
    min_frames = videomae.FRAMES
    name = "VideoMAE v2"
    prepared = "uint8, bilinear to 224x224 without antialiasing, x/255"

    def __init__(self, network: videomae.VideoMAE, path: str | Path | None = None):
        super().__init__(network, path)
        self.width = network.fc_norm.weight.numel()

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, 16, H, W, 3] -> float32 [B, 1408], one clip at a time: a clip becomes 2048 tokens."""
        self._check(frames)
        if frames.shape[1] != videomae.FRAMES:
            raise UserError(f"CD-FVD takes clips of {videomae.FRAMES} frames, these have {frames.shape[1]}")
        return torch.cat([self.module(videomae.preprocess(clip.to(self.device))) for clip in frames.split(1)])


class FileFeatures(_Wrapped):
    """Any TorchScript network of clips or pictures as features. Its scores carry the file's name, never FVD.

    The module takes float [B, 3, T, size, size] (pictures: [N, 3, size, size]) and returns rows of numbers, which are
    flattened. A network trained to see motion gives a content-debiased distance (Ge et al. 2024).
    """

    def __init__(
        self, module: nn.Module, path: str | Path, size: int | None = 224, pixels: str = "unit", unit: str = "clip"
    ):
        """size: width and height of the network's pictures (None: as they are); pixels: one of `PIXELS`: levels 0 to
        255, unit [0, 1], signed [-1, 1], imagenet: unit less the mean and divided by the deviation of ImageNet."""
        if pixels not in PIXELS:
            raise UserError(f"pixels of a network are one of {', '.join(PIXELS)}, got {pixels}")
        super().__init__(module, path)
        self.size, self.pixels, self.unit = size, pixels, unit
        self.name = Path(path).stem
        self.scores = (f"FD-{self.name}", f"KD-{self.name}")
        self.title = f"Frechet distance of features of {self.name} (not FVD)"
        resized = "as they are" if size is None else f"bilinear to {size}x{size} without antialiasing"
        self.prepared = f"uint8, {resized}, pixels: {pixels}, one row for a {unit}"

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, width], or [B * T, width] for a network of pictures."""
        self._check(frames)
        pictures = frames.flatten(0, 1).movedim(-1, 1).float()  # [B*T, 3, H, W]
        if self.size is not None:
            pictures = F.interpolate(pictures, size=(self.size, self.size), mode="bilinear", align_corners=False)
        pictures = scaled(pictures, self.pixels).to(self.device)
        given = pictures if self.unit == "frame" else pictures.unflatten(0, frames.shape[:2]).transpose(1, 2)
        try:
            found = self.module(given)
        except (RuntimeError, torch.jit.Error) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{self.path} can't take float {list(given.shape)} ({self.unit}s): {reason}") from error
        rows = len(given)
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != rows:
            said = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{self.path} must answer with one row for each {self.unit} ({rows} here), got {said}")
        self.width = found[0].numel()
        return found.flatten(1).float()


def scaled(pictures: Tensor, pixels: str) -> Tensor:
    """[n, 3, H, W] from 0 to 255 -> the range that a network takes; see `FileFeatures`."""
    if pixels == "levels":
        return pictures
    if pixels == "signed":
        return pictures / 127.5 - 1
    if pixels == "unit":
        return pictures / 255
    mean, deviation = (pictures.new_tensor(row).view(1, 3, 1, 1) for row in _IMAGENET)
    return (pictures / 255 - mean) / deviation


def open_named(name: str, ckpt: str | Path | None = None, device: str | torch.device = "cpu") -> Any:
    """A published network: "i3d-plain", "i3d-torchscript", "c3d-ucf101", "inception-2015", "inception-torchscript"
    or "videomae-ssv2".

    Args:
        ckpt: the file, or the name of a fetched one; None looks for `name` itself. Plain weights and TorchScript are
            told apart by what the file holds, not by the name.

    Returns:
        A `Network`, and for C3D and Inception a `Classifier`.

    Raises:
        UserError: an unknown name; a missing file, with its address and the command that fetches it; another file, or
            one whose checksum is not that of its name.
    """
    kinds = {"i3d-plain": "i3d", "i3d-torchscript": "i3d", "c3d-ucf101": "c3d", "inception-2015": "inception",
             "inception-torchscript": "inception", "videomae-ssv2": "videomae"}  # fmt: skip
    if name not in kinds:
        raise UserError(f"no network is called {name!r}: {', '.join(kinds)}")
    kind = kinds[name]
    path = weights.find(ckpt if ckpt is not None else name, f"--{kind}_ckpt")
    weights.verify(path)
    script = is_torchscript(path)
    if kind == "i3d":
        return I3DScript(load_torchscript(path, "I3D", device), path) if script else I3DFeatures.load(path, device)
    if kind == "c3d":
        return C3DFeatures(load_torchscript(path, "C3D", device) if script else c3d.C3D.load(path).to(device), path)
    if kind == "videomae":
        return VideoMAEFeatures(videomae.VideoMAE.load(path).to(device), path)
    module = load_torchscript(path, "Inception", device) if script else inception.Inception.load(path).to(device)
    return InceptionFeatures(module, path)


def open_file(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    size: int | None = 224,
    pixels: str = "unit",
    unit: str = "clip",
) -> FileFeatures:
    """A TorchScript network of one's own; see `FileFeatures`.

    Raises:
        UserError: no such file, or it is no TorchScript.
    """
    return FileFeatures(load_torchscript(path, "a network", device), path, size, pixels, unit)


def contract(path: str | Path) -> dict[str, Any]:
    """How a network of one's own takes clips, from `FILE.json` beside it: "size", "pixels" and "unit" as `open_file`
    takes them; without that file, the defaults.

    Raises:
        UserError: the file is no JSON, or says something else.
    """
    beside = Path(f"{path}.json")
    if not beside.is_file():
        return {}
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{beside} is no JSON: {error}") from error
    size, pixels, unit = (
        (said.get(name, default) for name, default in _CONTRACT) if isinstance(said, dict) else (0, 0, 0)
    )
    right = (size is None or (isinstance(size, int) and size > 0)) and pixels in PIXELS and unit in ("clip", "frame")
    if not right or set(said) - {name for name, _ in _CONTRACT}:
        raise UserError(
            f"{beside} must hold size (pixels, or null), pixels ({', '.join(PIXELS)}) and unit (clip or frame)"
        )
    return {"size": size, "pixels": pixels, "unit": unit}


def open_network(
    features: str | Path | None = None, i3d_ckpt: str | Path | None = None, device: str | torch.device = "cpu"
) -> Network:
    """The network that a command asks for: I3D with the weights `i3d_ckpt` (a path, or the name of fetched weights;
    plain or TorchScript); or `features`: a trained FeatureNet, or any network as TorchScript, see `contract`.

    Raises:
        UserError: neither or both are given, or the file is missing or something else.
    """
    if features is not None and i3d_ckpt is not None:
        raise UserError("a trained feature network and --i3d_ckpt are two networks: give one of them")
    if i3d_ckpt is not None:
        return open_named("i3d-plain", i3d_ckpt, device)
    if features is None:
        raise UserError(
            "a score needs a network: --i3d_ckpt FILE for FVD, or one trained on your data "
            "(tats evaluate --train_features --data_path DATA --features_ckpt FILE)"
        )
    if is_torchscript(features):
        return open_file(features, device, **contract(features))
    return load(features, device)
