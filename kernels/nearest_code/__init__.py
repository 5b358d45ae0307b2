"""Nearest code: which row of a codebook lies closest to each vector."""

import torch
from torch import Tensor

from ..dispatch import chosen
from .reference import nearest_code_reference
from .tiled import nearest_code_tiled


@torch.no_grad()
def nearest_code(vectors: Tensor, codes: Tensor) -> Tensor:
    """The code with the smallest squared distance to each vector; of equals the first.

    vectors [n, D], codes [K, D], both float and on one device -> int64 [n] in [0, K). Half precision is computed in
    float32. Neither a distance matrix [n, K] nor a one-hot matrix is ever stored. No gradient.
    """
    if vectors.ndim != 2 or codes.ndim != 2 or vectors.shape[1] != codes.shape[1]:
        raise ValueError(f"vectors [n, D] and codes [K, D] must share D, got {vectors.shape} and {codes.shape}")
    if len(codes) == 0:
        raise ValueError("codes must hold at least one row")
    with torch.autocast(vectors.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(vectors.dtype, codes.dtype), torch.float32)
        vectors, codes = vectors.to(dtype), codes.to(dtype)
        name = chosen("nearest_code", vectors.device, vectors.shape[1])
        if name == "reference":
            return nearest_code_reference(vectors, codes)
        if name == "fused":
            from .fused import nearest_code_fused

            return nearest_code_fused(vectors, codes)
        return nearest_code_tiled(vectors, codes)
