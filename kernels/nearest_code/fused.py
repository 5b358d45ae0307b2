"""The nearest code in Triton: tiles of products live in registers, each row keeps its best code alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dispatch import interpreted, on

PROGRAMS = 264  # that are wanted: two for each of the 132 processors of an H100 or H200


@triton.jit
def _nearest(
    vectors, codes, half_norm, best_out, id_out, n, n_codes, width, per_part, v_n, c_n,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Running maximum of `v.e - |e|^2 / 2` over one part of the codes; of equals the first.  -> [parts, n] twice"""
    part = tl.program_id(1)
    rows, depth = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BK)
    v = vectors + rows.to(tl.int64)[:, None] * v_n
    best = tl.full([BM], float("-inf"), tl.float32)
    found = tl.zeros([BM], tl.int32)
    first = part * per_part
    for left in range(first, tl.minimum(first + per_part, n_codes), BN):
        ids = left + tl.arange(0, BN)
        c = codes + ids.to(tl.int64)[:, None] * c_n
        norm = tl.load(half_norm + ids, mask=ids < n_codes, other=float("inf"))
        products = tl.zeros([BM, BN], tl.float32)
        for k in range(0, width, BK):
            at = k + depth[None, :]
            x = tl.load(v + at, mask=(rows[:, None] < n) & (at < width), other=0.0)
            y = tl.load(c + at, mask=(ids[:, None] < n_codes) & (at < width), other=0.0)
            products = tl.dot(x, tl.trans(y), products, input_precision=PRECISION)
        value, place = tl.max(products - norm[None, :], 1, return_indices=True, return_indices_tie_break_left=True)
        better = value > best
        best = tl.where(better, value, best)
        found = tl.where(better, left + place, found)
    to = part.to(tl.int64) * n + rows
    tl.store(best_out + to, best, mask=rows < n)
    tl.store(id_out + to, found, mask=rows < n)


def nearest_code_fused(vectors: Tensor, codes: Tensor, precision: str = "ieee") -> Tensor:
    """vectors [n, D], codes [K, D], float32 -> int64 [n]; memory for one number and one code per vector and part.

    precision: `ieee` multiplies in float32; `tf32x3` takes three products of the tensor cores, which is nearly that.
    """
    if vectors.dtype != torch.float32 or codes.dtype != torch.float32:
        raise ValueError(f"vectors and codes must be float32, got {vectors.dtype} and {codes.dtype}")
    n, n_codes, width = len(vectors), len(codes), vectors.shape[1]
    if n == 0:
        return torch.empty(0, dtype=torch.long, device=vectors.device)
    vectors, codes = (x if x.stride(1) == 1 else x.contiguous() for x in (vectors, codes))
    half_norm = codes.square().sum(1).mul_(0.5)  # [K]
    BM, BN = (64, 64) if interpreted() else (64, 128)
    blocks = triton.cdiv(n, BM)
    parts = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(n_codes, BN), 32)
    per_part = triton.cdiv(triton.cdiv(n_codes, parts), BN) * BN
    parts = triton.cdiv(n_codes, per_part)
    best = torch.empty(parts, n, dtype=torch.float32, device=vectors.device)
    found = torch.empty(parts, n, dtype=torch.int32, device=vectors.device)
    with on(vectors.device):
        _nearest[blocks, parts](
            vectors, codes, half_norm, best, found, n, n_codes, width, per_part, vectors.stride(0), codes.stride(0),
            BM=BM, BN=BN, BK=32, PRECISION=precision, num_warps=8, num_stages=2,
        )  # fmt: skip
    return found.gather(0, best.argmax(0, keepdim=True))[0].long()  # of equals the first part wins
