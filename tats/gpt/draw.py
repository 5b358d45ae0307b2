"""Drawing a code from a row of logits, with one random number per code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tats.flags import UserError
from tats.kernels.draw_code import draw_code, probabilities

Noise = Callable[[int, int], Tensor]  # (frame, n) -> [B, n] in [0, 1)


@dataclass(frozen=True)
class Draw:
    """Picks a code from a row of logits: `draw(logits [B, n], u [B]) -> int64 [B]`.

    top_k: only the k most likely codes, all that equal the k-th included; None, 0 or more than there are: all;
    1: greedy, the first of equals. top_p: after that only the most likely codes whose probabilities sum up to p, the
    one that crosses p included; None or 1: all. temperature: divides the logits first, above 0.
    """

    top_k: int | None = None
    top_p: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 0:
            raise UserError(f"--top_k counts codes: 0 for all, 1 for the most likely, 2, 3, ...; got {self.top_k}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise UserError(f"--top_p is a probability between 0 and 1, got {self.top_p}")
        if not self.temperature > 0:
            raise UserError(f"--temperature must be above 0, got {self.temperature}; --top_k 1 always takes the best")

    def __call__(self, logits: Tensor, u: Tensor) -> Tensor:
        """logits float [B, n], u [B] in [0, 1) -> int64 [B] in [0, n)"""
        return draw_code(logits, u, *self._settings)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What is drawn from: logits [B, n] -> float [B, n], each row sums up to 1."""
        return probabilities(logits, *self._settings)

    @property
    def _settings(self) -> tuple[float, int, float]:
        return self.temperature, self.top_k or 0, 1.0 if self.top_p is None else self.top_p


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0, min_keep: int = 1) -> Tensor:
    """The published filter, for those who compare: [B, n] -> [B, n] with -inf for what can't be drawn.

    top_k 0 and top_p 1 switch their half off. All entries that equal the k-th are kept. `min_keep` above 1 keeps
    min_keep + 1 entries in the half of top_p, as published. The argument is left as it is.
    """
    n = logits.shape[-1]
    if top_k > 0:
        kth = logits.topk(min(max(top_k, min_keep), n), -1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -float("inf"))
    if top_p < 1:
        values, ids = logits.sort(-1, descending=True)
        removed = values.softmax(-1).cumsum(-1) > top_p
        if min_keep > 1:
            removed[:, :min_keep] = False
        removed = torch.cat([torch.zeros_like(removed[:, :1]), removed[:, :-1]], 1)
        logits = logits.masked_fill(torch.zeros_like(removed).scatter_(1, ids, removed), -float("inf"))
    return logits


def seeded_noise(seeds: Sequence[int], device: torch.device | str = "cpu") -> Noise:
    """The noise of videos: uniform numbers that depend on the seed of the video and on the frame, on nothing else.

    Returns (frame, n) -> float64 [len(seeds), n] in [0, 1); a longer row starts like a shorter one.
    """

    def noise(frame: int, n: int) -> Tensor:
        rows = [np.random.Philox(key=[seed % 2**64, frame]).random_raw(n) >> np.uint64(11) for seed in seeds]
        return torch.from_numpy(np.stack(rows).astype(np.float64) * 2.0**-53).to(device)

    return noise


def no_noise(frame: int, n: int) -> Tensor:
    """Noise for greedy drawing, which needs none: zeros [1, n]."""
    return torch.zeros(1, n, dtype=torch.float64)
