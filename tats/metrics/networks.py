"""The published networks as features: I3D behind FVD and KVD.

Each class here says how frames are prepared for its network, what its scores are called, and which weights it holds.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats import weights
from tats.flags import UserError
from tats.metrics.features import Network, fingerprint, load
from tats.metrics.i3d import I3D, preprocess


class I3DFeatures:
    """The network of the published FVD: 400 logits of I3D, frames resized to 224 x 224 without antialiasing."""

    scores = ("FVD", "KVD")
    title = "FVD, protocol tats"
    unit = "clip"
    min_frames = 9

    def __init__(self, i3d: I3D):
        self.i3d = i3d.eval()
        self.fingerprint = fingerprint(i3d)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "I3DFeatures":
        """From `i3d_pretrained_400.pt`, a plain state dict."""
        return cls(I3D.load(path).to(device))

    def features(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> float32 [B, 400]. At least nine frames."""
        if frames.shape[1] < self.min_frames:
            raise UserError(f"FVD needs clips of at least 9 frames, these have {frames.shape[1]}")
        return self.i3d(preprocess(frames.to(next(self.i3d.parameters()).device)))

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is and how frames are prepared."""
        return {
            "name": "I3D, 400 logits",
            "protocol": "tats",
            "fingerprint": self.fingerprint,
            "width": 400,
            "frames": "uint8, bilinear to 224x224 without antialiasing, 2x/255-1",
        }


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
        return I3DFeatures.load(weights.find(i3d_ckpt, "--i3d_ckpt"), device)
    if features is None:
        raise UserError(
            "a score needs a network: --i3d_ckpt FILE for FVD, or one trained on your data "
            "(tats evaluate --train_features --data_path DATA --features_ckpt FILE)"
        )
    return load(features, device)
