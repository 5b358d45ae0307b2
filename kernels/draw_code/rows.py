"""The draw on a CPU, row by row; orders nothing but the candidates that top-k leaves."""

import numpy as np
import torch
from torch import Tensor


def draw_rows(logits: Tensor, u: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """logits float32 or float64 [B, n] on a CPU, u [B] or [1] -> int64 [B]"""
    rows, numbers = logits.detach().numpy(), np.broadcast_to(u.double().numpy(), len(logits))
    return torch.tensor([draw_row(row, number, temperature, top_k, top_p) for row, number in zip(rows, numbers)])


def draw_row(logits: np.ndarray, u: float, temperature: float, top_k: int, top_p: float) -> int:
    """`pick` of `probabilities` for one row."""
    logits = logits / logits.dtype.type(temperature)
    n = len(logits)
    k = min(top_k or n, n)
    ids = np.arange(n) if k == n else np.flatnonzero(logits >= np.partition(logits, n - k)[n - k])
    weights = np.exp(logits[ids] - logits[ids].max())  # of the candidates, in the order of their ids
    if top_p < 1:
        ordered = np.sort(weights)[::-1]
        shares = np.cumsum(ordered / ordered.sum(), dtype=np.float64).astype(ordered.dtype)
        kept = 1 + int(np.count_nonzero(shares[:-1] <= top_p))  # up to the one that crosses p
        above, equal = weights > ordered[kept - 1], np.flatnonzero(weights == ordered[kept - 1])
        above[equal[: kept - np.count_nonzero(above)]] = True  # of equals, those with the lower ids
        ids, weights = ids[above], weights[above]
    sums = np.cumsum(weights, dtype=np.float64)
    return int(ids[np.searchsorted(sums, min(u * sums[-1], np.nextafter(sums[-1], 0.0)), side="right")])
