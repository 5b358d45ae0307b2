"""What several tests of the VQGAN share: pixels, weights by formula, recorded randomness."""

import zlib

import numpy as np
import torch
from torch import Tensor

from tats.vqgan.draws import Draws
from tats.vqgan.lpips import LPIPS


def pixels(array: np.ndarray) -> Tensor:
    """uint8 -> float in [-0.5, 0.5]"""
    return torch.from_numpy(array).float() / 255 - 0.5


def uniform(key: str, shape: torch.Size) -> np.ndarray:
    """The numbers in [0, 1) that a parameter's name stands for; the formula is in the cases' meta.json."""
    n = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (np.uint64(zlib.crc32(key.encode())) << np.uint64(32)) + n
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-24).reshape(shape)


def formula_lpips() -> LPIPS:
    """The perceptual distance with weights from a formula instead of photographs."""
    lpips = LPIPS()
    for key, tensor in lpips.state_dict().items():
        u = uniform(key, tensor.shape)
        if key.startswith("net"):
            u = (2 * u - 1) * (0.1 if key.endswith("bias") else (6 / u[0].size) ** 0.5)
        if not key.startswith("scaling"):
            tensor.copy_(torch.from_numpy(u))
    return lpips


class Recorded(Draws):
    """Draws that repeat what the published run drew: permutations, noise and frames in their order."""

    def __init__(self, permutations=(), noises=(), frames=None):
        super().__init__()
        self.permutations, self.noises, self.recorded_frames = list(permutations), list(noises), frames

    def keys(self, purpose: str, first: int, count: int) -> Tensor:
        if self.noises and not purpose.endswith("repeated"):  # all of few vectors are taken, whatever their order
            return torch.arange(first, first + count, dtype=torch.double)
        order = torch.from_numpy(self.permutations.pop(0))
        return order.argsort().double()  # the row that came k-th gets the k-th smallest key

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(self.noises.pop(0)).view(shape)

    def frames(self, clips: int, length: int) -> Tensor:
        return torch.from_numpy(self.recorded_frames)
