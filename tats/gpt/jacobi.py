"""Jacobi decoding: several codes are guessed, looked at in one pass, and kept as far as the guesses were right.

Every code is drawn with the one random number of its place. So code k is a function of the codes in front of it, and
the video is the one fixed point of all these functions: drawing all codes of a block at once behind guesses, again and
again, ends there. What is kept after a pass are the codes whose guesses in front were all right, and the first that was
not: the very codes that are drawn one by one, up to the rounding of matrix products, so the distribution is theirs too.

The parallel iteration is that of Y. Song et al., "Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving", 2021.
"""

import torch
from torch import Tensor

from tats.gpt.guidance import Stepper
from tats.gpt.wanted import Wanted


def jacobi(engine: Stepper, wanted: Wanted, logits: Tensor, block: int) -> tuple[Tensor, int]:
    """Invent the codes, up to `block` per pass, the first from `logits` [B, n]: int64 [B, count], and the steps.

    A window that is guessed well runs ahead of the others.
    """
    count, device = wanted.count, logits.device
    made = torch.zeros(len(logits), count, dtype=torch.long, device=device)
    made[:, :1] = wanted.draw(engine, logits[:, None], made.new_zeros(1, 1))
    done = made.new_ones(len(logits), 1)  # codes of each window that are final
    reach = done.clone()  # codes of each window that are final or guessed
    width, steps = min(block, count - 1), 0
    ahead = torch.arange(width, device=device)
    known = engine.seen(wanted.rows)
    while int(done.min()) < count:
        begin = (done - 1).clamp(max=count - 1 - width)  # [B, 1], the last that is final; less near the end
        at = begin + ahead  # [B, W]
        guess(made, at, reach, wanted)
        engine.rewind([n + more for n, more in zip(known, begin[:, 0].tolist())], wanted.rows)
        shown = wanted.show(engine, made.gather(1, at), at)  # [B, W, n]
        before = made.gather(1, at + 1)  # [B, W]
        found = torch.where(at + 1 < done, before, wanted.draw(engine, shown, at + 1))
        right = (found == before).cumprod(1)  # 1 as long as all guesses were right
        made.scatter_(1, at + 1, found)
        done = begin + 2 + right[:, :-1].sum(1, keepdim=True)
        reach = torch.maximum(reach, begin + width + 1)
        steps += 1
    return made, steps


def guess(made: Tensor, at: Tensor, reach: Tensor, wanted: Wanted) -> None:
    """Guess the codes `at` int64 [B, W] of `made` [B, count] that lie behind `reach` [B, 1], in place: the code at the
    same place of the frame in front, else the one above, else the first."""
    frame, row = wanted.layout.frame_len, wanted.layout.width
    above = made.gather(1, (at - row).clamp(min=0))
    if wanted.front is not None:
        front = wanted.front.gather(1, at.clamp(max=frame - 1))
        above = torch.where(front < 0, above, front)
    guessed = torch.where(at < frame, above, made.gather(1, (at - frame).clamp(min=0)))
    made.scatter_(1, at, torch.where(at < reach, made.gather(1, at), guessed))
