"""Codes to be invented in windows that may stand at different places, and the ways to invent them one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tats.gpt.draw import Draw
from tats.gpt.guidance import Stepper
from tats.gpt.layout import Layout


class Draws:
    """The draw of every code of a batch whose rows and frames may have settings of their own.

    rows: of each row, the draw of each of its frames; or of one row that stands for all.
    """

    def __init__(self, rows: Sequence[Sequence[Draw]], device: torch.device | str = "cpu"):
        self.kinds = list(dict.fromkeys(draw for row in rows for draw in row))
        self.which = torch.tensor([[self.kinds.index(draw) for draw in row] for row in rows], device=device)

    def __call__(self, logits: Tensor, frame: Tensor, u: Tensor) -> Tensor:
        """logits [B, m, n], frame int64 [B or 1, m] that each of them is for, u [B, m] -> int64 [B, m] in [0, n)"""
        rows, numbers = logits.flatten(0, 1), u.reshape(-1)  # [B*m, n], [B*m]
        if len(self.kinds) == 1:
            return self.kinds[0](rows, numbers).view(u.shape)
        which = self.which.expand(len(u), -1).gather(1, frame.expand(len(u), -1)).flatten()  # [B*m]
        found = torch.empty_like(which)
        for number, draw in enumerate(self.kinds):
            at = (which == number).nonzero()[:, 0]
            if len(at):
                found[at] = draw(rows[at], numbers[at])
        return found.view(u.shape)


@dataclass
class Wanted:
    """The codes that some windows are to invent, equally many in each, counted from 0 in each of them.

    positions int64 [B or 1]: of the first of them in its window; u float [B or 1, frames, h*w] in [0, 1); front int64
    [B, h*w]: the codes of the frame in front, -1 in windows that have none, or None; table: where the codes of a window
    lie in the table of places (`tats.gpt.sample.table_places`), if there is one; rows: the windows of the engine that
    these are (None: all).
    """

    layout: Layout
    positions: Tensor
    draws: Draws
    u: Tensor
    front: Tensor | None = None
    table: Tensor | None = None
    rows: list[int] | None = None

    @property
    def count(self) -> int:
        """How many codes a window gets."""
        return self.u.shape[1] * self.u.shape[2]

    def draw(self, engine: Stepper, logits: Tensor, codes: Tensor) -> Tensor:
        """The codes with the numbers `codes` int64 [B or 1, m]: logits [B, m, n] -> int64 [B, m]."""
        codes = codes.expand(len(logits), -1)
        u = self.u.flatten(1).expand(len(logits), -1).gather(1, codes)
        return self.draws(logits, codes // self.u.shape[2], u) + (engine.first_id - self.layout.code_offset)

    def show(self, engine: Stepper, made: Tensor, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Show `made` int64 [B, m], the codes with the numbers `codes` int64 [B or 1, m], behind what is cached.

        mask: as `Engine` takes it. Returns the logits behind each of them: [B, m, n].
        """
        positions = self.positions[:, None] + codes  # [B or 1, m]
        places = None
        if self.table is not None:
            places = self.table[0, positions - (self.layout.n_cond - 1)]  # [B or 1, m, 3], of what they predict
        positions = positions[0] if len(positions) == 1 else positions
        return engine(self.layout.token(made), positions, row=None, rows=self.rows, places=places, mask=mask)


def raster(engine: Stepper, wanted: Wanted, logits: Tensor) -> tuple[Tensor, int]:
    """Invent the codes one by one, the first from `logits` [B, n]: int64 [B, count], and the steps it took."""
    made = torch.empty(len(logits), wanted.count, dtype=torch.long, device=logits.device)
    numbers = torch.arange(wanted.count, device=logits.device)[None]
    rows = logits[:, None]  # [B, 1, n]
    for k in range(wanted.count):
        one = slice(k, k + 1)
        made[:, one] = wanted.draw(engine, rows, numbers[:, one])
        if k + 1 < wanted.count:  # nothing follows the last
            rows = wanted.show(engine, made[:, one], numbers[:, one])
    return made, wanted.count - 1
