"""Videos of any length as generators: frame after frame, keeping only the frames that are still needed.

All codes here are int64 [B, t, h, w]. `known` begins at the frame `start` of the video; what is yielded stands behind.
The functions `back_...` say which finished frames a run that was stopped must hand back as known, so that every batch
and every window comes out as if it had not been stopped, bit by bit.
"""

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from tats.gpt.job import Job, Settings
from tats.gpt.plans import Plan, WideWindow, gap_group, plan_between, plan_long
from tats.gpt.sample import fill_wide

GAP_BATCH = 16  # gaps of a hierarchy that are filled at once, over all videos of a batch; a cache each


def long(
    job: Job, how: Settings, total: int, context: int, step: int, known: Tensor, start: int = 0
) -> Iterator[Tensor]:
    """The sliding window; its frames stand `step` apart in the video, which only the noise depends on.

    Counts (`total`, `context`, `start`) are of its own frames. Yields [B, h, w].
    """
    recent = last(known, context)
    for window in plan_long(total, context, step, start + known.shape[1]):
        seen = last(recent, window.new.start)  # [B, new.start, h, w]
        codes = torch.cat([seen, job.empty(len(window.new))], 1)  # [B, places, h, w]
        u = torch.stack([job.noise(window.frames[place], job.layout.frame_len) for place in window.new], 1)
        draws = [how.draw(window.frames[place] // step, context) for place in window.new]
        job.fill(codes, [window.frames], window.new, draws, u)
        recent = last(codes, context)
        yield from codes[:, window.new.start :].unbind(1)


def back_long(done: int, given: int, context: int) -> range:
    """Of `done` finished frames, `given` of them known from the start: those to hand back when the video goes on."""
    return range(given) if done <= given or done < context else range(done - context, done)


def wide(job: Job, how: Settings, plan: Plan[WideWindow], size: tuple[int, int], known: Tensor) -> Iterator[Tensor]:
    """Windows over pictures of `size`, frame after frame.  Yields [B, height, width]."""
    before = job.layout.frames - 1  # no window shows more frames in front of a new one
    recent = last(known, before)  # [B, n, H, W]
    for t, windows in groupby(plan, key=lambda window: window.frames[window.new]):
        codes = torch.cat([recent, job.empty(1, size)], 1)  # [B, n + 1, H, W], up to the frame t
        u = job.noise(t, size[0] * size[1]).view(-1, *size)
        for window in windows:
            shown = codes[:, window.frames.start - (t - recent.shape[1]) :]
            engine, cond = job.engine_for(len(codes), job.course.scale(t)), job.cond_for(window.frames, t)
            fill_wide(engine, job.layout, cond, shown, window, how.draw(t, 1), u)
        recent = last(codes, before)
        yield codes[:, -1]


def back_wide(done: int, given: int, trained: int) -> range:
    """As `back_long`; windows hold `trained` frames, the new one included."""
    return range(given) if done <= given else range(max(done - trained + 1, 0), done)


def between(
    job: Job, how: Settings, keys: Iterator[Tensor], step: int, most: int, known: Tensor, start: int = 0
) -> Iterator[Tensor]:
    """The frames between key frames [B, h, w], a group of up to `most` gaps at a time, and the keys themselves.

    keys: the key frames behind `known`. start: a multiple of `step`.
    """
    front = known  # frames that are there, from the key frame at `at` on: [B, 1 to step, h, w]
    if not front.shape[1]:
        front = next(keys)[:, None]
        yield front[:, 0]
    at = (start + max(front.shape[1], 1) - 1) // step * step
    front = front[:, at - start :]
    row: list[Tensor] = []  # the key frames behind the one at `at`
    for key in keys:
        row.append(key)
        if at // step + len(row) == gap_group(at // step, most).stop:
            yield from fill_gaps(job, how, front, row, at, step)
            at, front, row = at + len(row) * step, key[:, None], []
    if row:
        yield from fill_gaps(job, how, front, row, at, step)


def back_between(done: int, given: int, context: int, step: int, most: int) -> range:
    """As `back_long`, for a hierarchy whose gaps stand `step` wide and run up to `most` at once: a group of gaps that
    was not finished runs again, with the coarse frames behind it."""
    key = gap_group(max(done - 1, 0) // step, most).start * step  # the key frame where the unfinished group begins
    if not done or key < given or key // step + 1 < context:
        return range(given)
    return range(key - max(context - 1, 0) * step, key + 1)


def fill_gaps(job: Job, how: Settings, front: Tensor, row: list[Tensor], at: int, step: int) -> Iterator[Tensor]:
    """All frames behind `front` up to the last key frame of `row`; gaps that want equally many frames, cut alike by
    changes of the condition, are one batch.

    front [B, 1 to step, h, w] begins at the frame `at` of the video.
    """
    batch, there = front.shape[:2]
    video = front.new_zeros(batch, len(row) * step + 1, *front.shape[2:])  # [B, gaps*step + 1, h, w]
    video[:, :there] = front
    video[:, step::step] = torch.stack(row, 1)
    batches: dict[tuple, list[range]] = {}  # what its windows have in common -> the frames of each
    for window in plan_between(video.shape[1], step, there):
        frames = range(at + window.frames.start, at + window.frames.stop)  # of the whole video
        batches.setdefault((window.new, job.course.spans(frames, window.new)), []).append(frames)
    for (new, _), windows in batches.items():
        codes = torch.cat(
            [video[:, frames.start - at : frames.stop - at] for frames in windows]
        )  # [gaps*B, S + 1, h, w]
        numbers = [
            torch.stack([job.noise(frames[place], job.layout.frame_len) for place in new], 1) for frames in windows
        ]
        job.fill(codes, windows, new, [how.draw(0, 0)] * len(new), torch.cat(numbers))
        for n, frames in enumerate(windows):
            made = codes[n * batch : (n + 1) * batch, new.start : step]
            video[:, frames.start - at + new.start : frames.stop - at - 1] = made
    yield from video[:, there:].unbind(1)


def last(codes: Tensor, n: int) -> Tensor:
    """The last n frames of [B, t, h, w], or all where there are fewer."""
    return codes[:, max(codes.shape[1] - n, 0) :]
