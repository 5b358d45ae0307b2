"""Attention with anchors in Triton: one kernel forward, three backward. Nothing of size [L, L] is ever stored.

A row is a position that asks, a column one that answers. Row i sees the columns below `bound(i)` and the last `suffix`
ones, where `bound` is `prefix` for an anchor and i + 1 otherwise. So the columns that a block of rows sees are a run
from 0 and a run up to L; what lies between is skipped, and only the blocks at the ends of these runs are masked.
The scheme of the running softmax and its backward is that of FlashAttention-2 (Dao 2023, algorithms 1 and 2).
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..dispatch import interpreted, on

LOG2E = 1.4426950408889634  # the softmax goes by powers of two, which GPUs have an instruction for
WIDEST = 128  # of a head


class Blocks(NamedTuple):
    """Rows and columns of a tile, warps of a program, loads under way."""

    rows: int
    columns: int
    warps: int
    stages: int


def blocks(width: int, dtype: torch.dtype, backward: bool) -> Blocks:
    """The tile for heads of this width: as large as shared memory and registers of sm_80 allow."""
    if interpreted():
        return Blocks(32, 32, 4, 1)
    if dtype == torch.float32:  # exact products run outside the tensor cores, from registers
        return Blocks(32, 32, 4, 1)
    if backward:
        return Blocks(64, 64, 4, 2) if width <= 64 else Blocks(64, 64, 8, 2)
    return Blocks(128, 64, 4, 3) if width <= 64 else Blocks(128, 64, 8, 2)


@triton.jit
def _bound(rows, length, prefix, suffix):
    """Columns below this are seen by a row.  [rows]"""
    anchor = (rows < prefix) | ((rows >= length - suffix) & (rows < length))
    return tl.where(anchor, prefix, rows + 1)


@triton.jit
def _tile(base, at, stride, length, columns, D: tl.constexpr, MASKED: tl.constexpr, UP: tl.constexpr):
    """Rows `at` of a matrix [length, D]; with MASKED zeros behind its end.  [rows, D padded]"""
    places = base + at[:, None] * stride + columns[None, :]
    if MASKED:
        x = tl.load(places, mask=(at[:, None] < length) & (columns[None, :] < D), other=0.0)
    else:
        x = tl.load(places, mask=columns[None, :] < D, other=0.0)
    return x.to(tl.float32) if UP else x


@triton.jit
def _columns_seen(first, length, prefix, suffix, BM: tl.constexpr, BN: tl.constexpr, SUFFIX: tl.constexpr):
    """Which blocks of BN columns the rows first .. first + BM - 1 see.

    Blocks that need no mask: `n_open` from column 0 on and the rest of `opens` from column `right` on. Blocks at an end
    of a run, which need one: `n_edge` from `edge`, `n_gap` from `gap` and the rest of `masks` from `tail`.
    """
    middle = length - suffix  # behind the last position that can be no anchor
    last = tl.minimum(first + BM, middle)
    high = tl.where(last > tl.maximum(first, prefix), last, prefix)  # no row sees the columns from here to the suffix
    anchors = (first < prefix) | ((suffix > 0) & (first + BM > middle))
    low = tl.where(anchors, prefix, first + 1)  # every row sees the columns below
    n_open = low // BN
    edge = n_open * BN
    n_edge = tl.cdiv(high - edge, BN)
    gap, right, tail, n_gap, opens, masks = 0, 0, 0, 0, n_open, n_edge
    if SUFFIX:
        gap = tl.maximum(middle // BN * BN, edge + n_edge * BN)
        right = tl.maximum(tl.cdiv(middle, BN) * BN, gap)
        tail = tl.maximum(length // BN * BN, right)
        n_gap = (right - gap) // BN
        opens = n_open + (tail - right) // BN
        masks = n_edge + n_gap + tl.cdiv(tl.maximum(length - tail, 0), BN)
    return n_open, opens, right, n_edge, edge, n_gap, gap, tail, masks


@triton.jit
def _forward_step(
    q, best, total, acc, k, v, at, k_stride, v_stride, rows, columns, scale, length, prefix, suffix,
    D: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """One block of columns from `at`: running maximum and sum of powers of two [rows], sum of values [rows, D]."""
    seen = at + tl.arange(0, BN)
    keys = _tile(k, seen, k_stride, length, columns, D, MASKED, UP)
    scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale  # [rows, BN]
    if MASKED:
        bound = _bound(rows, length, prefix, suffix)
        visible = ((seen[None, :] < bound[:, None]) | (seen[None, :] >= length - suffix)) & (seen[None, :] < length)
        scores = tl.where(visible, scores, float("-inf"))
    higher = tl.maximum(best, tl.max(scores, 1))
    shift = tl.where(higher == float("-inf"), 0.0, higher)  # a row may see nothing of its first blocks
    weights = tl.exp2(scores - shift[:, None])
    fade = tl.exp2(best - shift)
    values = _tile(v, seen, v_stride, length, columns, D, MASKED, UP)
    acc = tl.dot(weights.to(values.dtype), values, acc * fade[:, None], input_precision="ieee")
    return higher, total * fade + tl.sum(weights, 1), acc


@triton.jit
def _forward(
    q, k, v, out, lse, scale, length, prefix, suffix, heads,
    q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l,
    D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SUFFIX: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """Rows of one head: out [B, N, L, D] and, in powers of two, the logarithm of the sum of the weights [B, N, L]."""
    first, head = tl.program_id(0) * BM, tl.program_id(1).to(tl.int64)
    b, n = head // heads, head % heads
    rows, columns = first + tl.arange(0, BM), tl.arange(0, WIDE)
    k, v = k + b * k_b + n * k_n, v + b * v_b + n * v_n
    asked = _tile(q + b * q_b + n * q_n, rows, q_l, length, columns, D, True, UP)  # [rows, D]
    best = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, WIDE], tl.float32)
    n_open, opens, right, n_edge, edge, n_gap, gap, tail, masks = _columns_seen(
        first, length, prefix, suffix, BM, BN, SUFFIX
    )
    for i in range(opens):
        at = tl.where(i < n_open, i * BN, right + (i - n_open) * BN)
        best, total, acc = _forward_step(
            asked, best, total, acc, k, v, at, k_l, v_l, rows, columns, scale, length, prefix, suffix, D, BN, False, UP
        )
    for i in range(masks):
        at = tl.where(i < n_edge + n_gap, gap + (i - n_edge) * BN, tail + (i - n_edge - n_gap) * BN)
        at = tl.where(i < n_edge, edge + i * BN, at)
        best, total, acc = _forward_step(
            asked, best, total, acc, k, v, at, k_l, v_l, rows, columns, scale, length, prefix, suffix, D, BN, True, UP
        )
    inside = (rows[:, None] < length) & (columns[None, :] < D)
    places = out + (head * length + rows[:, None]) * D + columns[None, :]
    tl.store(places, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(lse + head * length + rows, best + tl.log2(total), mask=rows < length)


@triton.jit
def _delta(out, above, delta, length, D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr):
    """What the softmax takes off every gradient of a row: sum of out * above.  [B, N, L, D] twice -> [B, N, L]"""
    head = tl.program_id(1).to(tl.int64)
    rows, columns = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, WIDE)
    x = _tile(out + head * length * D, rows, D, length, columns, D, True, True)
    y = _tile(above + head * length * D, rows, D, length, columns, D, True, True)
    tl.store(delta + head * length + rows, tl.sum(x * y, 1), mask=rows < length)


@triton.jit
def _query_step(
    q, above, lse, delta, dq, k, v, at, k_stride, v_stride, rows, columns, scale, length, prefix, suffix,
    D: tl.constexpr, BN: tl.constexpr, MASKED: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """One block of columns from `at`: its part of the gradient of the queries, before scaling.  -> [rows, D]"""
    seen = at + tl.arange(0, BN)
    keys = _tile(k, seen, k_stride, length, columns, D, MASKED, UP)
    values = _tile(v, seen, v_stride, length, columns, D, MASKED, UP)
    weights = tl.exp2(tl.dot(q, tl.trans(keys), input_precision="ieee") * scale - lse[:, None])
    if MASKED:
        bound = _bound(rows, length, prefix, suffix)
        visible = ((seen[None, :] < bound[:, None]) | (seen[None, :] >= length - suffix)) & (seen[None, :] < length)
        weights = tl.where(visible, weights, 0.0)
    slope = weights * (tl.dot(above, tl.trans(values), input_precision="ieee") - delta[:, None])
    return tl.dot(slope.to(keys.dtype), keys, dq, input_precision="ieee")


@triton.jit
def _query_gradient(
    q, k, v, above, lse, delta, dq, scale, length, prefix, suffix, heads,
    q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l,
    D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SUFFIX: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """Gradient of the queries for the rows of one head."""
    first, head = tl.program_id(0) * BM, tl.program_id(1).to(tl.int64)
    b, n = head // heads, head % heads
    rows, columns = first + tl.arange(0, BM), tl.arange(0, WIDE)
    k, v = k + b * k_b + n * k_n, v + b * v_b + n * v_n
    asked = _tile(q + b * q_b + n * q_n, rows, q_l, length, columns, D, True, UP)  # [rows, D]
    gradient = _tile(above + head * length * D, rows, D, length, columns, D, True, UP)  # [rows, D]
    log_sum = tl.load(lse + head * length + rows, mask=rows < length, other=0.0)
    taken = tl.load(delta + head * length + rows, mask=rows < length, other=0.0)
    acc = tl.zeros([BM, WIDE], tl.float32)
    n_open, opens, right, n_edge, edge, n_gap, gap, tail, masks = _columns_seen(
        first, length, prefix, suffix, BM, BN, SUFFIX
    )
    for i in range(opens):
        at = tl.where(i < n_open, i * BN, right + (i - n_open) * BN)
        acc = _query_step(
            asked, gradient, log_sum, taken, acc, k, v, at, k_l, v_l, rows, columns, scale * 1.4426950408889634,
            length, prefix, suffix, D, BN, False, UP,
        )  # fmt: skip
    for i in range(masks):
        at = tl.where(i < n_edge + n_gap, gap + (i - n_edge) * BN, tail + (i - n_edge - n_gap) * BN)
        at = tl.where(i < n_edge, edge + i * BN, at)
        acc = _query_step(
            asked, gradient, log_sum, taken, acc, k, v, at, k_l, v_l, rows, columns, scale * 1.4426950408889634,
            length, prefix, suffix, D, BN, True, UP,
        )  # fmt: skip
    places = dq + (head * length + rows[:, None]) * D + columns[None, :]
    inside = (rows[:, None] < length) & (columns[None, :] < D)
    tl.store(places, (acc * scale).to(dq.dtype.element_ty), mask=inside)


@triton.jit
def _key_step(
    keys, values, dk, dv, q, above, lse, delta, at, q_stride, seen, columns, scale, length, prefix, suffix,
    D: tl.constexpr, BM: tl.constexpr, MASKED: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """One block of rows from `at`: its part of the gradients of keys, before scaling, and values.  [columns, D]"""
    rows = at + tl.arange(0, BM)
    asked = _tile(q, rows, q_stride, length, columns, D, MASKED, UP)
    gradient = _tile(above, rows, D, length, columns, D, MASKED, UP)
    log_sum = tl.load(lse + rows, mask=rows < length, other=0.0)
    taken = tl.load(delta + rows, mask=rows < length, other=0.0)
    weights = tl.exp2(tl.dot(keys, tl.trans(asked), input_precision="ieee") * scale - log_sum[None, :])  # [columns, BM]
    if MASKED:
        bound = _bound(rows, length, prefix, suffix)
        visible = ((seen[:, None] < bound[None, :]) | (seen[:, None] >= length - suffix)) & (rows[None, :] < length)
        weights = tl.where(visible, weights, 0.0)
    dv = tl.dot(weights.to(gradient.dtype), gradient, dv, input_precision="ieee")
    slope = weights * (tl.dot(values, tl.trans(gradient), input_precision="ieee") - taken[None, :])
    return tl.dot(slope.to(asked.dtype), asked, dk, input_precision="ieee"), dv


@triton.jit
def _rows_seeing(first, length, prefix, suffix, BN: tl.constexpr, BM: tl.constexpr):
    """Which blocks of BM rows see the columns first .. first + BN - 1.

    -> (start, opened, closed, end), multiples of BM: the rows from `start` to `end`, without a mask between `opened`
    and `closed`. An anchor is seen by every row, another column by itself and the later ones that are no anchors.
    """
    middle = length - suffix
    some = (first < prefix) | ((suffix > 0) & (first + BN > middle))
    every = (first + BN <= prefix) | ((first >= middle) & (first + BN <= length))
    start = tl.where(some, 0, first // BM * BM)
    stop = tl.where(some, length, middle)
    end = tl.cdiv(stop, BM) * BM
    opened = tl.where(some, tl.where(every, 0, end), tl.minimum(tl.cdiv(first + BN - 1, BM) * BM, end))
    return start, opened, tl.maximum(stop // BM * BM, opened), end


@triton.jit
def _key_gradient(
    q, k, v, above, lse, delta, dk, dv, scale, length, prefix, suffix, heads,
    q_b, q_n, q_l, k_b, k_n, k_l, v_b, v_n, v_l,
    D: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values for the columns of one head."""
    first, head = tl.program_id(0) * BN, tl.program_id(1).to(tl.int64)
    b, n = head // heads, head % heads
    seen, columns = first + tl.arange(0, BN), tl.arange(0, WIDE)
    q, above = q + b * q_b + n * q_n, above + head * length * D
    lse, delta = lse + head * length, delta + head * length
    keys = _tile(k + b * k_b + n * k_n, seen, k_l, length, columns, D, True, UP)  # [columns, D]
    values = _tile(v + b * v_b + n * v_n, seen, v_l, length, columns, D, True, UP)
    dkeys, dvalues = tl.zeros([BN, WIDE], tl.float32), tl.zeros([BN, WIDE], tl.float32)
    start, opened, closed, end = _rows_seeing(first, length, prefix, suffix, BN, BM)
    for at in range(opened, closed, BM):
        dkeys, dvalues = _key_step(
            keys, values, dkeys, dvalues, q, above, lse, delta, at, q_l, seen, columns, scale * 1.4426950408889634,
            length, prefix, suffix, D, BM, False, UP,
        )  # fmt: skip
    n_before = (opened - start) // BM
    for i in range(n_before + (end - closed) // BM):
        at = tl.where(i < n_before, start + i * BM, closed + (i - n_before) * BM)
        dkeys, dvalues = _key_step(
            keys, values, dkeys, dvalues, q, above, lse, delta, at, q_l, seen, columns, scale * 1.4426950408889634,
            length, prefix, suffix, D, BM, True, UP,
        )  # fmt: skip
    inside = (seen[:, None] < length) & (columns[None, :] < D)
    places = (head * length + seen[:, None]) * D + columns[None, :]
    tl.store(dk + places, (dkeys * scale).to(dk.dtype.element_ty), mask=inside)
    tl.store(dv + places, dvalues.to(dv.dtype.element_ty), mask=inside)


class _Attention(torch.autograd.Function):
    """Keeps q, k, v, out and one number per row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, prefix: int, suffix: int) -> Tensor:
        B, N, L, D = q.shape
        out = torch.empty(B, N, L, D, dtype=_kept(q.dtype), device=q.device)
        lse = torch.empty(B, N, L, dtype=torch.float32, device=q.device)
        size = blocks(D, q.dtype, backward=False)
        with on(q.device):
            _forward[triton.cdiv(L, size.rows), B * N](
                q, k, v, out, lse, D**-0.5 * LOG2E, L, prefix, suffix, N, *_strides(q, k, v), D=D, WIDE=_padded(D),
                BM=size.rows, BN=size.columns, SUFFIX=suffix > 0, UP=interpreted(),
                num_warps=size.warps, num_stages=size.stages,
            )  # fmt: skip
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.anchors = prefix, suffix
        return out.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, lse = ctx.saved_tensors
        prefix, suffix = ctx.anchors
        above = above.contiguous()
        B, N, L, D = q.shape
        dq, dk, dv = (torch.empty(B, N, L, D, dtype=_kept(q.dtype), device=q.device) for _ in range(3))
        delta = torch.empty_like(lse)
        size = blocks(D, q.dtype, backward=True)
        rows, columns, heads = triton.cdiv(L, size.rows), triton.cdiv(L, size.columns), B * N
        given = (D**-0.5, L, prefix, suffix, N, *_strides(q, k, v))
        tile = {"D": D, "WIDE": _padded(D), "BM": size.rows, "BN": size.columns, "UP": interpreted()}
        launch = {"num_warps": size.warps, "num_stages": size.stages}
        with on(q.device):
            _delta[rows, heads](out, above, delta, L, D=D, WIDE=_padded(D), BM=size.rows)
            _key_gradient[columns, heads](q, k, v, above, lse, delta, dk, dv, *given, **tile, **launch)
            _query_gradient[rows, heads](q, k, v, above, lse, delta, dq, *given, **tile, SUFFIX=suffix > 0, **launch)
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), None, None


def _kept(dtype: torch.dtype) -> torch.dtype:
    """What results are stored in: the interpreter would cut bf16 off instead of rounding it."""
    return torch.float32 if interpreted() else dtype


def _padded(width: int) -> int:
    """The width of a tile: a power of two that a matrix product accepts."""
    return max(16, triton.next_power_of_2(width))


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Distances of videos, heads and positions in memory, of one tensor after the other."""
    return tuple(stride for x in tensors for stride in x.stride()[:3])


def attention_fused(q: Tensor, k: Tensor, v: Tensor, prefix: int = 0, suffix: int = 0) -> Tensor:
    """q, k, v [B, N, L, D], float32, bfloat16 or float16, D up to 128, any strides -> [B, N, L, D], with gradients."""
    if q.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"q, k, v must be float32, bfloat16 or float16, all the same, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if q.shape[3] > WIDEST:
        raise ValueError(f"heads up to {WIDEST} wide are supported, got {q.shape[3]}")
    if q.numel() == 0:
        return torch.empty_like(q)
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    return _Attention.apply(q, k, v, prefix, suffix)
