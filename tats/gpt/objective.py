"""What the transformer is trained to do: say which code follows, and how well it does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tats.gpt.layout import Layout
from tats.gpt.model import GPT
from tats.gpt.pieces import loss_in_pieces


@dataclass(frozen=True)
class Window:
    """What the model is shown of a window, and what it should find.

    tokens int64 [B, L]; target int64 [B, n]: the ids that the last n positions should find; places: as `GPT.forward`.
    """

    tokens: Tensor
    target: Tensor
    places: Tensor | None


def window(
    gpt: GPT,
    cond: Tensor,
    codes: Tensor,
    *,
    places: Tensor | None = None,
    keep: Tensor | None = None,
    random: Tensor | None = None,
) -> Window:
    """A window of codes behind its condition.

    cond int64 [B, n_cond], codes int64 [B, t, h, w]; places: as `GPT.forward`; keep: bool [B, t*h*w], false where the
    model sees the id in `random` [B, t*h*w] in place of the code (what it should find stays).
    """
    t, h, w = codes.shape[1:]
    target = Layout(cond.shape[1], t, h, w, gpt.config.code_offset).token(codes).flatten(1)  # [B, t*h*w]
    seen = target
    if keep is not None and random is not None:
        seen = torch.where(keep.bool(), target, random)
    return Window(torch.cat([cond, seen], 1)[:, :-1], target, places)


def predict(
    gpt: GPT,
    cond: Tensor,
    codes: Tensor,
    *,
    places: Tensor | None = None,
    keep: Tensor | None = None,
    random: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits for every code of a window, and the ids they should find; arguments as for `window`.

    Returns logits [B, t*h*w, V] and target int64 [B, t*h*w], ids of the common vocabulary.
    """
    shown = window(gpt, cond, codes, places=places, keep=keep, random=random)
    return gpt(shown.tokens, places=places)[:, -shown.target.shape[1] :], shown.target


def learn(gpt: GPT, shown: Window, counted: slice = slice(None)) -> tuple[Tensor, list[Tensor]]:
    """The loss of a batch, and its accuracies: `loss` and `accuracy` of `predict`, without all logits at once.

    counted: which of the n codes of the window count. Logits are made, used and forgotten in pieces.
    """
    n = shown.target.shape[1]

    def end(x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
        rows, target = x[:, -n:][:, counted], shown.target[:, counted]  # [B, m, C], [B, m]
        return loss_in_pieces(rows.flatten(0, 1), weight, target.flatten())

    return gpt(shown.tokens, places=shown.places, then=end)


def new_codes(gpt: GPT, n: int) -> slice:
    """Which of the `n` codes of a window the model can't see: with anchors, those between first and last frame."""
    u = gpt.config.n_unmasked
    return slice(u, n - u)


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, mean over all positions.  [B, n, V], [B, n] -> []"""
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))


def accuracy(logits: Tensor, target: Tensor, ks: Sequence[int] = (1, 5)) -> list[Tensor]:
    """Percent of positions whose target is among the k most likely ids, for each k.

    logits [..., V], target [...] -> one tensor [1] per k.
    """
    best = logits.flatten(0, -2).topk(min(max(ks), logits.shape[-1]), -1).indices  # [n, max(ks)]
    hit = best == target.reshape(-1, 1)
    return [hit[:, :k].any(-1).sum(0, keepdim=True) * (100.0 / len(hit)) for k in ks]


def crop_places(shape: Sequence[int], boxes: Tensor, times: Tensor | None = None) -> Tensor:
    """Where the codes of cropped windows lie in the table of places: int64 [B, t*h*w, 3] (frame, row, column).

    shape: frames, rows, columns of a window. boxes int64 [B, 4]: first row, end of rows, first column, end of columns.
    times int64 [B, 2]: first frame and end; None: from frame 0 on.
    """
    axes = [torch.arange(n, device=boxes.device) for n in shape]
    inside = torch.cartesian_prod(*axes)  # [t*h*w, 3]
    start = torch.zeros_like(boxes[:, 0]) if times is None else times[:, 0]
    return inside + torch.stack([start, boxes[:, 0], boxes[:, 2]], 1)[:, None]  # [B, t*h*w, 3]
