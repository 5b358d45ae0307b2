"""Attention of a whole window, with anchors that everybody sees."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..dispatch import chosen
from .reference import anchor_mask, attention_reference

__all__ = ["anchor_mask", "attention", "attention_reference"]

ROWS = 128  # of a block of products
WORTH = 1 / 8  # of all pairs, that two calls of attention leave out
LONGEST = 512  # window for which the weights of all pairs may be kept


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
    name = chosen("attention", q.device, q.shape[3])
    if name == "reference":
        return attention_reference(q, k, v, prefix, suffix)
    if name == "fused":
        from .fused import attention_fused

        return attention_fused(q, k, v, prefix, suffix)
    return _attention_torch(q, k, v, prefix, suffix)


def _attention_torch(q: Tensor, k: Tensor, v: Tensor, prefix: int, suffix: int) -> Tensor:
    """torch's own attention; short windows in bf16 on a CPU in products."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and ROWS <= q.shape[2] <= LONGEST:
        return _attention_products(q, k, v, prefix, suffix)
    if prefix + suffix == 0:
        return scaled_dot_product_attention(q, k, v, is_causal=True)
    anchors, length = prefix + suffix, q.shape[2]
    if anchors == length:
        return scaled_dot_product_attention(q, k, v)
    if anchors * (length - anchors) > WORTH * length**2:
        return _attention_parts(q, k, v, prefix, suffix)
    return scaled_dot_product_attention(q, k, v, attn_mask=_mask(length, prefix, suffix, q.device))


def _attention_parts(q: Tensor, k: Tensor, v: Tensor, prefix: int, suffix: int) -> Tensor:
    """The anchors among themselves without a mask, then all others over anchors and what comes before them: pairs of an
    anchor and one that it does not see are never computed.  q, k, v [B, N, L, D] -> [B, N, L, D]"""
    inner = slice(prefix, q.shape[2] - suffix)  # no anchors
    q_ends, k_ends, v_ends = (torch.cat([x[:, :, :prefix], x[:, :, inner.stop :]], 2) for x in (q, k, v))
    ends = scaled_dot_product_attention(q_ends, k_ends, v_ends)  # [B, N, prefix + suffix, D]
    k, v = (torch.cat([x_ends, x[:, :, inner]], 2) for x, x_ends in ((k, k_ends), (v, v_ends)))
    seen = _mask(k.shape[2], prefix + suffix, 0, q.device)[prefix + suffix :]  # anchors stand in front now
    middle = scaled_dot_product_attention(q[:, :, inner], k, v, attn_mask=seen)
    return torch.cat([ends[:, :, :prefix], middle, ends[:, :, prefix:]], 2)


def _attention_products(q: Tensor, k: Tensor, v: Tensor, prefix: int, suffix: int) -> Tensor:
    """Scores, softmax and sum as matrix products, `ROWS` rows at a time.  q, k, v [B, N, L, D] -> [B, N, L, D]

    With bf16 units a CPU does these products two to four times faster, forward and backward, than torch's fused
    attention, which spends its time on packing. Its price is memory: training keeps the weights of all pairs.
    """
    shape, length = q.shape, q.shape[2]
    q, k, v = (x.reshape(-1, length, shape[3]) for x in (q, k, v))  # [B*N, L, D]
    bias = _bias(length, prefix, suffix, q.dtype)
    found = []
    for first in range(0, length, ROWS):
        last = min(first + ROWS, length)
        seen = length if suffix else max(last, prefix)  # keys behind these are seen by none of the rows
        scores = torch.baddbmm(bias[first:last, :seen], q[:, first:last], k[:, :seen].mT, alpha=shape[3] ** -0.5)
        found.append(torch.bmm(scores.softmax(-1), v[:, :seen]))  # [B*N, rows, D]
    return torch.cat(found, 1).view(shape)


@lru_cache(maxsize=8)
def _bias(length: int, prefix: int, suffix: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: 0 where one may look, minus infinity elsewhere. On the CPU."""
    with torch.inference_mode(False):
        return torch.zeros(length, length, dtype=dtype).masked_fill_(~anchor_mask(length, prefix, suffix), -torch.inf)


@lru_cache(maxsize=8)
def _mask(length: int, prefix: int, suffix: int, device: torch.device) -> Tensor:
    """The mask of a window, kept because every layer asks for the same one."""
    with torch.inference_mode(False):
        return anchor_mask(length, prefix, suffix, device)
