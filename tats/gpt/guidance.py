"""Classifier-free guidance: what the condition says, with more weight.

    logits = empty + scale * (conditional - empty)

J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022, for the logits of codes. The transformer must have
been trained with `--cond_dropout`, so that it knows the ids that say that nothing is given.
"""

import torch
from torch import Tensor

from tats.gpt.config import GPTConfig
from tats.gpt.engine import Engine


class Guided:
    """An engine that shows every window twice in one batch, behind its condition and behind the empty one.

    It is called as the engine is, with tokens of n windows, and gives their guided logits. engine: with room for 2n
    windows, the first n behind their condition. empty: int64 [1, n_cond]. scale: 1 gives the conditional logits up to
    rounding, 0 those of the empty condition; above 1 the condition counts for more than in training.
    """

    def __init__(self, engine: Engine, empty: Tensor, scale: float):
        self.engine, self.empty, self.scale = engine, empty, scale

    @property
    def config(self) -> GPTConfig:
        """Of the transformer."""
        return self.engine.config

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.engine.device

    @property
    def order(self) -> Tensor:
        """0, 1, 2, ... up to the positions of a window: int64 [block_size]."""
        return self.engine.order

    @property
    def first_id(self) -> int:
        """The id that the first of the logits belongs to."""
        return self.engine.first_id

    def reset(self) -> None:
        """Forget everything seen: a new window begins."""
        self.engine.reset()

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        row: int = -1,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Show tokens int64 [n, L] at positions [L]; returns the guided logits at `row` of them: [n, V].

        The first tokens of a window are its condition, all of it. Else as `Engine`.
        """
        other = tokens
        if self.engine.cache.length == 0:
            n_cond = self.empty.shape[1]
            other = torch.cat([self.empty.expand(len(tokens), -1), tokens[:, n_cond:]], 1)  # [n, L]
        both = self.engine(torch.cat([tokens, other]), positions, row=row, places=places, mask=mask)  # [2n, V]
        if both.dtype in (torch.float16, torch.bfloat16):
            both = both.float()
        conditional, empty = both.chunk(2)
        return empty + self.scale * (conditional - empty)


Stepper = Engine | Guided  # what windows are filled with
