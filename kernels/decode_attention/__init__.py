"""Attention of one or a few new tokens over a static cache."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..dispatch import chosen
from .blas import attend_arrays, decode_attention_blas, suits
from .cache8 import quantized, widened
from .reference import decode_attention_reference, new_tokens_reference

__all__ = [
    "attend_arrays",
    "decode_attention",
    "decode_attention_blas",
    "decode_attention_reference",
    "decode_new_tokens",
    "new_tokens_reference",
    "quantized",
    "suits",
    "widened",
]


def decode_attention(q: Tensor, k: Tensor, v: Tensor, length: int, room: Tensor | None = None) -> Tensor:
    """One new token looks at the first `length` cached ones; nothing behind them is read.

    q [B, N, D]; k, v [B, N, L_max, D]; 1 <= length <= L_max -> [B, N, D], scaled by 1/sqrt(D). room: B * N * L_max
    numbers that may be overwritten, so that a step allocates nothing that grows with `length`; None: allocated.
    """
    if k.shape != v.shape or k.dim() != 4 or q.shape != (*k.shape[:2], k.shape[3]):
        raise ValueError(
            f"q [B, N, D] and k, v [B, N, L_max, D] expected, got {[*q.shape]}, {[*k.shape]}, {[*v.shape]}"
        )
    if not 1 <= length <= k.shape[2]:
        raise ValueError(f"length must lie in 1..{k.shape[2]}, got {length}")
    name = chosen("decode_attention", q.device, q.shape[2])
    if name == "reference":
        return decode_attention_reference(q, k, v, length)
    if name == "fused":
        from .fused import decode_attention_fused

        return decode_attention_fused(q[:, :, None], k, v, length)[:, :, 0]
    if suits(q, length):
        return decode_attention_blas(q, k, v, length, room)
    out = scaled_dot_product_attention(q[:, :, None], k[:, :, :length], v[:, :, :length])  # [B, N, 1, D]
    return out[:, :, 0]


def decode_new_tokens(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scales: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """A few new tokens per row, the last of the cached ones, look at themselves and at what came before.

    q [B, N, T, D]; k, v [B, N, L_max, D], of q's type, or int8 with `scales` (of keys and of values, float32
    [B, N, L_max] each: `quantized`); lengths int [B]: how many are cached in each row, its T new ones included, not
    checked because that would wait for the device -> [B, N, T, D], scaled by 1/sqrt(D). What lies behind a row's length
    takes no part, whatever stands there.
    """
    if k.shape != v.shape or k.dim() != 4 or q.dim() != 4 or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(
            f"q [B, N, T, D] and k, v [B, N, L_max, D] expected, got {[*q.shape]}, {[*k.shape]}, {[*v.shape]}"
        )
    if lengths.shape != q.shape[:1]:
        raise ValueError(f"lengths must hold one number for each of {q.shape[0]} rows, got {[*lengths.shape]}")
    if (k.dtype == torch.int8) != (scales is not None):
        raise ValueError(f"scales belong to keys and values in int8, and only to them; got {k.dtype}, scales {scales}")
    name = chosen("decode_attention", q.device, q.shape[3])
    if name == "reference":
        return new_tokens_reference(q, k, v, lengths.tolist(), scales)
    if name == "fused":
        from .fused import decode_attention_fused

        return decode_attention_fused(q, k, v, lengths, scales)
    if scales is not None:
        k, v = widened(k, scales[0], q.dtype), widened(v, scales[1], q.dtype)
    at = torch.arange(k.shape[2], device=q.device)
    unfilled = (at >= lengths[:, None])[:, None, :, None]  # [B, 1, L_max, 1]
    ends = lengths[:, None] - q.shape[2] + 1 + torch.arange(q.shape[2], device=q.device)  # [B, T]
    seen = (at < ends[..., None])[:, None]  # [B, 1, T, L_max]
    return scaled_dot_product_attention(q, k.masked_fill(unfilled, 0), v.masked_fill(unfilled, 0), attn_mask=seen)
