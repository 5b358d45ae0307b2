"""A short test before a model trains in bf16: are 3D convolutions right in it, and are they worth it?

Some pairs of PyTorch and cuDNN compute them wrongly, or take several times the time or the memory of float32 (torch
2.9.0 with the cuDNN that it came with is one). A run of days should not find that out by itself.
"""

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.launched import first, say
from tats.vqgan.layers import with_room

FAR = 0.02  # relative distance from float32 that rounding to 8 bits explains, several times over
SLOW, LARGE = 1.5, 2.0  # multiples of float32's time and memory that are worth a line
ROUNDS = 5
SHAPE = (2, 32, 4, 16, 16)  # clips, channels, frames, rows, columns
SHORT = 2  # frames of clips that are shorter than the kernel


@dataclass(frozen=True)
class Measured:
    """Output and gradients of a convolution in one vector; seconds, and bytes above its inputs (0: not known)."""

    values: Tensor
    seconds: float
    memory: int


def before_training(module: nn.Module, precision: str, accelerator: str) -> None:
    """Say what is wrong with bf16, if the module has 3D convolutions and trains in it, and something is.

    precision, accelerator: Lightning's words, such as bf16-mixed and auto. Only CPUs and NVIDIA's GPUs are tested.
    """
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    convolves = any(isinstance(each, nn.Conv3d) for each in module.modules())
    if precision.startswith("bf16") and convolves and first() and accelerator in ("auto", "cpu", "gpu"):
        for line in warnings_of(torch.device("cuda" if on_gpu else "cpu")):
            say(f"warning: {line}")


def warnings_of(device: torch.device) -> list[str]:
    """A line for each thing that is wrong with bf16 3D convolutions on this device, with the versions; none if all is
    well."""
    half, full = (convolution(dtype, device) for dtype in (torch.bfloat16, torch.float32))
    where = versions(device)
    away = float((half.values - full.values).norm() / full.values.norm())
    found = []
    if not away <= FAR:
        found.append(
            f"3D convolutions in bf16 are wrong with {where}: {away:.0%} away from float32. Train with --precision 32, "
            f"or take other versions"
        )
    if half.seconds > SLOW * full.seconds:
        found.append(
            f"3D convolutions in bf16 take {half.seconds / full.seconds:.1f} times as long as in float32 with {where}: "
            f"--precision 32 may be faster"
        )
    if full.memory and half.memory > LARGE * full.memory:
        found.append(
            f"3D convolutions in bf16 take {half.memory / full.memory:.1f} times the memory of float32 with {where}: "
            f"take other versions, or --precision 32"
        )
    return found


def versions(device: torch.device) -> str:
    """What computes here: torch, and on a GPU cuDNN and the GPU's name."""
    if device.type != "cuda":
        return f"torch {torch.__version__} on this {device.type.upper()}"
    return f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()} on {torch.cuda.get_device_name(device)}"


def convolution(dtype: torch.dtype, device: torch.device) -> Measured:
    """Forward and backward pass of a small convolution, the same numbers in every format; then of a shorter clip."""
    generator = torch.Generator().manual_seed(0)
    channels = SHAPE[1]
    drawn = torch.randn(SHAPE, generator=generator), torch.randn(channels, channels, 3, 3, 3, generator=generator)
    x, weight = (each.bfloat16().to(device, dtype).requires_grad_() for each in drawn)
    on_gpu, seconds, memory = device.type == "cuda", [], 0
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for _ in range(ROUNDS):
            x.grad = weight.grad = None
            if on_gpu:
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
                memory = torch.cuda.memory_allocated(device)
            start = time.perf_counter()
            y = F.conv3d(x, weight, padding=1)
            y.backward(y.detach())
            if on_gpu:
                torch.cuda.synchronize(device)
                memory = torch.cuda.max_memory_allocated(device) - memory
            seconds.append(time.perf_counter() - start)
        found = [y, x.grad, weight.grad]
        x.grad = weight.grad = None
        short, padding = with_room(x[:, :, :SHORT], weight.shape[2:], (1, 1, 1))  # as the models do it
        y = F.conv3d(short, weight, padding=padding)
        y.backward(y.detach())
        found += [y, x.grad, weight.grad]
    parts = [each.detach().float().cpu().flatten() for each in found if each is not None]
    return Measured(torch.cat([part / part.norm() for part in parts]), min(seconds), memory)
