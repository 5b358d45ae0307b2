"""The draw in Triton: one program per row, which stays in registers from its logits to its code.

Nothing is sorted. Floats are read as whole numbers of the same order; the k-th largest logit and the least likely one
that top-p keeps are found by halving the range of these numbers 32 times, each time with one count or one sum.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import on

WIDEST = 65536  # logits of a row


@triton.jit
def _draw(
    logits, numbers, out, n, row_stride, number_stride, temperature, top_k, top_p,
    WIDE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr,
):  # fmt: skip
    """One row: out[row] is the drawn code."""
    row = tl.program_id(0).to(tl.int64)
    ids = tl.arange(0, WIDE)
    x = tl.load(logits + row * row_stride + ids, mask=ids < n, other=float("-inf")).to(tl.float32)
    x = tl.div_rn(x, tl.full([WIDE], temperature, tl.float32))  # rounded as torch does
    x = tl.where(x == 0, 0.0, x)  # of -0 and 0, which are equal, the bits differ
    bits = x.to(tl.int32, bitcast=True)
    keys = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # whole numbers in the order of the floats
    highest = tl.max(keys, 0)
    weights = tl.exp(x - tl.max(x, 0))  # [WIDE], 0 behind the row
    if TOP_K:  # the largest number that k entries reach
        low, high = tl.min(keys, 0), highest
        for _ in range(32):
            middle = (low | high) - ((low ^ high) >> 1)  # rounded up, without an overflow
            enough = tl.sum((keys >= middle).to(tl.int32), 0) >= top_k
            low, high = tl.where(enough, middle, low), tl.where(enough, high, middle - 1)
        weights = tl.where(keys >= low, weights, 0.0)
    if TOP_P:  # the smallest number above which no more than p lies
        most = top_p * tl.sum(weights, 0)
        low, high = tl.min(keys, 0), highest
        for _ in range(32):
            middle = (low & high) + ((low ^ high) >> 1)
            fits = tl.sum(tl.where(keys > middle, weights, 0.0), 0) <= most
            low, high = tl.where(fits, low, middle + 1), tl.where(fits, middle, high)
        equal = keys == high
        each = tl.max(tl.where(equal, weights, 0.0), 0)
        left = most - tl.sum(tl.where(keys > high, weights, 0.0), 0)
        room = tl.minimum(tl.floor(left / tl.where(each > 0, each, 1.0)), n).to(
            tl.int32
        )  # equals before the crossing one
        order = tl.cumsum(equal.to(tl.int32), 0)  # 1 for the first of the equals
        weights = tl.where((keys > high) | (equal & (order <= room + 1)), weights, 0.0)
    sums = tl.cumsum(weights.to(tl.float64), 0)
    at = tl.load(numbers + row * number_stride).to(tl.float64) * tl.max(sums, 0)
    code = tl.sum((sums <= at).to(tl.int32), 0)
    last = tl.max(tl.where(weights > 0, ids, 0), 0)  # where u rounds up to 1
    tl.store(out + row, tl.minimum(code, last).to(tl.int64))


def draw_code_fused(logits: Tensor, u: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """logits [B, n], u [B] or [1] -> int64 [B]; computes in float32 and sums in float64."""
    B, n = logits.shape
    if n > WIDEST:
        raise ValueError(f"rows up to {WIDEST} logits are supported, got {n}")
    out = torch.empty(B, dtype=torch.long, device=logits.device)
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    wide = triton.next_power_of_2(n)
    with on(logits.device):
        _draw[(B,)](
            logits, u, out, n, logits.stride(0), u.stride(0) if len(u) > 1 else 0, float(temperature), top_k,
            float(top_p), WIDE=wide, TOP_K=0 < top_k < n, TOP_P=top_p < 1, num_warps=max(1, min(32, wide // 256)),
        )  # fmt: skip
    return out
