"""The public samplers: codes of short, long, wide, hierarchical and continued videos.

Common arguments of all functions here:

seeds: one number per video; a video depends on its seed (and its condition and settings) alone.
label / text / sound: the condition the transformer was trained with, `tats.gpt.condition` says in which forms.
top_k, top_p, temperature: how a code is drawn (`tats.gpt.draw.Draw`); top_k=1 is greedy.
top_k_init, top_p_init, temperature_init: the same for the first latent frames, where the order of drawing decides
    what the video shows; None: as the rest. frames_init says how many frames these are (None: one for short clips and
    wide ones, the context for long ones).
as_published: the published choices where ours differ (draws over the whole vocabulary, start id 0, positions of
    frames that are filled in), for comparing with published samples.
precision: fp32 (the model's own type), bf16 or fp16.
known: codes int64 [B, t0, h, w] that the video starts with; only what follows is invented.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.condition import Label, condition
from tats.gpt.draw import Draw, Noise, seeded_noise
from tats.gpt.engine import Engine
from tats.gpt.layout import Layout
from tats.gpt.model import GPT
from tats.gpt.plans import check_context, plan_between, plan_long, plan_short, plan_wide, plan_wide_as_published
from tats.gpt.sample import fill, fill_as_published, fill_wide, layout_of


@dataclass(frozen=True)
class Settings:
    """How to draw: the rest of a video, and its first frames where they have settings of their own."""

    top_k: int | None = 2048
    top_p: float | None = 0.92
    temperature: float = 1.0
    top_k_init: int | None = None
    top_p_init: float | None = None
    temperature_init: float | None = None
    frames_init: int | None = None
    as_published: bool = False
    precision: str = "fp32"

    def draw(self, frame: int, first: int) -> Draw:
        """The draw for a latent frame, when `first` frames count as the first ones unless `frames_init` says more."""
        top_k, top_p, temperature = self.top_k, self.top_p, self.temperature
        if frame < (first if self.frames_init is None else self.frames_init):
            top_k = top_k if self.top_k_init is None else self.top_k_init
            top_p = top_p if self.top_p_init is None else self.top_p_init
            temperature = temperature if self.temperature_init is None else self.temperature_init
        if self.as_published and top_k is None:
            top_p = None  # the published samplers filter nothing without top_k
        return Draw(top_k, top_p, temperature)


def sample_codes(
    gpt: GPT,
    frames: int | None = None,
    *,
    label: Label | None = None,
    text: Tensor | None = None,
    sound: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    **settings,
) -> Tensor:
    """Codes of short clips: int64 [B, frames, h, w].

    frames: latent frames, at most (and without a number: exactly) the trained ones. Other arguments: see the module.
    """
    how = Settings(**settings)
    job = _Job.start(gpt, seeds, how, label, text, sound)
    trained = job.layout.frames
    frames = trained if frames is None else frames
    if not 1 <= frames <= trained:
        raise UserError(f"a short clip has 1 to {trained} latent frames, got {frames}; longer ones need sample_long")
    _refuse_anchors(gpt)
    codes = job.empty(frames, known)
    for window in plan_short(frames, job.given(known)):
        u = torch.stack([job.noise(window.frames[place], job.layout.frame_len) for place in window.new], 1)
        draws = [how.draw(window.frames[place], 1) for place in window.new]
        fill(job.engine, job.layout, job.cond, codes, window.new, draws, u)
    return job.finish(codes)


def sample_long_codes(
    gpt: GPT,
    frames: int,
    context: int = 1,
    *,
    label: Label | None = None,
    text: Tensor | None = None,
    sound: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    **settings,
) -> Iterator[Tensor]:
    """Codes of videos of any length, frame after frame: yields int64 [B, h, w], `frames` times.

    context: latent frames that the model sees of what it made before. Given frames (`known`) are yielded first.
    """
    how = Settings(**settings)
    job = _Job.start(gpt, seeds, how, label, text, sound)
    check_context(context, frames, job.layout.frames)
    _refuse_anchors(gpt)
    return _long(job, how, frames, context, 1, known)


def _long(job: "_Job", how: Settings, frames: int, context: int, step: int, known: Tensor | None) -> Iterator[Tensor]:
    """The sliding window; frames stand `step` apart in the video, which only the noise depends on."""
    recent = job.empty(0, None) if known is None else known.to(job.cond.device)[:, :frames]  # [B, <= frames, h, w]
    for frame in recent.unbind(1):
        yield job.finish(frame)
    for window in plan_long(frames, context, step, recent.shape[1]):
        # the frames in front of the new ones, of all that were made
        seen = recent[:, recent.shape[1] - window.new.start :]
        codes = torch.cat([seen, job.empty(len(window.new), None)], 1)
        u = torch.stack([job.noise(window.frames[place], job.layout.frame_len) for place in window.new], 1)
        draws = [how.draw(window.frames[place] // step, context) for place in window.new]
        fill(job.engine, job.layout, job.cond, codes, window.new, draws, u)
        for frame in codes[:, window.new.start :].unbind(1):
            yield job.finish(frame)
        recent = codes[:, codes.shape[1] - min(context, codes.shape[1]) :]


def continue_codes(gpt: GPT, codes: Tensor, frames: int, context: int = 1, **arguments) -> Iterator[Tensor]:
    """Goes on from given codes int64 [B, t0, h, w]: yields `frames` latent frames [B, h, w], the given ones first.

    Arguments as `sample_long_codes`; what comes after depends on the given frames inside the context and nothing else.
    """
    if codes.shape[1] >= frames:
        raise UserError(
            f"{codes.shape[1]} latent frames are given: a longer video must have more, {frames} were asked for"
        )
    return sample_long_codes(gpt, frames, context, known=codes, **arguments)


def sample_wide_codes(
    gpt: GPT,
    frames: int,
    size: tuple[int, int],
    context: int = 1,
    *,
    label: Label | None = None,
    text: Tensor | None = None,
    sound: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    **settings,
) -> Iterator[Tensor]:
    """Codes of pictures beyond the trained size: yields int64 [B, height, width] of `size`, `frames` times.

    Needs a transformer trained with --vtokens_pos, whose table of places covers `size`.
    """
    how = Settings(**settings)
    job = _Job.start(gpt, seeds, how, label, text, sound)
    trained = (job.layout.height, job.layout.width)
    table = gpt.config.places_shape
    if table is None and size != trained:
        raise UserError(
            f"latent pictures of {size[0]}x{size[1]} need a transformer trained with --vtokens_pos; this one makes "
            f"{trained[0]}x{trained[1]}"
        )
    if table is not None and (size[0] > table[1] or size[1] > table[2]):
        raise UserError(f"the table of places holds {table[1]}x{table[2]} codes, {size[0]}x{size[1]} were asked for")
    check_context(context, frames, job.layout.frames)
    _refuse_anchors(gpt)
    if how.as_published:
        plan = plan_wide_as_published(frames, size, (job.layout.frames, *trained), context)
    else:
        plan = plan_wide(frames, size, trained, context, job.given(known))
    codes = job.empty(frames, known, size)
    return _wide(job, how, codes, plan)


def _wide(job: "_Job", how: Settings, codes: Tensor, plan: list) -> Iterator[Tensor]:
    """Fill window after window; a frame is yielded once the plan has left it."""
    done = 0
    for window in plan:
        frame = window.frames[window.new]
        yield from (job.finish(codes[:, t]) for t in range(done, frame))
        done = frame
        u = job.noise(frame, codes[0, 0].numel()).view(-1, *codes.shape[2:])
        fill_wide(job.engine, job.layout, job.cond, codes, window, how.draw(frame, 1), u)
    yield from (job.finish(codes[:, t]) for t in range(done, codes.shape[1]))


def sample_hierarchical_codes(
    coarse: GPT,
    fine: GPT,
    frames: int,
    context: int = 1,
    *,
    label: Label | None = None,
    text: Tensor | None = None,
    sound: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    gap_batch: int = 64,
    top_k_fine: int | None = None,
    top_p_fine: float | None = None,
    temperature_fine: float | None = None,
    **settings,
) -> Iterator[Tensor]:
    """Codes of long videos, coarse frames first, then the frames between them: yields int64 [B, h, w] in order.

    coarse: trained with --sample_every_n_latent_frames S; fine: trained with --n_unmasked on windows of S + 1 latent
    frames. frames: 1 more than a multiple of S. context: coarse frames that the coarse model sees. Gaps don't depend on
    each other: up to `gap_batch` of them are filled at once. top_k_fine, top_p_fine, temperature_fine: for the frames
    between; None: as the coarse ones (as_published: temperature 1).
    """
    how = Settings(**settings)
    step = fine.config.latent_shape[0] - 1
    _check_pair(coarse, fine, frames, step, how.as_published)
    first = _Job.start(coarse, seeds, how, label, text, sound)
    check_context(context, (frames - 1) // step + 1, first.layout.frames)
    between = Settings(
        top_k=how.top_k if top_k_fine is None else top_k_fine,
        top_p=how.top_p if top_p_fine is None else top_p_fine,
        temperature=temperature_fine or (1.0 if how.as_published else how.temperature),
        as_published=how.as_published,
        precision=how.precision,
    )
    gaps = max(gap_batch // len(seeds), 1)
    second = _Job.start(fine, list(seeds) * gaps, between, _each(label, gaps), _each(text, gaps), _each(sound, gaps))
    given = None if known is None else known.to(first.cond.device)
    keys = _long(first, how, (frames - 1) // step + 1, context, step, None if given is None else given[:, ::step])
    return _between(second, between, keys, step, seeds, gaps, given)


def _between(
    job: "_Job", how: Settings, keys: Iterator[Tensor], step: int, seeds: Sequence[int], gaps: int, known: Tensor | None
) -> Iterator[Tensor]:
    """Fill the gaps between key frames [B, h, w], `gaps` at a time, and yield every frame in order."""
    noise = seeded_noise(seeds, job.cond.device)
    row = [next(keys)]
    yield row[0]
    start = 0  # the frame of the video at which row[0] stands
    for key in keys:
        row.append(key)
        if len(row) > gaps:
            yield from _fill_gaps(job, how, row, start, step, noise, known)
            start, row = start + (len(row) - 1) * step, row[-1:]
    if len(row) > 1:
        yield from _fill_gaps(job, how, row, start, step, noise, known)


def _fill_gaps(
    job: "_Job", how: Settings, row: list[Tensor], start: int, step: int, noise: Noise, known: Tensor | None
) -> list[Tensor]:
    """The frames behind row[0] up to row[-1], in order; gaps with equally many known frames are one batch."""
    batch = len(row[0])
    video = torch.stack(row, 1).new_zeros(batch, (len(row) - 1) * step + 1, *row[0].shape[1:])  # [B, n*step + 1, h, w]
    video[:, ::step] = torch.stack(row, 1)
    given = 0 if known is None else min(max(known.shape[1] - start, 0), video.shape[1])
    if known is not None and given:
        video[:, :given] = known[:, start : start + given]
    plan = plan_between(video.shape[1], step, given)
    for new in sorted({window.new for window in plan}, key=lambda new: new.start):
        at = [window.frames.start for window in plan if window.new == new]
        codes = torch.cat([video[:, t : t + step + 1] for t in at])  # [gaps*B, step + 1, h, w]
        numbers = [torch.stack([noise(start + t + place, job.layout.frame_len) for place in new], 1) for t in at]
        work = fill_as_published if how.as_published else fill
        engine, cond = job.engine_for(len(codes)), job.cond[: len(codes)]
        work(engine, job.layout, cond, codes, new, [how.draw(0, 0)] * len(new), torch.cat(numbers))
        for n, t in enumerate(at):
            video[:, t + new.start : t + step] = codes[n * batch : (n + 1) * batch, new.start : step]
    return [job.finish(frame) for frame in video[:, 1:].unbind(1)]


@dataclass
class _Job:
    """One batch of videos of one transformer: everything that stays the same from window to window."""

    gpt: GPT
    how: Settings
    engine: Engine
    layout: Layout
    cond: Tensor
    noise: Noise

    @classmethod
    def start(
        cls,
        gpt: GPT,
        seeds: Sequence[int],
        how: Settings,
        label: Label | None,
        text: Tensor | None,
        sound: Tensor | None,
    ) -> "_Job":
        """Check the condition, lay out the window, prepare the weights."""
        if not len(seeds):
            raise ValueError("seeds must hold one number per video, got none")
        device = gpt.pos_emb.device
        cond = condition(
            gpt.config, len(seeds), label=label, text=text, sound=sound, as_published=how.as_published, device=device
        )
        engine = Engine(gpt, len(seeds), whole_vocabulary=how.as_published, precision=how.precision)
        layout = layout_of(engine, cond)
        if layout.length > gpt.config.block_size:
            raise UserError(
                f"a condition of {layout.n_cond} tokens and {layout.frames} latent frames take {layout.length} "
                f"positions, this transformer has {gpt.config.block_size}"
            )
        return cls(gpt, how, engine, layout, cond, seeded_noise(seeds, device))

    def engine_for(self, batch: int) -> Engine:
        """The engine, with room for exactly `batch` windows."""
        if self.engine.batch != batch:
            self.engine = self.engine.resized(batch)
        return self.engine

    def empty(self, frames: int, known: Tensor | None, size: tuple[int, int] | None = None) -> Tensor:
        """Room for codes [B, frames, h, w], with the known ones in front."""
        height, width = size or (self.layout.height, self.layout.width)
        codes = torch.zeros(len(self.cond), frames, height, width, dtype=torch.long, device=self.cond.device)
        if known is not None:
            if known.shape[0] != len(codes) or known.shape[2:] != codes.shape[2:]:
                raise UserError(
                    f"known codes must be [{len(codes)}, t, {height}, {width}] (videos, frames, rows, columns), "
                    f"got {[*known.shape]}"
                )
            codes[:, : known.shape[1]] = known[:, :frames]
        return codes

    def given(self, known: Tensor | None) -> int:
        """How many frames are known from the start."""
        return 0 if known is None else known.shape[1]

    def finish(self, codes: Tensor) -> Tensor:
        """Codes as the VQGAN takes them; condition ids that were drawn (as_published only) become code 0."""
        return codes.clamp(0, self.gpt.config.n_codes - 1) if self.how.as_published else codes


def _each(value, times: int):
    """A condition given per video, repeated for `times` copies of the batch; one for all stays as it is."""
    if isinstance(value, Tensor) and value.dim() > 1:
        return value.repeat(times, *(1,) * (value.dim() - 1))
    if isinstance(value, list | tuple):
        return list(value) * times
    return value


def _refuse_anchors(gpt: GPT) -> None:
    """A transformer trained to fill in between frames can't start a video."""
    if gpt.config.n_unmasked:
        raise UserError(
            f"this transformer fills in frames between two known ones (n_unmasked {gpt.config.n_unmasked}): it is the "
            f"second of a pair for sample_hierarchical"
        )


def _check_pair(coarse: GPT, fine: GPT, frames: int, step: int, as_published: bool) -> None:
    """The two models of a hierarchy must belong together, and the video must end on a coarse frame."""
    _refuse_anchors(coarse)
    if not fine.config.n_unmasked:
        raise UserError("the second transformer was not trained to fill in between frames (its n_unmasked is 0)")
    if coarse.config.latent_shape[1:] != fine.config.latent_shape[1:] or coarse.config.n_codes != fine.config.n_codes:
        raise UserError("the two transformers were trained on different codes: they need one VQGAN and one resolution")
    if coarse.config.stride != step and not as_published:
        raise UserError(
            f"the coarse transformer makes latent frames {coarse.config.stride} apart, the fine one fills gaps of "
            f"{step}: train the coarse one with --sample_every_n_latent_frames {step}"
        )
    if frames < 1 or (frames - 1) % step:
        below = max(frames - 1, 0) // step * step + 1
        raise UserError(
            f"{frames} latent frames do not end on a coarse frame: coarse frames stand {step} apart. "
            f"Nearest: {below} or {below + step}."
        )
