"""Attention of one new token over a static cache."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..dispatch import chosen
from .blas import decode_attention_blas, suits
from .reference import decode_attention_reference

__all__ = ["decode_attention", "decode_attention_blas", "decode_attention_reference"]


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
    if chosen("decode_attention", q.device) == "reference":
        return decode_attention_reference(q, k, v, length)
    if suits(q, length):
        return decode_attention_blas(q, k, v, length, room)
    out = scaled_dot_product_attention(q[:, :, None], k[:, :, :length], v[:, :, :length])  # [B, N, 1, D]
    return out[:, :, 0]
