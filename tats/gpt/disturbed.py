"""What the model sees in place of codes while it learns, so that it can go on from what is not quite right.

Two ways, both off by default; what should be found stays the true code.

- `--pkeep`: codes are replaced at random, each for itself, as published.
- `--own_codes`: in a share of the windows every code is replaced by what the model itself draws there, from the true
  codes in front of it. A sampler goes on from its own draws, which training otherwise never shows: small errors add up.
  This is scheduled sampling (Bengio et al. 2015, arXiv:1506.03099) in two passes (Mihaylova and Martins 2019,
  arXiv:1906.07651), and costs a pass forward over these windows.

Both depend on the seed, the optimizer step and the clip alone, so that resuming and other splits of a batch change
nothing.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tats.gpt.model import GPT
from tats.gpt.objective import new_codes, predict

RANDOM, OWN = 0, 2  # streams of random numbers


def at_random(gpt: GPT, share: float, clips: Iterable[int], n: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Which codes stay, each with probability `share`, and ids of the whole vocabulary for the others: bool and int64
    [B, n]."""
    rows = []
    for numbers in _numbers(seed, step, clips, RANDOM):
        rows.append((numbers.random(n) < share, numbers.integers(gpt.config.vocabulary, size=n)))
    keep, ids = (torch.from_numpy(np.stack(column)) for column in zip(*rows))
    return keep, ids


@torch.no_grad()
def own_draws(
    gpt: GPT,
    share: float,
    cond: Tensor,
    codes: Tensor,
    clips: Iterable[int],
    seed: int,
    step: int,
    places: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Which codes stay, and what the model draws for the others: bool and int64 ids [B, t*h*w].

    cond int64 [B, n_cond], codes int64 [B, t, h, w], places as `GPT.forward`. A window is replaced as a whole, with
    probability `share`; with anchors only the codes between them, since anchors come from elsewhere when sampling.
    """
    offset, n = gpt.config.code_offset, codes[0].numel()
    rows = [(numbers.random() >= share, numbers.random(n)) for numbers in _numbers(seed, step, clips, OWN)]
    stays = torch.tensor([row[0] for row in rows])
    uniform = torch.from_numpy(np.stack([row[1] for row in rows])).to(codes.device)  # [B, n]
    ids = codes.flatten(1) + offset
    keep = torch.ones_like(ids, dtype=torch.bool)
    picked = (~stays).nonzero()[:, 0].to(codes.device)
    if not len(picked):
        return keep, ids
    new = new_codes(gpt, n)
    logits, _ = predict(gpt, cond[picked], codes[picked], places=None if places is None else places[picked])
    below = logits[:, new, offset:].float().softmax(-1).cumsum(-1)  # [b, new, n_codes]
    drawn = (below < uniform[picked, new, None].float() * below[..., -1:]).sum(-1)  # the smallest code that reaches it
    ids[picked, new] = drawn.clamp(max=gpt.config.n_codes - 1) + offset
    keep[picked, new] = False
    return keep, ids


def _numbers(seed: int, step: int, clips: Iterable[int], stream: int) -> Iterable[np.random.Generator]:
    """Random numbers of each clip."""
    for clip in clips:
        yield np.random.Generator(np.random.Philox(key=[seed % 2**64, step], counter=[0, stream, 0, clip]))
