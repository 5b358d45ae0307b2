"""Attention of a whole window, with anchors that everybody sees."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..dispatch import chosen
from .reference import anchor_mask, attention_reference

__all__ = ["anchor_mask", "attention", "attention_reference"]


def attention(q: Tensor, k: Tensor, v: Tensor, prefix: int = 0, suffix: int = 0) -> Tensor:
    """Everybody sees the anchors; who is no anchor also sees itself and what comes before.

    q, k, v [B, N, L, D], any float type -> [B, N, L, D], scaled by 1/sqrt(D). The first `prefix` and the last `suffix`
    positions are the anchors; with none this is causal attention. Raises ValueError when the shapes differ or the
    anchors do not fit into L.
    """
    if not q.shape == k.shape == v.shape or q.dim() != 4:
        raise ValueError(f"q, k, v must share one shape [B, N, L, D], got {[*q.shape]}, {[*k.shape]}, {[*v.shape]}")
    if prefix < 0 or suffix < 0 or prefix + suffix > q.shape[2]:
        raise ValueError(f"{prefix} anchors in front and {suffix} at the end do not fit into {q.shape[2]} positions")
    if chosen("attention", q.device) == "reference":
        return attention_reference(q, k, v, prefix, suffix)
    return _attention_torch(q, k, v, prefix, suffix)


def _attention_torch(q: Tensor, k: Tensor, v: Tensor, prefix: int, suffix: int) -> Tensor:
    """Two calls that torch has fast code for: anchors among themselves, and the others behind them."""
    length = q.shape[2]
    if prefix + suffix == 0:
        return scaled_dot_product_attention(q, k, v, is_causal=True)
    # In the order [prefix, suffix, middle] the rule is a plain prefix mask: anchors see the anchors, the middle sees
    # all of them and itself causally.
    keys, values = (torch.cat([x[:, :, :prefix], x[:, :, length - suffix :], x[:, :, prefix : length - suffix]], 2)
                    for x in (k, v))  # fmt: skip
    anchors = prefix + suffix
    ends = torch.cat([q[:, :, :prefix], q[:, :, length - suffix :]], 2)  # [B, N, anchors, D]
    ends = scaled_dot_product_attention(ends, keys[:, :, :anchors], values[:, :, :anchors])
    middle = q[:, :, prefix : length - suffix]  # [B, N, L - anchors, D]
    if middle.shape[2]:
        at = torch.arange(length, device=q.device)
        seen = at[None, :] <= at[anchors:, None]  # [L - anchors, L]
        middle = scaled_dot_product_attention(middle, keys, values, attn_mask=seen)
    return torch.cat([ends[:, :, :prefix], middle, ends[:, :, prefix:]], 2)
