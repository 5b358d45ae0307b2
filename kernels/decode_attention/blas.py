"""Attention of one new token on a CPU by numpy's BLAS, whose products of a matrix and a vector beat torch's."""

import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SHORT = 64  # below this many cached tokens the calls cost more than the products
PROBE = 512  # cached tokens of the measurement


def decode_attention_blas(q: Tensor, k: Tensor, v: Tensor, length: int, room: Tensor | None = None) -> Tensor:
    """q [B, N, D]; k, v [B, N, L_max, D], float32 or float64 on a CPU -> [B, N, D]

    room: numbers of the same type, at least B * N * length of them, for the weights; None: allocated here.
    """
    room = q.new_empty(q.shape[0] * q.shape[1] * length) if room is None else room
    out = torch.empty_like(q)
    attend_arrays(q.numpy(), k.numpy(), v.numpy(), length, room.numpy(), out.numpy())
    return out


def attend_arrays(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    length: int,
    room: np.ndarray,
    out: np.ndarray,
    hidden: np.ndarray | None = None,
) -> None:
    """The same into `out` [B, N, D], of arrays.  hidden [B, 1, 1, length]: is added to the scores; None: zeros"""
    batch, heads, width = q.shape
    weights = room[: batch * heads * length].reshape(batch, heads, 1, length)
    scaled = np.multiply(q, q.dtype.type(width**-0.5))[:, :, None]  # [B, N, 1, D]
    np.matmul(scaled, k[:, :, :length].swapaxes(2, 3), out=weights)
    if hidden is not None:
        np.add(weights, hidden, out=weights)
    shares = torch.from_numpy(weights)
    torch.softmax(shares, -1, out=shares)
    np.matmul(weights, v[:, :, :length], out=out[:, :, None])


def suits(q: Tensor, length: int) -> bool:
    """True where this way can run (numpy knows the type, nothing asks for a gradient) and was measured to be faster."""
    if q.device.type != "cpu" or length < SHORT or q.dtype not in (torch.float32, torch.float64):
        return False
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and q.requires_grad):
        return False
    return faster(min(q.shape[0] * q.shape[1], 64), q.shape[2], q.dtype, torch.get_num_threads())


@lru_cache(maxsize=64)
def faster(heads: int, width: int, dtype: torch.dtype, threads: int) -> bool:
    """True where numpy's BLAS beats torch's fused attention for one token by a clear margin; measured once."""
    q, k, v = torch.rand(1, heads, width, dtype=dtype), *torch.rand(2, 1, heads, PROBE, width, dtype=dtype)
    room, out = torch.empty(heads * PROBE, dtype=dtype), torch.empty_like(q)
    times: dict[str, list[float]] = {"blas": [], "torch": []}
    for _ in range(20):  # the least of many, because other programs get in between
        start = time.perf_counter()
        attend_arrays(q.numpy(), k.numpy(), v.numpy(), PROBE, room.numpy(), out.numpy())
        middle = time.perf_counter()
        scaled_dot_product_attention(q[:, :, None], k, v)
        times["blas"].append(middle - start)
        times["torch"].append(time.perf_counter() - middle)
    return min(times["blas"]) < 0.9 * min(times["torch"])
