"""Plans: a sampling strategy, written down as windows before any model runs.

`known` is the number of latent frames that are there from the start (a video that is continued, or goes on after it was
stopped); windows that have nothing left to invent are not in the plan.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

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


W = TypeVar("W", Window, WideWindow)


class Plan(Generic[W]):
    """Windows in the order in which they run, each worked out when it is asked for: any length takes no room."""

    def __init__(self, length: int, window: Callable[[int], W]):
        self._length = length
        self._window: Callable[[int], W] = window

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> W:
        if not -self._length <= number < self._length:
            raise IndexError(f"this plan has {self._length} windows, number {number} was asked for")
        return self._window(number % self._length)

    def __iter__(self) -> Iterator[W]:
        return map(self._window, range(self._length))


def plan_short(frames: int, known: int = 0) -> Plan[Window]:
    """A single window with everything new behind the known frames."""
    return Plan(int(known < frames), lambda _: Window(range(frames), new=range(known, frames)))


def plan_long(total: int, context: int, step: int = 1, known: int = 0) -> Plan[Window]:
    """A first run of `context` frames out of nothing, then frame after frame behind `context` known ones.

    Windows stand `step` apart in the video (coarse models); `total` and `known` count frames of the plan.
    """
    check_context(context, total)
    first = int(known < context)  # 1: there is a first run
    start = max(context, known)

    def window(number: int) -> Window:
        if number < first:
            return Window(range(0, context * step, step), new=range(known, context))
        t = start + number - first
        return Window(range((t - context) * step, t * step + 1, step), new=range(context, context + 1))

    return Plan(first + max(total - start, 0), window)


def plan_between(total: int, step: int, known: int = 0) -> Plan[Window]:
    """The frames between each pair of known ones that stand `step` apart, and behind `known` ones from the start."""
    if (total - 1) % step:
        raise ValueError(f"{total} frames do not end on a coarse one: they stand {step} apart")
    first = known // step  # the first gap with an unknown frame
    count = max((total - 1) // step - first, 0) if step > 1 else 0

    def window(number: int) -> Window:
        t = (first + number) * step
        return Window(range(t, t + step + 1), new=range(max(known - t, 1), step))

    return Plan(count, window)


def gap_group(gap: int, most: int) -> range:
    """The gaps that are filled as one batch together with this one: 1, then 2, then 4, and so on up to `most`.

    So a video begins after its first gap, and soon as many as possible run at once.
    """
    start, size = 0, 1
    while size < most and start + size <= gap:
        start, size = start + size, min(2 * size, most)
    start += (gap - start) // size * size
    return range(start, start + size)


def plan_wide(
    total: int, size: tuple[int, int], window: tuple[int, int], context: int, known: int = 0
) -> Plan[WideWindow]:
    """Frame after frame; in each frame, windows of `window` (rows, columns) slide over a picture of `size`, half a
    window at a time, each inventing what it shows that is not there yet."""
    check_context(context, total)
    for name, whole, part in zip(("rows", "columns"), size, window):
        if whole < part:
            raise UserError(
                f"a picture of {whole} latent {name} is smaller than the trained {part}: ask for {part} or more"
            )
    places = [(row, column) for row in _slide(size[0], window[0]) for column in _slide(size[1], window[1])]

    def at(number: int) -> WideWindow:
        t = known + number // len(places)
        (top, new_rows), (left, new_columns) = places[number % len(places)]
        frames = range(max(t - context, 0), t + 1)
        rows, columns = range(top, top + window[0]), range(left, left + window[1])
        return WideWindow(frames, rows, columns, len(frames) - 1, new_rows, new_columns)

    return Plan(max(total - known, 0) * len(places), at)


def plan_wide_as_published(
    total: int, size: tuple[int, int], window: tuple[int, int, int], context: int, known: int = 0
) -> Plan[WideWindow]:
    """The published order: code by code through the video, each in a window of its own (frames, rows, columns) that
    shows `context` frames and half a window of the picture in front of it, less at the borders."""
    check_context(context, total, window[0])
    if total < window[0]:
        raise UserError(
            f"the published sampler makes at least the trained {window[0]} latent frames, {total} were asked for"
        )
    codes = size[0] * size[1]

    def at(number: int) -> WideWindow:
        t, i, j = known + number // codes, number % codes // size[1], number % size[1]
        start, place = _published_window(t, window[0], total, context)
        top, row = _published_window(i, window[1], size[0], window[1] // 2)
        left, column = _published_window(j, window[2], size[1], window[2] // 2)
        frames = range(start, start + window[0])
        rows, columns = range(top, top + window[1]), range(left, left + window[2])
        return WideWindow(frames, rows, columns, place, range(row, row + 1), range(column, column + 1))

    return Plan(max(total - known, 0) * codes, at)


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
