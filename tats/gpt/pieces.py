"""Cross entropy over a large vocabulary in pieces of the batch: never are the logits of all positions held.

Each piece makes its logits, its part of the loss and its part of both gradients, and forgets the logits before the
next one begins. No product is done twice: the gradients wait, scaled by one, for the backward pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from tats.gpt.linear import times

PIECE = 1 << 23  # logits at once; in float32, 32 MiB
FEWEST_ROWS = 64  # of a piece, whatever the vocabulary
STRIPE = 4096  # rows of the head's gradient that are added to at once


def loss_in_pieces(
    x: Tensor, weight: Tensor, target: Tensor, ks: Sequence[int] = (1, 5)
) -> tuple[Tensor, list[Tensor]]:
    """Mean cross entropy of the logits x @ weight.T, and the percent of rows whose target is among the k likeliest.

    x float [n, C], weight float [V, C], target int64 [n] in [0, V) -> loss [], and one tensor [1] per k. Products run
    in the format of autocast where it is on, the rest in float32 (float64 for float64). Gradients can be taken once.
    """
    if not len(target):
        raise ValueError("a loss needs at least one position that counts")
    keeps = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    mean, hits = _LossInPieces.apply(x, weight, target, tuple(ks), keeps)
    return mean, list((hits * (100.0 / len(target))).split(1))


class _LossInPieces(torch.autograd.Function):
    """The loss, with both gradients made on the way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, target: Tensor, ks: tuple[int, ...], keeps: bool
    ) -> tuple[Tensor, Tensor]:
        needs_x, needs_weight = (keeps and each for each in ctx.needs_input_grad[:2])
        kind, n = x.device.type, len(x)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        total, hits = x.new_zeros((), dtype=wide), x.new_zeros(len(ks), dtype=torch.float32)
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        with torch.autocast(kind, enabled=False):
            matrix = weight.to(dtype)
            height = max(PIECE // len(weight), FEWEST_ROWS)
            for first in range(0, n, height):
                rows = slice(first, first + height)
                piece, wanted = x[rows].to(dtype), target[rows, None]  # [r, C], [r, 1]
                logits = times(piece, matrix)  # [r, V]
                hits += _hits(logits, wanted, ks)
                scores = log_softmax(logits, 1, dtype=wide)
                total -= scores.gather(1, wanted).sum()
                if not (needs_x or needs_weight):
                    continue
                slope = scores.exp_().scatter_add_(1, wanted, scores.new_full(wanted.shape, -1.0))  # [r, V]
                slope = slope if dtype == wide else logits.copy_(slope)
                del scores, logits
                if grad_x is not None:
                    grad_x[rows] = times(slope, matrix.t())
                if grad_weight is not None:
                    for stripe, columns in zip(grad_weight.split(STRIPE), slope.split(STRIPE, 1)):
                        stripe += times(columns.t(), piece.t())  # [s, C]
        ctx.kept, ctx.rows = (grad_x, grad_weight, weight.dtype), n
        ctx.mark_non_differentiable(hits)
        return total / n, hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.kept is None:
            raise RuntimeError("the gradients of a loss in pieces can be taken only once")
        (grad_x, grad_weight, weight_type), ctx.kept = ctx.kept, None
        share = grad / ctx.rows
        grad_x = None if grad_x is None else grad_x.mul_(share)
        grad_weight = None if grad_weight is None else grad_weight.mul_(share).to(weight_type)
        return grad_x, grad_weight, None, None, None


def _hits(logits: Tensor, wanted: Tensor, ks: tuple[int, ...]) -> Tensor:
    """How many rows have their target among the k likeliest.  logits [r, V], wanted [r, 1] -> [number of ks]"""
    best = logits.topk(min(max(ks), logits.shape[1]), 1).indices  # [r, max(ks)]
    hit = best == wanted
    return torch.stack([hit[:, :k].any(1).sum() for k in ks])
