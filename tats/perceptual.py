"""LPIPS as a score of pairs: the perceptual distance with weights that a command names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tats import weights
from tats.metrics.features import fingerprint
from tats.metrics.quality import lpips
from tats.vqgan.lpips import LPIPS
from tats.vqgan.lpips_weights import load_lpips

_NAMES = {"vgg": "LPIPS, VGG16", "alex": "LPIPS, AlexNet"}


@dataclass(frozen=True)
class Perceptual:
    """A perceptual distance of pictures, and where its weights came from."""

    network: LPIPS
    device: str = "cpu"
    file: str = ""

    def distance(self, original: Any, other: Any) -> Tensor:
        """Distance of every frame, float64 [B, T]; pairs as `tats.metrics.quality` takes them."""
        return lpips(original, other, self.network, self.device)

    def describe(self) -> dict[str, Any]:
        """Plain values that say which network this is."""
        known = {"name": _NAMES[self.network.trunk], "fingerprint": fingerprint(self.network), "file": self.file}
        return known | {"frames": "uint8, 2x/255-1, as they are"}


def open_perceptual(ckpt: str | Path, device: str = "cpu") -> Perceptual:
    """The distance with the weights of a file, or of a name that `tats weights` knows: AlexNet as most papers score
    with, VGG16, or a released VQGAN checkpoint.

    Raises:
        UserError: the file is missing, or it holds other weights.
    """
    return Perceptual(load_lpips(ckpt).to(device), device, weights.find(ckpt, "--lpips_ckpt").name)
