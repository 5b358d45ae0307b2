"""Classifier-free guidance: what the condition says, with more weight.

    logits = empty + scale * (conditional - empty)

J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance", 2022, for the logits of codes. The transformer must have
been trained with `--cond_dropout`, so that it knows the ids that say that nothing is given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tats.gpt.config import GPTConfig
from tats.gpt.engine import Engine


class Guided:
    """An engine that shows every window twice in one batch, behind its condition and behind the empty one.

    It is called as the engine is, with tokens of n windows, and gives their guided logits. engine: with room for 2n
    windows, the first n behind their condition. empty: int64 [1, n_cond]. scale: 1 gives the conditional logits up to
    rounding, 0 those of the empty condition; above 1 the condition counts for more than in training; a float [n]: of
    each window.
    """

    def __init__(self, engine: Engine, empty: Tensor, scale: float | Tensor):
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

    def reset(self, rows: Tensor | Sequence[int] | None = None) -> None:
        """Forget everything that some of the n windows have seen (None: all): new ones begin."""
        self.engine.reset(self._both(rows))

    def seen(self, rows: Sequence[int] | None = None) -> list[int]:
        """How many positions some windows have seen (None: all)."""
        return self.engine.seen(range(self.engine.batch // 2) if rows is None else rows)

    def rewind(self, lengths: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """Forget what some windows (None: all) have seen behind the first `lengths` positions of each."""
        self.engine.rewind([*lengths, *lengths], self._both(rows))

    def _both(self, rows: Tensor | Sequence[int] | None) -> list[int] | None:
        """Windows of the engine: these behind their condition, then behind the empty one."""
        if rows is None:
            return None
        first = [int(row) for row in rows]
        return first + [row + self.engine.batch // 2 for row in first]

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        row: int | None = -1,
        rows: Tensor | Sequence[int] | None = None,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Show tokens int64 [n, L] at positions [L] or [n, L]; returns the guided logits at `row` of them: [n, V].

        The first tokens of a window are its condition, all of it; windows that begin are not shown together with
        others. Else as `Engine`.
        """
        other, both_rows = tokens, self._both(rows)
        if max(self.engine.cache.seen(both_rows)) == 0:
            n_cond = self.empty.shape[1]
            other = torch.cat([self.empty.expand(len(tokens), -1), tokens[:, n_cond:]], 1)  # [n, L]
        tokens = torch.cat([tokens, other])  # [2n, L]
        if positions.dim() == 2:
            positions = torch.cat([positions, positions])
        if places is not None and len(places) > 1:
            places = torch.cat([places, places])
        both = self.engine(tokens, positions, row=row, rows=both_rows, places=places, mask=mask)  # [2n, V]
        if both.dtype in (torch.float16, torch.bfloat16):
            both = both.float()
        conditional, empty = both.chunk(2)
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = (scale if rows is None else scale[torch.as_tensor(rows)]).view(-1, *[1] * (both.dim() - 1))
        return empty + scale * (conditional - empty)


Stepper = Engine | Guided  # what windows are filled with
