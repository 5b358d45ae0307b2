"""Attention of one or a few new tokens over a static cache in Triton, split over the length of the cache.

The first kernel gives each part of the cache to a program of its own, so that few videos fill a GPU as well; the second
joins the parts by the logarithms of their sums. How many parts there are depends on the size of the cache alone, where
they lie on how far it is filled: nothing waits for the host, and a captured CUDA graph serves every length.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import interpreted, on

WIDEST = 128  # of a head
MOST_TOKENS = 16  # new ones at once
PROGRAMS = 528  # that are wanted: four for each of the 132 processors of an H100 or H200


@triton.jit
def _part(
    q, k, v, k_scale, v_scale, lengths, parts, sums, length, scale, heads, n_parts,
    q_b, q_n, q_t, k_b, k_n, k_l, v_b, v_n, v_l, ks_b, ks_n, vs_b, vs_n,
    T: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BN: tl.constexpr,
    EACH: tl.constexpr, EIGHT: tl.constexpr, UP: tl.constexpr,
):  # fmt: skip
    """One part of one head: the weighted mean of its values, float32 [T, D], and the logarithm of its sum [T]."""
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, n = head // heads, head % heads
    if EACH:
        length = tl.load(lengths + b).to(tl.int32)
    step = tl.cdiv(tl.cdiv(length, n_parts), BN) * BN
    first, last = part * step, tl.minimum((part + 1) * step, length)
    tokens, columns = tl.arange(0, ROWS), tl.arange(0, WIDE)
    bound = length - T + 1 + tokens  # the t-th new token sees those before it and itself
    used = (tokens[:, None] < T) & (columns[None, :] < D)
    asked = tl.load(q + b * q_b + n * q_n + tokens[:, None] * q_t + columns[None, :], mask=used, other=0.0)
    asked = asked.to(tl.float32) if UP else asked
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDE], tl.float32)
    for at in range(first, last, BN):
        seen = at + tl.arange(0, BN)
        inside = (seen[:, None] < last) & (columns[None, :] < D)
        keys = tl.load(k + b * k_b + n * k_n + seen[:, None] * k_l + columns[None, :], mask=inside, other=0.0)
        values = tl.load(v + b * v_b + n * v_n + seen[:, None] * v_l + columns[None, :], mask=inside, other=0.0)
        keys, values = keys.to(asked.dtype), values.to(asked.dtype)  # 8 bits fit exactly into each float format
        if T == 1:  # too little for the tensor cores; reading is what takes the time
            scores = tl.sum(asked.to(tl.float32) * keys.to(tl.float32), 1)[None, :] * scale
        else:
            scores = tl.dot(asked, tl.trans(keys), input_precision="ieee") * scale  # [ROWS, BN]
        if EIGHT:
            scores = scores * tl.load(k_scale + b * ks_b + n * ks_n + seen, mask=seen < last, other=0.0)[None, :]
        visible = (seen[None, :] < last) & (seen[None, :] < bound[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(best - shift)
        total = total * fade + tl.sum(weights, 1)
        if EIGHT:
            weights = weights * tl.load(v_scale + b * vs_b + n * vs_n + seen, mask=seen < last, other=0.0)[None, :]
        if T == 1:
            more = tl.sum(tl.trans(weights) * values.to(tl.float32), 0)[None, :]
            acc = acc * fade[:, None] + more
        else:
            acc = tl.dot(weights.to(values.dtype), values, acc * fade[:, None], input_precision="ieee")
        best = higher
    some = tl.where(total > 0, total, 1.0)  # a part behind the filled length has nothing
    place = (head * n_parts + part) * T + tokens
    tl.store(parts + place[:, None] * D + columns[None, :], acc / some[:, None], mask=used)
    tl.store(sums + place, tl.where(total > 0, best + tl.log2(some), float("-inf")), mask=tokens < T)


@triton.jit
def _join(
    parts, sums, out, n_parts, T: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """The parts of one token of one head, each by its share of the sum of all weights.  -> out [B, N, T, D]"""
    row = tl.program_id(0).to(tl.int64)
    token, part, columns = row % T, tl.arange(0, PARTS), tl.arange(0, WIDE)
    place = (row // T * n_parts + part) * T + token
    logs = tl.load(sums + place, mask=part < n_parts, other=float("-inf"))
    shares = tl.exp2(logs - tl.max(logs, 0))
    inside = (part[:, None] < n_parts) & (columns[None, :] < D)
    means = tl.load(parts + place[:, None] * D + columns[None, :], mask=inside, other=0.0)  # [PARTS, D]
    mean = tl.sum(means * shares[:, None], 0) / tl.sum(shares, 0)
    tl.store(out + row * D + columns, mean.to(out.dtype.element_ty), mask=columns < D)


def decode_attention_fused(
    q: Tensor, k: Tensor, v: Tensor, length: int | Tensor, scales: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """q [B, N, T, D], T up to 16; k, v [B, N, L_max, D]; length: how many are cached, T of them new -> [B, N, T, D]

    float32, bfloat16 or float16 with D up to 128; length int or integers [B]; scales: of int8 keys and values, float32
    [B, N, L_max] each. Keys, values and scales behind `length` are not read. No gradient.
    """
    B, N, T, D = q.shape
    if q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"q must be float32, bfloat16 or float16, got {q.dtype}")
    if D > WIDEST or T > MOST_TOKENS:
        raise ValueError(f"heads up to {WIDEST} wide and {MOST_TOKENS} new tokens are supported, got {D} and {T}")
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    k_scale, v_scale = (k, v) if scales is None else (x if x.stride(2) == 1 else x.contiguous() for x in scales)
    each = isinstance(length, Tensor)
    columns = 32 if interpreted() else 64
    n_parts = max(1, min(triton.cdiv(PROGRAMS, B * N), triton.cdiv(k.shape[2], columns), 64))
    parts = torch.empty(B * N, n_parts, T, D, dtype=torch.float32, device=q.device)
    sums = torch.empty(B * N, n_parts, T, dtype=torch.float32, device=q.device)
    kept = torch.float32 if interpreted() else q.dtype  # the interpreter would cut bf16 off instead of rounding it
    out = torch.empty(B, N, T, D, dtype=kept, device=q.device)
    strides = [stride for x in (q, k, v) for stride in x.stride()[:3]]
    strides += [stride for x in (k_scale, v_scale) for stride in x.stride()[:2]]
    wide = max(16, triton.next_power_of_2(D))
    with on(q.device):
        _part[B * N, n_parts](
            q, k, v, k_scale, v_scale, length if each else sums, parts, sums, 0 if each else length,
            D**-0.5 * 1.4426950408889634, N, n_parts, *strides, T=T, ROWS=1 if T == 1 else 16, D=D, WIDE=wide,
            BN=columns, EACH=each, EIGHT=scales is not None, UP=interpreted(), num_warps=4, num_stages=2,
        )  # fmt: skip
        _join[(B * N * T,)](
            parts, sums, out, n_parts, T=T, D=D, WIDE=wide, PARTS=triton.next_power_of_2(n_parts), num_warps=4
        )
    return out.to(q.dtype)
