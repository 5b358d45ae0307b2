"""Plans: a sampling strategy, written down as windows before any model runs.

`known` is the number of latent frames that are given from the start (a video that is continued); windows that have
nothing left to invent are not in the plan.
"""

from dataclasses import dataclass

from tats.flags import UserError


@dataclass(frozen=True)
class Window:
    """One pass of the model: the video frame at each of its places, and which places it must invent."""

    frames: range
    new: range


@dataclass(frozen=True)
class WideWindow:
    """One pass of the model over a part of a picture beyond the trained size.

    It invents the codes at `new_rows` x `new_columns` (inside the window) of the frame at the place `new`. What stands
    in front of them in the order of the window is known.
    """

    frames: range
    rows: range
    columns: range
    new: int
    new_rows: range
    new_columns: range


def plan_short(frames: int, known: int = 0) -> list[Window]:
    """A single window with everything new behind the known frames."""
    return [Window(range(frames), new=range(known, frames))] if known < frames else []


def plan_long(total: int, context: int, step: int = 1, known: int = 0) -> list[Window]:
    """A first run of `context` frames out of nothing, then frame after frame behind `context` known ones.

    Windows stand `step` apart in the video (coarse models); `total` and `known` count frames of the plan.
    """
    check_context(context, total)
    plan = [Window(range(0, context * step, step), new=range(known, context))] if known < context else []
    return plan + [
        Window(range((t - context) * step, t * step + 1, step), new=range(context, context + 1))
        for t in range(max(context, known), total)
    ]


def plan_between(total: int, step: int, known: int = 0) -> list[Window]:
    """The frames between each pair of known ones that stand `step` apart, and behind `known` ones from the start."""
    if (total - 1) % step:
        raise ValueError(f"{total} frames do not end on a coarse one: they stand {step} apart")
    gaps = [Window(range(t, t + step + 1), new=range(max(known - t, 1), step)) for t in range(0, total - 1, step)]
    return [window for window in gaps if len(window.new)]


def plan_wide(
    total: int, size: tuple[int, int], window: tuple[int, int], context: int, known: int = 0
) -> list[WideWindow]:
    """Frame after frame; in each frame, windows of `window` (rows, columns) slide over a picture of `size`, half a
    window at a time, each inventing what it shows that is not there yet."""
    check_context(context, total)
    for name, whole, part in zip(("rows", "columns"), size, window):
        if whole < part:
            raise UserError(
                f"a picture of {whole} latent {name} is smaller than the trained {part}: ask for {part} or more"
            )
    plan = []
    for t in range(known, total):
        frames = range(max(t - context, 0), t + 1)
        for row, new_rows in _slide(size[0], window[0]):
            for column, new_columns in _slide(size[1], window[1]):
                rows, columns = range(row, row + window[0]), range(column, column + window[1])
                plan.append(WideWindow(frames, rows, columns, len(frames) - 1, new_rows, new_columns))
    return plan


def plan_wide_as_published(
    total: int, size: tuple[int, int], window: tuple[int, int, int], context: int
) -> list[WideWindow]:
    """The published order: code by code through the video, each in a window of its own (frames, rows, columns) that
    shows `context` frames and half a window of the picture in front of it, less at the borders."""
    check_context(context, total, window[0])
    if total < window[0]:
        raise UserError(
            f"the published sampler makes at least the trained {window[0]} latent frames, {total} were asked for"
        )
    plan = []
    for t in range(total):
        start, place = _published_window(t, window[0], total, context)
        for i in range(size[0]):
            top, row = _published_window(i, window[1], size[0], window[1] // 2)
            for j in range(size[1]):
                left, column = _published_window(j, window[2], size[1], window[2] // 2)
                frames = range(start, start + window[0])
                rows, columns = range(top, top + window[1]), range(left, left + window[2])
                plan.append(WideWindow(frames, rows, columns, place, range(row, row + 1), range(column, column + 1)))
    return plan


def _published_window(x: int, length: int, total: int, before: int) -> tuple[int, int]:
    """Where the window of entry `x` of an axis starts, and where `x` stands inside it."""
    if x <= before:
        inside = x
    elif total - x <= length - before:
        inside = length - (total - x)
    else:
        inside = before
    return x - inside, inside


def _slide(whole: int, part: int) -> list[tuple[int, range]]:
    """Starts of windows of length `part` over `whole`, each with what it shows first (counted inside it)."""
    starts = [0]
    while starts[-1] + part < whole:
        starts.append(min(starts[-1] + max(part // 2, 1), whole - part))
    ends = [0] + [start + part for start in starts]
    return [(start, range(seen - start, part)) for start, seen in zip(starts, ends)]


def check_context(context: int, total: int, trained: int | None = None) -> None:
    """A window holds the context and at least one new frame, and the video is not shorter than the first run."""
    if context < 0:
        raise UserError(f"--temporal_sample_pos counts latent frames, got {context}")
    if trained is not None and context >= trained:
        raise UserError(
            f"--temporal_sample_pos {context} leaves no room for a new frame: the transformer was trained on windows "
            f"of {trained} latent frames. Take 0 to {trained - 1}."
        )
    if context > total:
        raise UserError(
            f"--temporal_sample_pos {context} is more than the {total} latent frames asked for. Take 0 to {total}, or "
            f"a longer video."
        )
