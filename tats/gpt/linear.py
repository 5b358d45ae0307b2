"""Linear layers for many rows in float32 on CPUs where torch's own product is slow.

torch multiplies float32 matrices with MKL, which reaches about half of the speed of oneDNN on processors with AVX-512
that are not Intel's. Both sum in float32. Which one is taken depends on the processor and on sizes alone, never on a
measurement, so that a run that goes on elsewhere in the middle of an epoch does the same as before.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FEWEST = 64  # rows, outputs and inputs below which there is nothing to gain
LEAST = 1 << 22  # products of numbers, likewise


@lru_cache(maxsize=1)
def onednn_wins() -> bool:
    """True on processors with AVX-512 that are not Intel's, with a torch that has both libraries."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    info = Path("/proc/cpuinfo")
    vendor = info.read_text(encoding="utf-8") if info.exists() else "GenuineIntel"
    return "GenuineIntel" not in vendor and torch.cpu._is_avx512_supported()


def fits(x: Tensor, weight: Tensor) -> bool:
    """True where the product of x [..., k] and weight [n, k] goes through oneDNN; torch.compile takes its own."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return False
    n, k = weight.shape
    if min(n, k, x.numel() // k) < FEWEST or x.numel() * n < LEAST:
        return False
    return not torch.is_autocast_enabled("cpu") and onednn_wins()


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [m, k] times the rows of weight [n, k], each of any strides: [m, n]; without gradients."""
    if fits(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class _Product(torch.autograd.Function):
    """A linear layer whose three products go through `times`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return times(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)  # [m, n], [m, k]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            times(rows, weight.t()).view(x.shape) if needs_x else None,
            times(rows.t(), inputs.t()) if needs_weight else None,
            rows.sum(0) if ctx.has_bias and needs_bias else None,
        )


class Linear(nn.Linear):
    """nn.Linear, by the faster of two libraries on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., k] -> [..., n]"""
        if fits(x, self.weight):
            return _Product.apply(x, self.weight, self.bias)
        return super().forward(x)
