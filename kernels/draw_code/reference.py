"""The definition of the draw, in eager torch."""

import torch
from torch import Tensor

FIRST_LOOK = 128  # candidates looked at before a whole row is sorted


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """What is drawn from: logits [B, n] -> float [B, n], each row sums up to 1."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    logits = logits / temperature
    n = logits.shape[-1]
    k = min(top_k or n, n)
    if k < n:
        kth = logits.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)  # [B, 1]
        logits = logits.masked_fill(logits < kth, -float("inf"))
    return _nucleus(logits, top_p) if top_p < 1 else logits.softmax(-1)


def _nucleus(logits: Tensor, p: float) -> Tensor:
    """Probabilities of the most likely entries up to the one whose predecessors sum up to more than p.  [B, n]"""
    shares = logits.softmax(-1)
    n = logits.shape[-1]
    look = min(FIRST_LOOK, n) if logits.device.type == "cpu" else n  # whether it is enough, a GPU would have to tell
    ids = logits.topk(look, -1).indices  # [B, look], most likely first
    values = shares.gather(-1, ids)
    if look < n and bool((values.sum(-1) <= p).any()):  # some row is flatter than that: sort whole rows
        ids = logits.argsort(-1, descending=True)
        values = shares.gather(-1, ids)
    removed = values.cumsum(-1)[:, :-1] > p  # everything behind the entry that crosses p
    values[:, 1:] = values[:, 1:].masked_fill(removed, 0.0)
    values = values / values.sum(-1, keepdim=True)
    return torch.zeros_like(shares).scatter_(-1, ids, values)


def pick(probabilities: Tensor, u: Tensor) -> Tensor:
    """The entry in whose share of [0, 1) the number u falls.  [B, n], [B] -> int64 [B]; never one of probability 0."""
    sums = probabilities.double().cumsum(-1)  # [B, n]
    total = sums[:, -1:]
    at = torch.minimum(u[:, None].to(sums) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, at, right=True)[:, 0]
