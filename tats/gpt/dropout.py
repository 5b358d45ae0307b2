"""Training without the condition, now and then: what guidance (`tats.gpt.guidance`) needs a transformer to know."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tats.gpt.condition import empty_condition
from tats.gpt.config import GPTConfig

STREAM = 1  # keeps these numbers apart from others that come from (seed, step, clip)


def leave_out(
    config: GPTConfig, cond: Tensor, clips: Iterable[int], seed: int, step: int, whole: float, each: float = 0.0
) -> Tensor:
    """Conditions int64 [B, n_cond] of a training batch, some of them replaced by the ids that say nothing.

    whole: share of clips that lose all of it; each: share that every part by itself is left out of. What a clip loses
    depends on (seed, step, clip) alone, not on the batch, the process or the worker it comes from.
    """
    empty = empty_condition(config, 1, cond.device)[0]  # [n_cond]
    kept = torch.ones(cond.shape, dtype=torch.bool)
    for row, clip in zip(kept, clips, strict=True):
        numbers = np.random.Generator(np.random.Philox(key=[seed % 2**64, step], counter=[0, STREAM, 0, clip]))
        everything, *parts = numbers.random(1 + len(config.parts)).tolist()
        for part, number in zip(config.parts, parts):
            row[part.start : part.start + part.n_cond] = everything >= whole and number >= each
    return torch.where(kept.to(cond.device), cond, empty)
