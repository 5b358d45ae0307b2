"""The draw on a CPU; orders nothing but the candidates that top-k leaves."""

import numpy as np
import torch
from torch import Tensor


def draw_rows(logits: Tensor, u: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """logits float32 or float64 [B, n] on a CPU, u [B] or [1] -> int64 [B]"""
    rows, numbers = logits.detach().numpy(), np.broadcast_to(u.double().numpy(), len(logits))
    if temperature != 1:
        rows = rows / rows.dtype.type(temperature)
    k = min(top_k or rows.shape[1], rows.shape[1])
    bounds, best, tied = _bounds(rows, k, top_p)
    found = np.empty(len(rows), np.int64)
    for b, (row, number) in enumerate(zip(rows, numbers)):
        if tied[b]:
            found[b] = _draw_tied(row, number, k, top_p)
        else:
            ids = np.flatnonzero(row >= bounds[b])
            found[b] = _pick(ids, np.exp(row[ids] - best[b]), number)
    return torch.from_numpy(found)


def _bounds(rows: np.ndarray, k: int, top_p: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least logit of each row that is drawn from, the largest, and whether equals decide who else is.  Each [B]"""
    n = rows.shape[1]
    tied = np.zeros(len(rows), bool)
    if k == n and top_p >= 1:
        return np.full(len(rows), -np.inf, rows.dtype), rows.max(1), tied
    best = rows if k == n else np.partition(rows, n - k, 1)[:, n - k :]  # [B, k]
    if top_p >= 1:
        return best[:, 0], best.max(1), tied
    ordered = np.sort(best, 1)[:, ::-1]  # [B, k], the largest first
    weights = np.exp(ordered - ordered[:, :1])
    shares = np.cumsum(weights / weights.sum(1, keepdims=True), 1, np.float64).astype(weights.dtype)
    kept = np.count_nonzero(shares[:, :-1] <= top_p, 1)  # behind the first: up to the one that crosses p
    every = np.arange(len(rows))
    tied = np.count_nonzero(weights >= weights[every, kept, None], 1) > kept + 1
    if k < n:
        tied |= np.count_nonzero(rows >= ordered[:, -1:], 1) > k
    return ordered[every, kept], ordered[:, 0], tied


def _draw_tied(logits: np.ndarray, u: float, k: int, top_p: float) -> int:
    """One row where equals stand at a bound: all that equal the k-th are candidates, and of those that equal the last
    one of top-p the first by their ids are kept."""
    n = len(logits)
    ids = np.arange(n) if k == n else np.flatnonzero(logits >= np.partition(logits, n - k)[n - k])
    weights = np.exp(logits[ids] - logits[ids].max())  # of the candidates, in the order of their ids
    ordered = np.sort(weights)[::-1]
    shares = np.cumsum(ordered / ordered.sum(), dtype=np.float64).astype(ordered.dtype)
    kept = 1 + int(np.count_nonzero(shares[:-1] <= top_p))  # up to the one that crosses p
    above, equal = weights > ordered[kept - 1], np.flatnonzero(weights == ordered[kept - 1])
    above[equal[: kept - np.count_nonzero(above)]] = True
    return _pick(ids[above], weights[above], u)


def _pick(ids: np.ndarray, weights: np.ndarray, u: float) -> int:
    """The id in whose share of the sum of weights the number falls."""
    sums = np.cumsum(weights, dtype=np.float64)
    return int(ids[np.searchsorted(sums, min(u * sums[-1], np.nextafter(sums[-1], 0.0)), side="right")])
