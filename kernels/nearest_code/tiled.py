"""The nearest code in tiles: memory for one tile of products, whatever the number of vectors and codes."""

import torch
from torch import Tensor

ROWS, COLUMNS = 1024, 1024  # one tile of float32 products is 4 MiB: it stays in the second-level cache


def nearest_code_tiled(vectors: Tensor, codes: Tensor) -> Tensor:
    """Running maximum of `v.e - |e|^2 / 2` over tiles of codes.  vectors [n, D], codes [K, D] -> int64 [n]

    The largest value stands where `|v|^2 - 2 v.e + |e|^2` is smallest, because `|v|^2` is the same for every code.
    """
    n, width = len(vectors), min(COLUMNS, len(codes))
    best_code = torch.empty(n, dtype=torch.long, device=vectors.device)
    half_norm = codes.pow(2).sum(1).mul_(-0.5)  # [K]
    buffer = vectors.new_empty(min(ROWS, n) * width)
    for top in range(0, n, ROWS):
        rows = vectors[top : top + ROWS]
        best = vectors.new_full((len(rows),), -float("inf"))
        where = torch.zeros(len(rows), dtype=torch.long, device=vectors.device)
        for left in range(0, len(codes), width):
            some = codes[left : left + width]
            score = buffer[: len(rows) * len(some)].view(len(rows), len(some))
            torch.addmm(half_norm[left : left + width], rows, some.t(), out=score)  # [rows, columns]
            value, place = score.max(1)
            better = value > best  # of equals the first code wins, as in one argmin
            best = torch.where(better, value, best)
            where = torch.where(better, place + left, where)
        best_code[top : top + ROWS] = where
    return best_code
