"""How close a reconstruction is to its original, frame by frame: PSNR, SSIM and, where its weights are at hand, LPIPS.

All take frames uint8 [B, T, H, W, C] or video float [B, C, T, H, W] in [-0.5, 0.5], and compute in float64
(LPIPS in the float32 of its network). `Quality` gathers them batch by batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats.metrics.processes import ALONE, World

CEILING = 100.0  # dB that a frame without any error counts as in a mean, where its PSNR is infinite
_K1, _K2 = 0.01, 0.03  # constants of Wang et al., "Image quality assessment" (2004), section III-C
WINDOW, _SIGMA = 11, 1.5  # their window
_PICTURES = 64  # pictures whose window means are held at once


def psnr(original: Any, other: Any) -> Tensor:
    """Peak signal-to-noise ratio of every frame in dB, float64 [B, T]: 10 log10(peak^2 / mean squared error) over all
    pixels and channels; infinite for equal frames. The peak is 255 for frames and 1 for video."""
    error = squared_error(original, other)  # [B, T]
    return -10 * torch.log10(error)


def squared_error(original: Any, other: Any) -> Tensor:
    """Mean squared error of every frame, float64 [B, T], with the peak taken as 1."""
    a, b = _pictures(original, other)
    return (a - b).square().mean((2, 3, 4))


def ssim(original: Any, other: Any) -> Tensor:
    """Structural similarity of every frame, float64 [B, T], 1 for equal frames.

    Gaussian window of 11 x 11 with deviation 1.5, only where it lies wholly inside the picture; channels are judged
    one by one and averaged (Wang et al. 2004).

    Raises:
        ValueError: pictures smaller than the window.
    """
    a, b = _pictures(original, other)
    if min(a.shape[3:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW}, got {a.shape[3]} x {a.shape[4]}")
    pairs = zip(a.flatten(0, 1).split(_PICTURES), b.flatten(0, 1).split(_PICTURES))
    return torch.cat([_ssim_of_pictures(x, y) for x, y in pairs]).unflatten(0, a.shape[:2])


@torch.inference_mode()
def lpips(original: Any, other: Any, network: Callable[[Tensor, Tensor], Tensor], device: Any = "cpu") -> Tensor:
    """Learned perceptual distance of every frame, float64 [B, T], 0 for equal frames (Zhang et al. 2018).

    Pixels reach the network in [-1, 1], as the metric is defined; the training loss of the VQGAN feeds it [-0.5, 0.5],
    so its values differ. network: [n, 3, H, W] twice -> n numbers.
    """
    a, b = _pictures(original, other)
    colours = [(2 * each.float() - 1).flatten(0, 1).expand(-1, 3, -1, -1) for each in (a, b)]  # [B*T, 3, H, W]
    pairs = zip(colours[0].split(_PICTURES), colours[1].split(_PICTURES))
    found = torch.cat([network(x.to(device), y.to(device)).flatten().double().cpu() for x, y in pairs])
    return found.unflatten(0, a.shape[:2])


def _ssim_of_pictures(x: Tensor, y: Tensor) -> Tensor:
    """[n, C, H, W] in [0, 1] twice -> [n]."""
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mean_x**2
    var_y = _window_mean(y * y) - mean_y**2
    shared = _window_mean(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    structure = (2 * shared + _K2**2) / (var_x + var_y + _K2**2)
    return (light * structure).mean((1, 2, 3))


def _window_mean(x: Tensor) -> Tensor:
    """Gaussian means of [n, C, H, W], first over columns, then over rows: [n, C, H - 10, W - 10]."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, WINDOW)
    x = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(x, weights.transpose(2, 3), groups=x.shape[1])


def _pictures(original: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Both as float64 [B, T, C, H, W] in [0, 1]."""
    a, b = (each if isinstance(each, Tensor) else torch.from_numpy(np.asarray(each)) for each in (original, other))
    if a.shape != b.shape or a.dtype.is_floating_point != b.dtype.is_floating_point or a.ndim != 5:
        raise ValueError(
            f"both sides must be frames [B, T, H, W, C] or video [B, C, T, H, W] of one shape, "
            f"got {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        )
    if a.dtype == torch.uint8:
        return a.permute(0, 1, 4, 2, 3).double() / 255, b.permute(0, 1, 4, 2, 3).double() / 255
    if not a.is_floating_point():
        raise ValueError(f"frames must be uint8, got {a.dtype}")
    x, y = ((each.detach().double().clamp(-0.5, 0.5) + 0.5).transpose(1, 2) for each in (a, b))
    return x, y


@dataclass
class Quality:
    """PSNR, SSIM and LPIPS over pairs of clips that arrive in batches; only sums are kept.

    `psnr` in `scores()` is the mean over frames (a frame without error counts as 100 dB), `psnr_pooled` comes from the
    mean squared error of all pixels, `ssim` and `lpips` are means over frames. Deviations are those of the means of the
    clips. `network`: of LPIPS, on `device`; without it that score is left out.
    """

    clips: int = 0
    frames: int = 0
    perfect: int = 0  # frames without any error
    network: Callable[[Tensor, Tensor], Tensor] | None = None
    device: Any = "cpu"
    _psnr: float = 0.0
    _psnr_squares: float = 0.0
    _clip_psnr: float = 0.0
    _error: float = 0.0
    _ssim: float = 0.0
    _lpips: float = 0.0

    def add(self, original: Any, other: Any) -> None:
        """Take in pairs of clips: both frames uint8 [B, T, H, W, C], or both video float [B, C, T, H, W]."""
        error = squared_error(original, other)  # [B, T]
        values = (-10 * torch.log10(error)).clamp(max=CEILING)
        per_clip = values.mean(1)
        self.clips += error.shape[0]
        self.frames += error.numel()
        self.perfect += int((error == 0).sum())
        self._psnr += float(values.sum())
        self._clip_psnr += float(per_clip.sum())
        self._psnr_squares += float(per_clip.square().sum())
        self._error += float(error.sum())
        self._ssim += float(ssim(original, other).sum())
        if self.network is not None:
            self._lpips += float(lpips(original, other, self.network, self.device).sum())

    def scores(self, world: World = ALONE) -> dict[str, float | int]:
        """Plain values: psnr, psnr_deviation (between clips), psnr_pooled, ssim, lpips where its network is at hand,
        and the counts; of all processes of `world` together.

        Raises:
            ValueError: nothing was added.
        """
        counts = world.sum(torch.tensor([self.clips, self.frames, self.perfect]))
        clips, frames, perfect = (int(n) for n in counts)
        if not frames:
            raise ValueError("no clips were compared")
        sums = [self._psnr, self._psnr_squares, self._clip_psnr, self._error, self._ssim, self._lpips]
        psnrs, squares, clip_psnrs, errors, ssims, distances = world.sum(
            torch.tensor(sums, dtype=torch.float64)
        ).tolist()
        mean, error = clip_psnrs / clips, errors / frames
        return {
            "psnr": psnrs / frames,
            "psnr_deviation": math.sqrt(max(0.0, squares / clips - mean**2)),
            "psnr_pooled": -10 * math.log10(error) if error else CEILING,
            "ssim": ssims / frames,
            **({"lpips": distances / frames} if self.network is not None else {}),
            "n_clips": clips,
            "n_frames": frames,
            "n_perfect_frames": perfect,
        }
