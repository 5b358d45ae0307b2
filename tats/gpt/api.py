"""The public samplers: codes of short, long, wide, hierarchical and continued videos.

Common arguments of all functions here:

seeds: one number per video; a video depends on its seed (and its condition and settings) alone.
label / text / sound / smap: the condition the transformer was trained with, `tats.gpt.condition` says in which forms.
    Sounds and maps longer than one window are cut: every window takes what belongs to its frames. Of one window, they
    hold for all. Given as [B, n, t, h, w], they are those of the windows that begin at latent frame 0, 1, ..., n - 1.
cfg_scale: guidance by the condition (`tats.gpt.guidance`), of transformers trained with --cond_dropout; 1: none, 0: the
    condition does not count. Top-k, top-p and temperature come after it.
top_k, top_p, temperature: how a code is drawn (`tats.gpt.draw.Draw`); top_k=1 is greedy.
top_k_init, top_p_init, temperature_init: the same for the first latent frames, where the order of drawing decides
    what the video shows; None: as the rest. frames_init says how many frames these are (None: one for short clips and
    wide ones, the context for long ones).
as_published: the published choices where ours differ (draws over the whole vocabulary, start id 0, positions of
    frames that are filled in), for comparing with published samples.
precision: fp32 (the model's own type), fp16, bf16 or int8.
decode: raster, code by code; jacobi, the same codes (up to the rounding of matrix products) with several guessed and
    looked at per step, `jacobi_block` at most; diagonal, approximate, the rows of a frame at once, each `diagonal_lag`
    columns behind the one above (`tats.gpt.decode.Decoding`). steps: a `tats.gpt.steps.Steps` that counts them.
known: codes int64 [B, t0, h, w] that the video starts with; only what follows is invented.
schedule: of long and hierarchical videos: changes of condition or guidance on the way (`tats.gpt.course.Change`), by
    latent frames of the video. What it gives from frame 0 on takes the place of label, text, sound and smap.

The functions that yield keep the few latent frames that are still needed, so `frames` may be any number. They also take

start: the frame of the video at which `known` begins, for a video that goes on from its last frames; what is yielded
    begins there too. `tats.gpt.endless` says how many frames that takes (`back_long`, `back_wide`, `back_between`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt import endless
from tats.gpt.condition import Label, Text
from tats.gpt.course import Change, known_to
from tats.gpt.job import Job, Settings, refuse_anchors
from tats.gpt.model import GPT
from tats.gpt.plans import check_context, plan_short, plan_wide, plan_wide_as_published


def sample_codes(
    gpt: GPT,
    frames: int | None = None,
    *,
    label: Label | None = None,
    text: Text | None = None,
    sound: Tensor | None = None,
    smap: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    **settings,
) -> Tensor:
    """Codes of short clips: int64 [B, frames, h, w].

    frames: latent frames, at most (and without a number: exactly) the trained ones. Other arguments: see the module.
    """
    how = Settings(**settings)
    trained = gpt.config.latent_shape[0]
    job = Job.start(gpt, seeds, how, {"label": label, "text": text, "sound": sound, "smap": smap}, trained)
    frames = trained if frames is None else frames
    if not 1 <= frames <= trained:
        raise UserError(f"a short clip has 1 to {trained} latent frames, got {frames}; longer ones need sample_long")
    refuse_anchors(gpt.config)
    given = job.known(known, frames, 0, 0, gpt.config.latent_shape[1:])
    codes = torch.cat([given, job.empty(frames - given.shape[1])], 1)
    for window in plan_short(frames, given.shape[1]):
        u = torch.stack([job.noise(window.frames[place], job.layout.frame_len) for place in window.new], 1)
        draws = [how.draw(window.frames[place], 1) for place in window.new]
        job.fill(codes, [window.frames], window.new, draws, u)
    return job.finish(codes)


def sample_long_codes(
    gpt: GPT,
    frames: int,
    context: int = 1,
    *,
    label: Label | None = None,
    text: Text | None = None,
    sound: Tensor | None = None,
    smap: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    start: int = 0,
    schedule: Sequence[Change] = (),
    **settings,
) -> Iterator[Tensor]:
    """Codes of videos of any length, frame after frame: yields int64 [B, h, w], `frames` times.

    context: latent frames that the model sees of what it made before. Given frames (`known`) are yielded first.
    """
    how = Settings(**settings)
    job = Job.start(gpt, seeds, how, {"label": label, "text": text, "sound": sound, "smap": smap}, frames, schedule)
    check_context(context, frames, job.layout.frames)
    refuse_anchors(gpt.config)
    given = job.known(known, frames, start, context, gpt.config.latent_shape[1:])
    made = endless.long(job, how, frames, context, 1, given, start)
    return chain(given.unbind(1), map(job.finish, made))


def continue_codes(
    gpt: GPT, codes: Tensor, frames: int, context: int = 1, *, seeds: Sequence[int] | None = None, **arguments
) -> Iterator[Tensor]:
    """Goes on from given codes int64 [B, t0, h, w]: yields `frames` latent frames [B, h, w], the given ones first.

    seeds: one per video (None: 0, 1, 2, ...). Other arguments as `sample_long_codes`. What is new depends on the given
    frames inside the context and on no others. Codes of a video that is longer than what is given know of the rest
    (the encoder looks ahead): encode the given frames as a clip of their own.
    """
    if codes.ndim != 4:
        raise ValueError(f"codes must be [B, t, h, w], got {[*codes.shape]}")
    if codes.shape[1] >= frames:
        raise UserError(
            f"{codes.shape[1]} latent frames are given: a longer video must have more, {frames} were asked for"
        )
    seeds = range(len(codes)) if seeds is None else seeds
    return sample_long_codes(gpt, frames, context, known=codes, seeds=seeds, **arguments)


def sample_wide_codes(
    gpt: GPT,
    frames: int,
    size: tuple[int, int],
    context: int = 1,
    *,
    label: Label | None = None,
    text: Text | None = None,
    sound: Tensor | None = None,
    smap: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    start: int = 0,
    schedule: Sequence[Change] = (),
    **settings,
) -> Iterator[Tensor]:
    """Codes of pictures beyond the trained size: yields int64 [B, height, width] of `size`, `frames` times.

    Needs a transformer trained with --vtokens_pos, whose table of places covers `size`.
    """
    how = Settings(**settings)
    job = Job.start(gpt, seeds, how, {"label": label, "text": text, "sound": sound, "smap": smap}, frames, schedule)
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
    refuse_anchors(gpt.config)
    if how.decode != "raster":
        raise UserError(f"--decode {how.decode} is for pictures of the trained size; beyond it codes come one by one")
    given = job.known(known, frames, start, job.layout.frames - 1, size)
    if how.as_published:
        plan = plan_wide_as_published(frames, size, (job.layout.frames, *trained), context, start + given.shape[1])
    else:
        plan = plan_wide(frames, size, trained, context, start + given.shape[1])
    return chain(given.unbind(1), map(job.finish, endless.wide(job, how, plan, size, given)))


def sample_hierarchical_codes(
    coarse: GPT,
    fine: GPT,
    frames: int,
    context: int = 1,
    *,
    label: Label | None = None,
    text: Text | None = None,
    sound: Tensor | None = None,
    smap: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    known: Tensor | None = None,
    start: int = 0,
    schedule: Sequence[Change] = (),
    gap_batch: int = endless.GAP_BATCH,
    top_k_fine: int | None = None,
    top_p_fine: float | None = None,
    temperature_fine: float | None = None,
    cfg_scale_fine: float | None = None,
    **settings,
) -> Iterator[Tensor]:
    """Codes of long videos, coarse frames first, then the frames between them: yields int64 [B, h, w] in order.

    coarse: trained with --sample_every_n_latent_frames S; fine: trained with --n_unmasked on windows of S + 1 latent
    frames. frames: 1 more than a multiple of S. context: coarse frames that the coarse model sees. Gaps don't depend on
    each other: up to `gap_batch` of them are filled at once. top_k_fine, top_p_fine, temperature_fine, cfg_scale_fine:
    for the frames between; None: as the coarse ones (as_published: temperature 1). The fine model takes those of the
    conditions that it was trained with; one without any takes none.
    """
    how = Settings(**settings)
    step = fine.config.latent_shape[0] - 1
    _check_pair(coarse, fine, frames, step, how.as_published)
    given = {"label": label, "text": text, "sound": sound, "smap": smap}
    first = Job.start(coarse, seeds, how, given, frames, schedule)
    check_context(context, (frames - 1) // step + 1, first.layout.frames)
    between = replace(
        how,
        top_k=how.top_k if top_k_fine is None else top_k_fine,
        top_p=how.top_p if top_p_fine is None else top_p_fine,
        temperature=temperature_fine or (1.0 if how.as_published else how.temperature),
        cfg_scale=1.0 if not fine.config.keys else how.cfg_scale if cfg_scale_fine is None else cfg_scale_fine,
        top_k_init=None,
        top_p_init=None,
        temperature_init=None,
        frames_init=None,
    )
    most = max(gap_batch // len(seeds), 1)
    theirs, changes = known_to(fine.config, given, schedule, guided=cfg_scale_fine is None)
    second = Job.start(fine, seeds, between, theirs, frames, changes, most)
    needed = max(context - 1, 0) * step + 1
    if start % step:
        raise ValueError(f"known codes of a hierarchy begin at a coarse frame, a multiple of {step}; got start {start}")
    shown = first.known(known, frames, start, needed, coarse.config.latent_shape[1:])
    keys = endless.long(first, how, (frames - 1) // step + 1, context, step, shown[:, ::step], start // step)
    made = endless.between(second, between, map(first.finish, keys), step, most, shown, start)
    return chain(shown.unbind(1), map(second.finish, made))


def _check_pair(coarse: GPT, fine: GPT, frames: int, step: int, as_published: bool) -> None:
    """The two models of a hierarchy must belong together, and the video must end on a coarse frame."""
    refuse_anchors(coarse.config)
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
