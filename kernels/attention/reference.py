"""Attention with anchors, as the definition says it."""

import torch
from torch import Tensor


def anchor_mask(length: int, prefix: int, suffix: int, device: torch.device | str | None = None) -> Tensor:
    """Who sees whom: bool [length, length], rows ask and columns answer.

    The first `prefix` and the last `suffix` positions are anchors. Everybody sees every anchor; a position that is not
    an anchor also sees itself and what comes before. Without anchors this is the causal mask.
    """
    at = torch.arange(length, device=device)
    anchor = (at < prefix) | (at >= length - suffix)
    causal = at[:, None] >= at[None, :]
    return anchor[None, :] | (causal & ~anchor[:, None])


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention under any mask.  q [B, N, L, D]; k, v [B, N, M, D]; mask bool [L, M] -> [B, N, L, D]"""
    scores = torch.einsum("bnld,bnmd->bnlm", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, -float("inf")).softmax(-1)
    return torch.einsum("bnlm,bnmd->bnld", weights, v)


def attention_reference(q: Tensor, k: Tensor, v: Tensor, prefix: int = 0, suffix: int = 0) -> Tensor:
    """Attention with `prefix` anchors in front and `suffix` at the end.  q, k, v [B, N, L, D] -> [B, N, L, D]"""
    return masked_attention(q, k, v, anchor_mask(q.shape[2], prefix, suffix, q.device))
