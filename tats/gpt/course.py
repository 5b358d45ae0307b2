"""The condition of every window of a video: one for all of it, or one that changes on the way.

Labels, texts and the scale of guidance hold from the frame on where they are given (`Change`); a window takes what
holds at the first frame that it invents. Sounds and maps run beside the video: a window takes the part that belongs to
its own frames. All frames here are latent frames of the video, counted from 0.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.condition import GIVEN, Label, Text, condition, empty_condition
from tats.gpt.config import GPTConfig, Part

TIMED = ("stft", "smap")  # parts of a condition that run beside the video


@dataclass(frozen=True)
class Change:
    """From the latent frame `frame` on: what is given here holds, the rest goes on as it was.

    label, text: as `tats.gpt.condition.condition` takes them. sound, smap: codes [t, h, w] or [B, t, h, w] that begin
    at this frame. cfg_scale: of guidance.
    """

    frame: int
    label: Label | None = None
    text: Text | None = None
    sound: Tensor | None = None
    smap: Tensor | None = None
    cfg_scale: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The conditions that are given, by name."""
        named = {name: getattr(self, name) for name in GIVEN.values()}
        return {name: value for name, value in named.items() if value is not None}


class Course:
    """What stands in front of the codes, window after window, for a batch of videos of one transformer.

    given: label, text, sound, smap, as `condition` takes them, but sounds and maps of any length, or of every window
    (`Windows`). frames: of the video.
    changes: in the order of their frames; one at frame 0 takes the place of what is given. cfg_scale: of guidance where
    no change says otherwise.

    Raises:
        UserError: the condition is not that of the model, a sound ends before the video, changes are out of order, or
            guidance is asked of a model that was trained without empty conditions.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        frames: int,
        given: Mapping[str, Any],
        changes: Sequence[Change] = (),
        *,
        cfg_scale: float = 1.0,
        as_published: bool = False,
        device: torch.device | str = "cpu",
    ):
        self.config, self.batch, self.device, self.as_published = config, batch, device, as_published
        numbers = [change.frame for change in changes]
        if any(a >= b for a, b in zip([-1, *numbers], numbers)):
            raise UserError(f"changes of the condition stand in the order of their frames, from 0 on; got {numbers}")
        held = {name: value for name, value in given.items() if value is not None}
        stretches = [(0, held, cfg_scale)]  # where a condition begins to hold, what it is, and its guidance
        for change in changes:
            held, cfg_scale = {**held, **change.given}, cfg_scale if change.cfg_scale is None else change.cfg_scale
            if change.frame == 0:
                stretches = []
            if change.frame < frames:
                stretches.append((change.frame, held, cfg_scale))
        self.starts = [start for start, _, _ in stretches]
        self.scales = [check_scale(config, scale) for _, _, scale in stretches]
        self.tracks = {part: track for part in config.parts if part.key in TIMED
                       if (track := _track(part, config, frames, stretches)) is not None}  # fmt: skip
        self.conds = [self._tokens(held, scale) for _, held, scale in stretches]  # each [B, n_cond]
        if len({cond.shape for cond in self.conds}) > 1:
            lengths = [cond.shape[1] for cond in self.conds]
            raise UserError(f"the conditions of one video must have equally many tokens, these have {lengths}")

    def _tokens(self, held: Mapping[str, Any], scale: float) -> Tensor:
        """The condition of one stretch; of sounds and maps, what belongs to the first frames of the video."""
        if scale == 0:
            return empty_condition(self.config, self.batch, self.device)
        cut = {GIVEN[part.key]: track.cut(0) for part, track in self.tracks.items()}
        return condition(self.config, self.batch, as_published=self.as_published, device=self.device, **{**held, **cut})

    @property
    def guided(self) -> bool:
        """True when some window needs a pass with and one without the condition."""
        return any(scale not in (0, 1) for scale in self.scales)

    def scale(self, frame: int) -> float:
        """The scale of guidance with which a frame is made."""
        return self.scales[self.stretch(frame)]

    def cond_for(self, frames: range, new: int) -> Tensor:
        """What stands in front of a window that shows `frames` and invents frames from `new` on: int64 [B, n_cond]."""
        number = self.stretch(new)
        cond = self.conds[number]
        if self.tracks and self.scales[number] != 0:
            cond = cond.clone()
            for part, track in self.tracks.items():
                ids = track.cut(frames.start).flatten(1).to(cond) + part.first_id  # [B or 1, part.n_cond]
                cond[:, part.start : part.start + ids.shape[1]] = ids
        return cond

    def spans(self, frames: range, new: range) -> tuple[tuple[range, float], ...]:
        """The places `new` of a window that shows `frames`, cut where the condition changes, each with its scale."""
        numbers = [self.stretch(frames[place]) for place in new]
        cuts = [0, *(n for n in range(1, len(new)) if numbers[n] != numbers[n - 1]), len(new)]
        return tuple((new[begin:end], self.scales[numbers[begin]]) for begin, end in pairwise(cuts))

    def stretch(self, frame: int) -> int:
        """Which of the stretches with one condition a frame lies in, counted from 0."""
        return bisect_right(self.starts, frame) - 1


@dataclass(frozen=True)
class Track:
    """Codes [B or 1, n, h, w] that run beside a video, `rate` of them per latent frame; a window shows `length`."""

    codes: Tensor
    rate: Fraction
    length: int

    def cut(self, frame: int) -> Tensor:
        """What a window takes that begins at this latent frame; behind the end, the last.  [B or 1, length, h, w]"""
        first, last = int(frame * self.rate), self.codes.shape[1] - 1
        return self.codes[:, [min(first + n, last) for n in range(self.length)]]


@dataclass(frozen=True)
class Windows:
    """Codes [B or 1, n, length, h, w] of the windows that begin at latent frame 0, 1, ..., n - 1: each was encoded by
    itself, as the clips that the transformer was trained on."""

    codes: Tensor

    def cut(self, frame: int) -> Tensor:
        """As `Track.cut`; behind the end, the last window."""
        return self.codes[:, min(frame, self.codes.shape[1] - 1)]


def _track(
    part: Part, config: GPTConfig, frames: int, stretches: Sequence[tuple[int, Mapping[str, Any], float]]
) -> Track | Windows | None:
    """The sound (or maps) of a whole video; None where it is that of one window, which then holds for all windows."""
    name = GIVEN[part.key]
    given = [held.get(name) for _, held, _ in stretches]
    if given[0] is not None and given[0].ndim == 5:
        if any(codes is not given[0] for codes in given):
            raise UserError(f"a {name} that is given window by window stays the same on the way")
        return Windows(given[0])
    pieces: list[tuple[int, Tensor]] = []  # where each begins
    for start, held, _ in stretches:
        codes = held.get(name)
        if codes is None or codes.ndim not in (3, 4):
            return None  # `condition` says what is wrong
        if not pieces or codes is not pieces[-1][1]:
            pieces.append((start, codes))
    h, w = pieces[0][1].shape[-2:]
    length = -(-part.n_cond // (h * w))  # released files tell this up to one token
    if len(pieces) == 1 and pieces[0][1].shape[-3] <= length:
        return None
    rate, ends = rate_of(config, length, name), [*(start for start, _ in pieces[1:]), frames]
    found, rows = [], max(len(codes) if codes.ndim == 4 else 1 for _, codes in pieces)
    for (start, codes), end in zip(pieces, ends):
        needed = int(end * rate) - int(start * rate)
        if codes.shape[-3] < needed:
            raise UserError(
                f"the {name} from latent frame {start} on has {codes.shape[-3]} frames of codes, and {end - start} "
                f"latent frames of video need {needed}: give a longer one"
            )
        codes = codes if codes.ndim == 4 else codes[None]
        found.append((codes if end == frames else codes[:, :needed]).expand(rows, -1, -1, -1))
    return Track(torch.cat(found, 1), rate, length)


def rate_of(config: GPTConfig, length: int, name: str = "sound") -> Fraction:
    """Frames of codes of a sound per latent frame of video, for a model whose windows take `length` of them.

    Codes of both are made by halving time, and of the video's frames one in n may be kept: of the whole rates and
    their inverses that fit, the one that is a power of two, then the one nearest to 1.
    """
    window, stride = config.latent_shape[0], config.stride
    spans = range((window - 1) * stride + 1, window * stride + 1)  # latent frames of the clips it was trained on
    rates = [rate for n in range(1, 129) for rate in (Fraction(n), Fraction(1, n))]
    rates.sort(
        key=lambda rate: (rate.numerator * rate.denominator).bit_count() > 1
    )  # each group the nearest to 1 first
    for fits in (lambda n: n == length, lambda n: -(-n // 1) == length):  # a clip may end within a code
        for rate in rates:
            if any(fits(span * rate) for span in spans):
                return rate
    raise UserError(
        f"this transformer has {length} frames of {name} beside {window} latent frames of video, which does not tell "
        f"which belong together: give the {name} of one window, which then holds for all of them"
    )


def check_scale(config: GPTConfig, scale: float) -> float:
    """A scale of guidance that this model can take.

    Raises:
        UserError: it is no scale, or the model was trained without empty conditions.
    """
    if not 0 <= scale < float("inf"):
        raise UserError(f"--cfg_scale is 0 or more (1: no guidance), got {scale}")
    if scale != 1 and not config.keys:
        raise UserError(f"--cfg_scale {scale:g}: an unconditional transformer has no condition to be guided by")
    if scale != 1 and not config.empty:
        raise UserError(
            f"--cfg_scale {scale:g} needs a transformer that was trained with --cond_dropout above 0: this one has "
            f"never seen a video without its condition. Take --cfg_scale 1, or train one"
        )
    return scale


def known_to(
    config: GPTConfig, given: Mapping[str, Any], changes: Sequence[Change], guided: bool = True
) -> tuple[dict[str, Any], list[Change]]:
    """What a model takes of conditions and changes that are meant for a pair; `guided`: of their scales too."""
    names = [GIVEN[key] for key in config.keys]
    other: dict[str, Any] = {name: None for name in GIVEN.values() if name not in names}
    if not (guided and names):
        other["cfg_scale"] = None
    return {name: given.get(name) for name in names}, [replace(change, **other) for change in changes]
