"""What stays the same while a batch of videos is sampled: settings, condition, layout, weights, noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.captured import choice as captures
from tats.gpt.condition import empty_condition
from tats.gpt.config import GPTConfig
from tats.gpt.course import Change, Course
from tats.gpt.decode import Decoding
from tats.gpt.draw import Draw, Noise, seeded_noise
from tats.gpt.engine import Engine, prepared
from tats.gpt.guidance import Guided
from tats.gpt.layout import Layout
from tats.gpt.model import GPT
from tats.gpt.sample import fill, fill_as_published, layout_of
from tats.gpt.steps import Steps


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
    cfg_scale: float = 1.0
    as_published: bool = False
    precision: str = "fp32"
    cache: str = "auto"
    cuda_graph: bool | None = None
    decode: str = "raster"
    jacobi_block: int = 8
    diagonal_lag: int = 2
    steps: Steps | None = None

    def __post_init__(self) -> None:
        self.decoding  # noqa: B018 (wrong settings are told at once)

    @property
    def decoding(self) -> Decoding:
        """The way to invent the codes of a window."""
        return Decoding(self.decode, self.jacobi_block, self.diagonal_lag)

    def count(self, steps: int, codes: int, windows: int) -> None:
        """Add to `steps`, if they are counted; arguments as `Steps.add`."""
        if self.steps is not None:
            self.steps.add(steps, codes, windows)

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


@dataclass
class Job:
    """One batch of videos of one transformer: everything that stays the same from window to window."""

    gpt: GPT
    how: Settings
    engine: Engine
    layout: Layout
    course: Course
    noise: Noise

    @classmethod
    def start(
        cls,
        gpt: GPT,
        seeds: Sequence[int],
        how: Settings,
        given: Mapping[str, Any],
        frames: int,
        changes: Sequence[Change] = (),
        copies: int = 1,
    ) -> "Job":
        """Check the condition, lay out the window, prepare the weights.

        given, frames, changes: as `Course` takes them. copies: how many windows of each video may run at once.
        """
        if not len(seeds):
            raise ValueError("seeds must hold one number per video, got none")
        device = gpt.pos_emb.device
        course = Course(
            gpt.config,
            len(seeds),
            frames,
            given,
            changes,
            cfg_scale=how.cfg_scale,
            as_published=how.as_published,
            device=device,
        )
        rows = len(seeds) * copies * (2 if course.guided else 1)
        engine = prepared(gpt, rows, whole_vocabulary=how.as_published, precision=how.precision, cache=how.cache)
        engine.captures = captures(device, gpt.config.n_embd, how.cuda_graph).name == "fused"
        layout = layout_of(engine, course.conds[0])
        if layout.length > gpt.config.block_size:
            raise UserError(
                f"a condition of {layout.n_cond} tokens and {layout.frames} latent frames take {layout.length} "
                f"positions, this transformer has {gpt.config.block_size}"
            )
        return cls(gpt, how, engine, layout, course, seeded_noise(seeds, device))

    def cond_for(self, frames: range, new: int | None = None) -> Tensor:
        """What stands in front of the codes of a window: int64 [B, n_cond].

        frames: the latent frame of the video at each of its places. new: the first that it invents (None: the last).
        """
        return self.course.cond_for(frames, frames[-1] if new is None else new)

    def engine_for(self, rows: int, scale: float = 1.0) -> Engine | Guided:
        """The engine, with room for exactly `rows` windows, guided by `scale`."""
        guided = scale not in (0, 1)  # 0: the condition in front is the empty one already
        if self.engine.batch != rows * (1 + guided):
            self.engine = self.engine.resized(rows * (1 + guided))
        if not guided:
            return self.engine
        return Guided(self.engine, empty_condition(self.gpt.config, 1, self.course.device), scale)

    def fill(self, codes: Tensor, windows: Sequence[range], new: range, draws: Sequence[Draw], u: Tensor) -> None:
        """Invent the places `new` of windows, in place, each frame behind the condition that holds for it.

        codes [n*B, places, h, w]: n windows of all B videos, the first windows of all first. windows: the latent frames
        of the video that each of them shows; all are cut alike by changes of the condition (`Course.spans`). Else as
        `tats.gpt.sample.fill`.
        """
        work = fill_as_published if self.how.as_published and new.stop < codes.shape[1] else fill
        for places, scale in self.course.spans(windows[0], new):
            cond = torch.cat([self.cond_for(frames, frames[places.start]) for frames in windows])  # [n*B, n_cond]
            part = slice(places.start - new.start, places.stop - new.start)
            shown = torch.cat([codes[:, : places.stop], codes[:, new.stop :]], 1)  # what is not known yet is not there
            engine = self.engine_for(len(codes), scale)
            steps = work(engine, self.layout, cond, shown, places, draws[part], u[:, part], self.how.decoding)
            self.how.count(steps, len(places) * self.layout.frame_len, len(codes))
            codes[:, places.start : places.stop] = shown[:, places.start : places.stop]

    def empty(self, frames: int, size: tuple[int, int] | None = None) -> Tensor:
        """Room for codes [B, frames, h, w], of `size` (height, width) or as trained."""
        height, width = size or (self.layout.height, self.layout.width)
        return torch.zeros(self.course.batch, frames, height, width, dtype=torch.long, device=self.course.device)

    def known(self, codes: Tensor | None, frames: int, start: int, needed: int, size: tuple[int, int]) -> Tensor:
        """The codes that are there from the start, checked: [B, n, height, width], n at most `frames` - `start`.

        They begin at the frame `start` of the video and are `needed` frames or more where that is not the first.
        """
        return known_codes(self.gpt.config, self.course.batch, codes, frames, start, needed, self.course.device, size)

    def finish(self, codes: Tensor) -> Tensor:
        """Codes as the VQGAN takes them; condition ids that were drawn (as_published only) become code 0."""
        return codes.clamp(0, self.gpt.config.n_codes - 1) if self.how.as_published else codes


def known_codes(
    config: GPTConfig,
    batch: int,
    codes: Tensor | None,
    frames: int,
    start: int,
    needed: int,
    device: torch.device | str,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The codes that are there from the start, checked: [B, n, height, width], n at most `frames` - `start`.

    size: (height, width), None: as trained. Else as `Job.known`.
    """
    height, width = size or config.latent_shape[1:]
    if codes is None:
        codes = torch.zeros(batch, 0, height, width, dtype=torch.long)
    if codes.ndim != 4 or len(codes) != batch or codes.shape[2:] != (height, width):
        raise UserError(
            f"known codes must be [{batch}, t, {height}, {width}] (videos, frames, rows, columns), got {[*codes.shape]}"
        )
    top = config.n_codes - 1
    if codes.numel() and not (codes.min() >= 0 and codes.max() <= top):
        raise UserError(f"known codes must lie in 0..{top}, got {int(codes.min())}..{int(codes.max())}")
    if start < 0 or (start and codes.shape[1] < needed):
        raise ValueError(
            f"known codes from frame {start} on must be the {needed} frames in front of what is new, "
            f"or more; got {codes.shape[1]}"
        )
    return codes[:, : max(frames - start, 0)].to(device, torch.long)


def refuse_anchors(config: GPTConfig) -> None:
    """A transformer trained to fill in between frames can't start a video."""
    if config.n_unmasked:
        raise UserError(
            f"this transformer fills in frames between two known ones (n_unmasked {config.n_unmasked}): it is the "
            f"second of a pair for sample_hierarchical"
        )
