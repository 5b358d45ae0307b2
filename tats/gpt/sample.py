"""Windows filled by the model: `fill` runs one, `fill_wide` one over a part of a wide picture."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tats.gpt.captured import captured
from tats.gpt.decode import Decoding
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine
from tats.gpt.guidance import Stepper
from tats.gpt.layout import Layout
from tats.gpt.model import published_mask
from tats.gpt.plans import WideWindow
from tats.gpt.wanted import Draws, Wanted

RASTER = Decoding()


def layout_of(engine: Engine, cond: Tensor) -> Layout:
    """The layout of the windows of a model, for a condition [B, n_cond]."""
    config = engine.config
    return Layout(cond.shape[1], *config.latent_shape, config.code_offset)


@torch.inference_mode()
def fill(
    engine: Stepper,
    layout: Layout,
    cond: Tensor,
    codes: Tensor,
    new: range,
    draws: Sequence[Draw],
    u: Tensor,
    how: Decoding = RASTER,
) -> int:
    """Invent the frames of a window at the places `new`, in place; returns the steps that drew them.

    cond [B, n_cond]; codes [B, places, h, w], known in front of and behind `new`; draws: one per new place;
    u float [B or 1, len(new), h*w] in [0, 1). First the model sees what the window holds, then
    code after code is drawn, or as `how` says.
    """
    past, future = codes[:, : new.start], codes[:, new.stop :]
    tokens, positions = layout.known(cond, past, future)  # [B, L], [L]
    engine.reset()
    table = table_places(engine, layout)
    shown = None if table is None else table[:, (positions - layout.n_cond + 1).clamp(min=0)][:, layout.n_cond - 1 :]
    logits = engine(tokens, positions, row=layout.start(new.start) - 1, places=shown)  # [B, n], what follows the past
    return run(engine, layout, codes, new, draws, u, logits, table, how)


def run(
    engine: Stepper,
    layout: Layout,
    codes: Tensor,
    new: range,
    draws: Sequence[Draw],
    u: Tensor,
    logits: Tensor,
    table: Tensor | None = None,
    how: Decoding = RASTER,
) -> int:
    """Draw the codes of the places `new`, the first from `logits`; arguments as in `fill`."""
    if how.way != "raster":
        front = codes[:, new.start - 1].flatten(1) if new.start else None
        begins = torch.tensor([layout.start(new.start)], device=codes.device)
        wanted = Wanted(layout, begins, Draws([draws], codes.device), u, front, table)
        made, steps = how(engine, wanted, logits)
        codes[:, new.start : new.stop] = made.view_as(codes[:, new.start : new.stop])
        return steps
    u = u.expand(len(codes), -1, -1)
    shift = engine.first_id  # ids of logits and ids of tokens differ by this
    last = layout.start(new.stop) - 1
    recorded = captured(engine, table)
    for draw, place, numbers in zip(draws, new, u.unbind(1)):
        if recorded is not None:
            goes_on = place + 1 < new.stop
            start = layout.start(place)
            tokens, logits = recorded(engine, draw, logits, numbers, start, layout.n_cond, goes_on)
            codes[:, place] = (tokens - layout.code_offset).view_as(codes[:, place])
            continue
        frame = torch.empty(len(codes), layout.frame_len, dtype=torch.long, device=codes.device)
        for k in range(layout.frame_len):
            token = draw(logits, numbers[:, k]) + shift  # [B]
            frame[:, k] = token - layout.code_offset
            at = layout.start(place) + k
            if at < last:  # nothing follows the last new code
                logits = show(engine, layout, token[:, None], at, table)
        codes[:, place] = frame.view_as(codes[:, place])
    return len(new) * layout.frame_len - 1


@torch.inference_mode()
def fill_as_published(
    engine: Stepper,
    layout: Layout,
    cond: Tensor,
    codes: Tensor,
    new: range,
    draws: Sequence[Draw],
    u: Tensor,
    how: Decoding = RASTER,
) -> int:
    """`fill` for frames between two known ones, with the positions and rows of the published sampler.

    The last frame stands one position too early and is complete; the first frame does not see it; and the first new
    code follows the last future code instead of the last past one.
    """
    tokens = torch.cat([layout.tokens(cond, codes[:, : new.start]), layout.token(codes[:, new.stop :]).flatten(1)], 1)
    front = layout.start(new.start)
    size = engine.config.block_size
    positions = torch.cat([engine.order[:front], engine.order[size - (tokens.shape[1] - front) :]])
    mask = published_mask(size, engine.config.n_unmasked, codes.device)[: tokens.shape[1], : tokens.shape[1]]
    engine.reset()
    logits = engine(tokens, positions, mask=mask)
    return run(engine, layout, codes, new, draws, u, logits, how=how)


@torch.inference_mode()
def fill_wide(
    engine: Stepper, layout: Layout, cond: Tensor, codes: Tensor, window: WideWindow, draw: Draw, u: Tensor
) -> None:
    """Invent the new codes of a window over a part of a wide picture, in place.

    cond [B, 1]; codes [B, n, H, W] of whole pictures, the frames of the window up to the one that is new; u [B or 1,
    H, W], its numbers. Codes behind the new ones in the order of the window are not looked at.
    """
    place = window.new
    shown = codes[:, : place + 1, window.rows.start : window.rows.stop, window.columns.start : window.columns.stop]
    tokens = layout.tokens(cond, shown)
    table = table_places(engine, layout, window.rows.start, window.columns.start)  # [1, t*h*w, 3] or None
    u = u.expand(len(codes), -1, -1)
    engine.reset()
    front = layout.start(place) + window.new_rows.start * layout.width + window.new_columns.start
    logits = show(engine, layout, tokens[:, :front], 0, table)
    at = front
    for row in window.new_rows:
        if row > window.new_rows.start and window.new_columns.start:  # known codes at the left of the new ones
            begin, end = at, at + window.new_columns.start
            logits = show(engine, layout, tokens[:, begin:end], begin, table)
            at = end
        for column in window.new_columns:
            code = draw(logits, u[:, window.rows[row], window.columns[column]]) + engine.first_id - layout.code_offset
            shown[:, place, row, column] = code
            if row < window.new_rows[-1] or column < window.new_columns[-1]:
                logits = show(engine, layout, layout.token(code)[:, None], at, table)
            at += 1


def show(engine: Stepper, layout: Layout, tokens: Tensor, start: int, table: Tensor | None) -> Tensor:
    """Show tokens that stand one behind the other from position `start` on; logits after the last of them."""
    end = start + tokens.shape[1]
    behind = layout.n_cond - 1  # the last token of the condition is the first to predict a code
    places = None if table is None else table[:, max(start - behind, 0) : end - behind]
    return engine(tokens, engine.order[start:end], places=places)


def table_places(engine: Stepper, layout: Layout, top: int = 0, left: int = 0) -> Tensor | None:
    """Where the codes of a window lie in the table of places, if the model has one: the frame inside the window, rows
    and columns of the whole picture.  int64 [1, t*h*w, 3]"""
    if engine.config.places_shape is None:
        return None
    return (layout.places(engine.device) + torch.tensor([0, top, left], device=engine.device))[None]
