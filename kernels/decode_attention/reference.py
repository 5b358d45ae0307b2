"""New tokens look at what is cached, as the definition says it."""

import torch
from torch import Tensor

from .cache8 import widened


def decode_attention_reference(q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
    """One new token looks at the first `length` cached ones.  q [B, N, D]; k, v [B, N, L_max, D] -> [B, N, D]"""
    scores = torch.einsum("bnd,bnld->bnl", q, k[:, :, :length]) / q.shape[-1] ** 0.5
    return torch.einsum("bnl,bnld->bnd", scores.softmax(-1), v[:, :, :length])


def new_tokens_reference(
    q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scales: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """T new tokens per row, the last of `lengths[b]` cached ones: each sees itself and what came before.

    q [B, N, T, D]; k, v [B, N, L_max, D], int8 with their scales [B, N, L_max] -> [B, N, T, D]
    """
    rows = []
    for b, length in enumerate(lengths):
        keys, values = k[b : b + 1, :, :length], v[b : b + 1, :, :length]
        if scales is not None:
            keys = widened(keys, scales[0][b : b + 1, :, :length], q.dtype)
            values = widened(values, scales[1][b : b + 1, :, :length], q.dtype)
        ends = range(length - q.shape[2] + 1, length + 1)
        found = [decode_attention_reference(q[b : b + 1, :, t], keys, values, end) for t, end in enumerate(ends)]
        rows.append(torch.stack(found, 2))  # [1, N, T, D]
    return torch.cat(rows)
