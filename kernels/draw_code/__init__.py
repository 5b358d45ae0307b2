"""Drawing a code from a row of logits with one random number."""

import torch
from torch import Tensor

from ..dispatch import chosen
from .reference import pick, probabilities
from .rows import draw_rows

__all__ = ["draw_code", "pick", "probabilities"]


@torch.no_grad()
def draw_code(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """The code in whose share of [0, 1) the number u falls, in the order of the ids.

    logits float [B, n]; u float [B] or [1] in [0, 1) -> int64 [B] in [0, n). temperature: divides the logits first,
    above 0. top_k: only the k most likely codes, all that equal the k-th included; 0 or more than there are: all; 1:
    greedy, the first of equals. top_p: after that only the most likely codes whose probabilities sum up to p, the one
    that crosses p included; 1: all. No gradient.
    """
    name = chosen("draw_code", logits.device)
    if top_k == 1:
        return logits.argmax(-1)
    if logits.dim() != 2 or u.shape not in ((len(logits),), (1,)):
        raise ValueError(f"logits [B, n] and u [B] expected, got {[*logits.shape]} and {[*u.shape]}")
    if name == "fused":
        from .fused import draw_code_fused

        return draw_code_fused(logits, u, temperature, top_k, top_p)
    if name == "torch" and logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.float64):
        return draw_rows(logits, u, temperature, top_k, top_p)
    return pick(probabilities(logits, temperature, top_k, top_p), u)
