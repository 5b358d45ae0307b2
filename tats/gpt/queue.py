"""A queue of videos: of any lengths and conditions in one batch, and as one ends, the next takes its place.

    requests = [tats.Request(frames=64, context=3, label=1, seed=0), tats.Request(frames=9, context=2, label=4, seed=1)]
    for number, codes in tats.sample_queue(gpt, requests, batch=8, top_p=0.8):      # as they are finished
        ...

All videos of the batch make their next latent frame together, a round, though each stands at its own place of its own
window. A round is equally long for all of them, so nobody waits: a place in the batch that gets free is taken at
the next round. Every video has the codes that it has alone (`sample_codes`, `sample_long_codes`), up to the rounding of
matrix products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.condition import Label, Text, empty_condition
from tats.gpt.course import Change, Course
from tats.gpt.draw import seeded_noise
from tats.gpt.engine import prepared
from tats.gpt.guidance import Guided, Stepper
from tats.gpt.job import Settings, known_codes, refuse_anchors
from tats.gpt.layout import Layout
from tats.gpt.model import GPT
from tats.gpt.plans import check_context
from tats.gpt.sample import layout_of, table_places
from tats.gpt.wanted import Draws, Wanted


@dataclass(frozen=True)
class Request:
    """A video to be made.

    frames: latent frames. context: latent frames that the model sees of what it made before; None: all, for a short
    clip, of the trained length at most. label, text, sound, smap, schedule, cfg_scale (None: that of the queue): as the
    samplers take them (`tats.gpt.api`), of this one video. known: codes int64 [t0, h, w] that it starts with, from the
    frame `start` of the video on.
    """

    frames: int
    seed: int = 0
    context: int | None = None
    label: Label | None = None
    text: Text | None = None
    sound: Tensor | None = None
    smap: Tensor | None = None
    known: Tensor | None = None
    start: int = 0
    schedule: Sequence[Change] = ()
    cfg_scale: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The condition, by name."""
        return {"label": self.label, "text": self.text, "sound": self.sound, "smap": self.smap}


def sample_queue(gpt: GPT, requests: Sequence[Request], batch: int = 16, **settings) -> Iterator[tuple[int, Tensor]]:
    """Codes of videos as they are finished: yields (number of the request, codes int64 [t, h, w]).

    batch: videos that are made at once. settings: as the samplers take them, for all videos. What comes out begins with
    the known codes of its request.
    """
    parts: dict[int, list[Tensor]] = {number: [] for number in range(len(requests))}
    for number, frame in sample_queue_frames(gpt, requests, batch, **settings):
        parts[number].append(frame)
        if requests[number].start + len(parts[number]) == requests[number].frames:
            yield number, torch.stack(parts.pop(number))


def sample_queue_frames(
    gpt: GPT, requests: Sequence[Request], batch: int = 16, **settings
) -> Iterator[tuple[int, Tensor]]:
    """`sample_queue`, frame by frame: yields (number of the request, codes int64 [h, w]), those of each in order."""
    if batch < 1:
        raise ValueError(f"batch counts videos that are made at once, 1 or more, got {batch}")
    how = Settings(**settings)
    refuse_anchors(gpt.config)
    rows = [Row.begin(gpt, number, request, how) for number, request in enumerate(requests)]
    if len({row.course.conds[0].shape[1] for row in rows}) > 1:
        raise UserError("the conditions of one queue must have equally many tokens")
    return Queue(gpt, rows, min(batch, len(rows)), how).frames() if rows else iter(())


@dataclass
class Row:
    """A video of the queue: what is asked for, and how far it is.

    first: latent frames that count as the first ones for the draw. recent: codes [h, w] of the last frames that are
    still needed. done: frames of the video that are there. shown: the window that the model was shown last, with the
    condition in front of it.
    """

    number: int
    request: Request
    course: Course
    context: int
    first: int
    recent: list[Tensor]
    done: int
    shown: tuple[range, int] | None = None
    given: list[Tensor] = field(default_factory=list)

    @classmethod
    def begin(cls, gpt: GPT, number: int, request: Request, how: Settings) -> "Row":
        """Check a request.

        Raises:
            UserError: it can't be fulfilled; names its number.
        """
        trained, device = gpt.config.latent_shape[0], gpt.pos_emb.device
        short = request.context is None
        try:
            if short and not 1 <= request.frames <= trained:
                raise UserError(f"1 to {trained} latent frames fit without a context, got {request.frames}")
            context = request.frames if request.context is None else request.context
            if not short:
                check_context(context, request.frames, trained)
            course = Course(
                gpt.config,
                1,
                trained if short else request.frames,
                request.given,
                request.schedule,
                cfg_scale=how.cfg_scale if request.cfg_scale is None else request.cfg_scale,
                as_published=how.as_published,
                device=device,
            )
            known = None if request.known is None else request.known[None]
            given = known_codes(gpt.config, 1, known, request.frames, request.start, context, device)[0]
        except UserError as error:
            raise UserError(f"request {number}: {error}") from None
        frames = list(given.unbind(0))
        recent = frames[max(len(frames) - context, 0) :]
        return cls(number, request, course, context, 1 if short else context, recent, request.start + len(frames),
                   given=frames)  # fmt: skip

    @property
    def window(self) -> tuple[range, int]:
        """The frames that the next window shows, and which of its places is the next to be made."""
        if self.done < self.context:
            return range(self.context), self.done
        return range(self.done - self.context, self.done + 1), self.context

    def take(self, frame: Tensor) -> None:
        """The next frame [h, w] is made."""
        self.recent = [*self.recent, frame][-self.context :] if self.context else []
        self.done += 1


class Queue:
    """The batch: one engine, whose windows belong to one video each until that is finished."""

    def __init__(self, gpt: GPT, rows: Sequence[Row], batch: int, how: Settings):
        self.waiting = list(reversed(rows))
        self.how, self.n_codes = how, gpt.config.n_codes
        self.places: list[Row | None] = [None] * batch
        guided = any(row.course.guided for row in rows)
        windows = batch * (1 + guided)
        engine = prepared(gpt, windows, whole_vocabulary=how.as_published, precision=how.precision, cache=how.cache)
        self.engine: Stepper = engine
        self.scales = torch.ones(batch, device=engine.device)  # of guidance
        if guided:
            empty = empty_condition(gpt.config, 1, engine.device)
            self.engine = Guided(engine, empty, self.scales)
        self.layout: Layout = layout_of(engine, rows[0].course.conds[0])
        if self.layout.length > gpt.config.block_size:
            raise UserError(
                f"a condition of {self.layout.n_cond} tokens and {self.layout.frames} latent frames take "
                f"{self.layout.length} positions, this transformer has {gpt.config.block_size}"
            )
        self.table = table_places(engine, self.layout)

    def frames(self) -> Iterator[tuple[int, Tensor]]:
        """Round after round: (number of the request, its next frame [h, w])."""
        while self.waiting or any(self.places):
            for place, row in enumerate(self.places):
                while row is None and self.waiting:
                    row = self.waiting.pop()
                    yield from ((row.number, frame) for frame in row.given)
                    row.given = []
                    row = None if row.done >= row.request.frames else row
                self.places[place] = row
            active = {place: row for place, row in enumerate(self.places) if row is not None}
            if not active:
                return
            made = self.round(active)  # [n, h, w]
            for (place, row), frame in zip(active.items(), made):
                row.take(frame)
                yield row.number, frame.clamp(0, self.n_codes - 1) if self.how.as_published else frame
                if row.done == row.request.frames:
                    self.places[place] = None

    @torch.inference_mode()
    def round(self, active: dict[int, Row]) -> Tensor:
        """The next latent frame of every video: int64 [n, h, w]."""
        layout, rows = self.layout, list(active.values())
        for place, row in active.items():
            self.scales[place] = row.course.scale(row.done) or 1.0  # 0: the condition in front is the empty one already
        logits, steps = self.show(active)
        starts = [layout.start(row.window[1]) for row in rows]
        noise = [seeded_noise([row.request.seed], logits.device)(row.done, layout.frame_len) for row in rows]
        none = torch.full((layout.frame_len,), -1, device=logits.device)
        wanted = Wanted(
            layout,
            torch.tensor(starts[:1] if len({*starts}) == 1 else starts, device=logits.device),
            Draws([[self.how.draw(row.done, row.first)] for row in rows], logits.device),
            torch.stack(noise),  # [n, 1, h*w]
            torch.stack([row.recent[-1].flatten() if row.recent else none for row in rows]),
            self.table,
            self.of_engine(list(active)),
        )
        made, more = self.how.decoding(self.engine, wanted, logits)  # [n, h*w]
        self.how.count(steps + more, layout.frame_len, len(rows))
        return made.view(-1, layout.height, layout.width)

    def show(self, active: dict[int, Row]) -> tuple[Tensor, int]:
        """Show what is known of the windows; the logits [n, V] of the first code of each, and the steps it took.

        Videos that stand equally far in their windows are one pass. Those that go on in the window that is cached lack
        only the last code of the frame in front.
        """
        layout, steps = self.layout, 0
        found: dict[int, Tensor] = {}
        parts: list[tuple[bool, int, int]] = []
        for place, row in active.items():
            frames, known = row.window
            window = frames, row.course.stretch(row.done)
            parts.append((row.shown == window, known, place))
            row.shown = window
        for (goes_on, known), group in groupby(sorted(parts), key=lambda part: part[:2]):
            places = [place for _, _, place in group]
            some = [active[place] for place in places]
            end = layout.start(known)
            if goes_on:
                tokens = layout.token(torch.stack([row.recent[-1][-1:, -1] for row in some]))  # [m, 1]
                steps += 1
            else:
                conds = [row.course.cond_for(row.window[0], row.done) for row in some]
                codes = [torch.stack([*row.recent]) if known else self.nothing for row in some]  # [known, h, w]
                tokens = layout.tokens(torch.cat(conds), torch.stack(codes))  # [m, end]
                self.engine.reset(places)
            positions = self.engine.order[end - tokens.shape[1] : end]
            shown = None
            if self.table is not None:
                first = max(int(positions[0]) - layout.n_cond + 1, 0)
                shown = self.table[:, first : end - layout.n_cond + 1]
            logits = self.engine(tokens, positions, rows=self.of_engine(places), places=shown)  # [m, V]
            found.update(zip(places, logits))
        return torch.stack([found[place] for place in active]), steps

    @property
    def nothing(self) -> Tensor:
        """No frames: [0, h, w]."""
        return torch.zeros(0, self.layout.height, self.layout.width, dtype=torch.long, device=self.engine.device)

    def of_engine(self, places: list[int]) -> list[int] | None:
        """These windows as the engine takes them; None for all of them, in order."""
        return None if places == list(range(len(self.places))) else places
