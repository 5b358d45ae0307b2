"""One new token looks at what is cached, as the definition says it."""

import torch
from torch import Tensor


def decode_attention_reference(q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
    """One new token looks at the first `length` cached ones.  q [B, N, D]; k, v [B, N, L_max, D] -> [B, N, D]"""
    scores = torch.einsum("bnd,bnld->bnl", q, k[:, :, :length]) / q.shape[-1] ** 0.5
    return torch.einsum("bnl,bnld->bnd", scores.softmax(-1), v[:, :, :length])
