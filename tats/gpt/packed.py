"""Linear layers laid out once for the fastest kernel that this machine has, per number format.

    layer = pack(weight, bias, "int8", rows=4)
    y = layer(x)                                   # x [rows, k] -> [rows, n], of the type of x
    into = layer.add(x, into)                      # into + layer(x), perhaps in the memory of `into`

On a CPU the weights of a few rows are read, not computed with: what counts is bytes, and a layout that the kernel
reads in one sweep. Activations stay float32; `int8` rounds them too, each row by its own scale, so that what a row
gives never depends on its neighbours.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from tats.flags import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
SMALL = 1 << 17  # up to this many weights lie in the nearest cache, and the call with the least to prepare wins
FEW = 16  # rows whose rounding goes through numpy, where a call costs less; more of them share torch's threads
MARGIN = 0.8  # a later candidate must take less than this share of the first one's time: noise decides nothing
PACKED_ROWS = 16  # oneDNN's layout for this many rows is at most a few percent slower than the best for any other


class Packed(Protocol):
    """A linear layer: weights in some layout."""

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x); `into` is not to be used any more."""


class Plain:
    """torch's own product in one type, on any device."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        self.weight, self.bias = weight.to(dtype), None if bias is None else bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        return linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        return into.add_(self(x))


class Widened:
    """Weights rounded to a format and kept in float32: for those that lie in the nearest cache anyway."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        if dtype == torch.int8:
            steps, scale = rounded(weight)
            self.weight = steps * scale[:, None]
        else:
            self.weight = weight.to(dtype).float()
        self.turned, self.bias = self.weight.T, bias

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        return linear(x, self.weight, self.bias)

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        into.addmm_(x, self.turned)
        return into if self.bias is None else into.add_(self.bias)


class Reordered:
    """float32 or bf16 weights in the blocks that oneDNN reads: one layout for every number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        self.dtype, self.bias = dtype, None if bias is None else bias.to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), PACKED_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        y = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return y.to(x.dtype)

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        return into.add_(self(x))


class Halved:
    """fp16 weights that FBGEMM widens while it multiplies: activations and sums stay float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        with _engine("fbgemm"):
            self.weight = torch.ops.quantized.linear_prepack_fp16(weight.float().contiguous(), bias)

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        return torch.ops.quantized.linear_dynamic_fp16(x, self.weight)

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        return into.add_(self(x))


class Eighth:
    """8-bit weights with one scale per output, 8-bit activations with one scale per row, sums in whole numbers.

    FBGEMM takes one scale for all rows. Here rows are stretched to [-1, 1] first, and a further row that holds both
    ends fixes that scale: what one row gives does not depend on the others.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        steps, scale = rounded(weight)
        self.bias = bias
        self.stretched = torch.zeros(FEW + 1, weight.shape[1])  # rows, and behind them the one with both ends
        self.rows = 0
        with _engine("fbgemm"), warnings.catch_warnings():
            # this torch has no other way to hand 8-bit weights to FBGEMM, and says that it will go with torch 3
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            zeros = torch.zeros(len(scale), dtype=torch.long)
            whole = torch._make_per_channel_quantized_tensor(steps, scale.double(), zeros, 0)
            self.weight = torch.ops.quantized.linear_prepack(whole, None)

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        if len(x) > FEW:
            most = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30)  # [rows, 1]
            ends = x.new_zeros(1, x.shape[1])
            ends[0, 0], ends[0, -1] = 1.0, -1.0
            y = self._multiply(torch.cat([x / most, ends])).mul_(most)
            return y if self.bias is None else y.add_(self.bias)
        given = x.numpy()
        size = np.abs(given).max(-1, keepdims=True)  # [rows, 1]
        np.maximum(size, np.float32(1e-30), out=size)
        np.divide(given, size, out=self._room(len(x)))
        y = self._multiply(self.stretched[: len(x) + 1])
        found = y.numpy()
        np.multiply(found, size, out=found)
        if self.bias is not None:
            np.add(found, self.bias.numpy(), out=found)
        return y

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        return into.add_(self(x))

    def _multiply(self, stretched: Tensor) -> Tensor:
        """[rows + 1, k], the last with both ends -> [rows, n]"""
        return torch.ops.quantized.linear_dynamic(stretched, self.weight, not _vnni())[:-1]

    def _room(self, rows: int) -> np.ndarray:
        """Where that many rows are written, in front of the one with both ends."""
        if rows != self.rows:
            self.stretched[rows] = 0.0
            self.stretched[rows, 0], self.stretched[rows, -1] = 1.0, -1.0
            self.rows = rows
        return self.stretched[:rows].numpy()


class EighthPlain:
    """8-bit weights with one scale per output, widened at every use: for devices without a kernel of their own."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype):
        self.weight, self.scale = rounded(weight)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, k] -> [rows, n]"""
        y = linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def add(self, x: Tensor, into: Tensor) -> Tensor:
        """x [rows, k], into [rows, n] -> into + layer(x), in the memory of `into`"""
        return into.add_(self(x))


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a matrix [n, k] as whole numbers of steps, int8 in [-127, 127], and the step of each row, float32 [n]."""
    weight = weight.float()
    scale = weight.abs().amax(1).clamp(min=1e-30) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def pack(weight: Tensor, bias: Tensor | None, precision: str, rows: int) -> Packed:
    """A linear layer in the layout that is fastest for `rows` rows here; the weights given are not kept.

    weight [n, k], bias [n] or None; precision: a key of `PRECISIONS`; weights in float64 stay in it under fp32.

    Raises:
        UserError: a weight beyond the range of fp16.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    dtype = weight.dtype if precision == "fp32" else PRECISIONS[precision]
    if precision == "fp16" and weight.numel() and weight.abs().amax() > torch.finfo(torch.float16).max:
        raise UserError("--precision fp16: this transformer has weights beyond its range; take bf16 or fp32")
    if weight.device.type != "cpu" or dtype == torch.float64:
        return (EighthPlain if precision == "int8" else Plain)(weight, bias, dtype)
    bias = None if bias is None else bias.float()
    return fastest(precision, *weight.shape, rows, torch.get_num_threads())(weight, bias, dtype)


@lru_cache(maxsize=256)
def fastest(precision: str, n: int, k: int, rows: int, threads: int) -> type:
    """The kind of layer that takes least time on this CPU for [rows, k] -> [rows, n]; measured once.

    threads: of torch now; the choice is remembered for each number of them.
    """
    if n * k <= SMALL:
        return Widened
    kinds = candidates(precision)
    if len(kinds) == 1:
        return kinds[0]
    weight, x = torch.randn(n, k), torch.randn(rows, k)
    times = [_time(kind(weight, None, PRECISIONS[precision]), x) for kind in kinds]
    best = min(range(len(kinds)), key=times.__getitem__)
    return kinds[best] if times[best] < MARGIN * times[0] else kinds[0]


def candidates(precision: str) -> list[type]:
    """Kinds of layers that this build of torch has for a number format on a CPU, the usually fastest first."""
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
    if precision == "int8":
        return [Eighth] if fbgemm else [EighthPlain]
    first = [Halved] if precision == "fp16" and fbgemm else []
    return first + ([Reordered] if onednn and precision != "fp16" else []) + [Plain]


def _time(layer: Packed, x: Tensor) -> float:
    """Seconds of one call, the least of a few."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return min(times)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Pack for one of torch's engines of quantised products inside the block; layers remember theirs."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@lru_cache(maxsize=1)
def _vnni() -> bool:
    """True where 8-bit products are summed in 32 bits; elsewhere FBGEMM sums in 16 and wants activations of 7 bits."""
    return bool(torch.cpu._is_vnni_supported())
