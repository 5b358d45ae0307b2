"""Diagonal decoding: the rows of a latent frame are made at once, each a few codes behind the one above.

A code is drawn when its left neighbour and those above it up to `lag` - 1 columns further right are there; what stands
further right in the rows above is missing from what it sees. That is another distribution than the model's, the closer
the larger `lag` is: with the width of a row it is the model's own. The first code of a row follows the last one of the
row above, which is not there yet: for that one step the code at the same place of the frame in front stands in for it,
or the last known code of that row in a frame that has none in front.
"""

from functools import lru_cache

import torch
from torch import Tensor

from tats.gpt.guidance import Stepper
from tats.gpt.wanted import Wanted


def diagonal(engine: Stepper, wanted: Wanted, logits: Tensor, lag: int) -> tuple[Tensor, int]:
    """Invent the codes in waves, the first code from `logits` [B, n]: int64 [B, count], and the steps it took."""
    layout, device = wanted.layout, logits.device
    lag = min(lag, layout.width)
    made = torch.zeros(len(logits), wanted.count, dtype=torch.long, device=device)
    rows, steps = logits[:, None], 0  # [B, 1, n]
    there: list[int] = []  # codes of this frame that are cached, in their order there
    drawn: list[int] = []  # codes of the last wave
    for start in range(0, wanted.count, layout.frame_len):
        for begins, places in waves(layout.height, layout.width, lag):
            wave = [start + place for place in places]
            if drawn:
                early = [start + place - 1 for place in begins]  # rows begin behind these, which are not drawn yet
                made[:, early] = stand_in(made, early, wanted, lag)
                at = torch.tensor(drawn + early, device=device)[None]  # [1, L]
                mask = sight(there, drawn, early).to(device)
                shown = wanted.show(engine, made[:, at[0]], at, mask)  # [B, L, n]
                rows = shown[:, [(drawn + early).index(code - 1) for code in wave]]  # [B, m, n]
                if early:
                    engine.rewind([n - len(early) for n in engine.seen(wanted.rows)], wanted.rows)
                there += drawn
                steps += 1
            made[:, wave] = wanted.draw(engine, rows, torch.tensor([wave], device=device))
            drawn = wave
        there = []  # all of them stand in front of what comes
    return made, steps


@lru_cache(maxsize=64)
def waves(height: int, width: int, lag: int) -> list[tuple[list[int], list[int]]]:
    """The waves of a frame: codes (row by row, from 0) that begin a row before the row above is complete, and all that
    are drawn."""
    found = []
    for number in range(width + (height - 1) * lag):
        codes = [row * width + number - row * lag for row in range(height) if 0 <= number - row * lag < width]
        begins = [row * width for row in range(1, height) if row * lag == number and lag < width]
        found.append((begins, codes))
    return found


def sight(there: list[int], drawn: list[int], early: list[int]) -> Tensor:
    """Which of the last cached codes and of those that are shown now each of the latter looks at: itself, and what is
    drawn and stands in front of it.  bool [L, len(there) + L]"""
    shown, real = torch.tensor(drawn + early), torch.tensor(there + drawn)
    seen = real <= shown[:, None]  # [L, len(there) + len(drawn)]
    itself = torch.eye(len(shown), dtype=torch.bool)[:, len(drawn) :]  # [L, len(early)]
    return torch.cat([seen, itself], 1)


def stand_in(made: Tensor, early: list[int], wanted: Wanted, lag: int) -> Tensor:
    """What stands in for the codes `early`, the last ones of rows of which `lag` codes are known: [B, len(early)]."""
    frame, width = wanted.layout.frame_len, wanted.layout.width
    if early and early[0] >= frame:
        return made[:, [code - frame for code in early]]
    known = made[:, [code + lag - width for code in early]]
    if wanted.front is None:
        return known
    front = wanted.front[:, early]
    return torch.where(front < 0, known, front)
