"""The definition of the nearest code, in eager torch."""

import torch
from torch import Tensor


def nearest_code_reference(vectors: Tensor, codes: Tensor) -> Tensor:
    """Whole distance matrix, then its smallest entry per row.  vectors [n, D], codes [K, D] -> int64 [n]"""
    distances = (
        vectors.pow(2).sum(1, keepdim=True) - 2 * vectors @ codes.t() + codes.pow(2).sum(1)[None]  # [n, K]
    )
    return torch.argmin(distances, 1)
