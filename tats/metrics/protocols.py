"""How the numbers of this field are computed: one entry per published evaluation, and the way a score names it.

    protocol = find("stylegan-v/fvd2048_16f")
    protocol.with_choices(n_generated=256).label      # "stylegan-v/fvd2048_16f (modified)"

A protocol is a list of choices: which clips, how many, at what size and rate, what describes them, which statistic. Two
scores compare only where all of them agree; docs/protocols.md says what each one does and where the sources disagree.
No torch here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tats.flags import UserError, nearest

REAL_CLIPS = ("windows", "first", "visits", "consecutive", "frames")
SPLITS = ("train", "test", "train+test")
LEVELS = ("truncated", "rounded")
_FREE = ("seed", "runs")  # choices that most sources leave open: any value is within the recipe then


@dataclass(frozen=True)
class Protocol:
    """One way of scoring videos. Counts and sizes are of the recipe; what a source leaves open is None.

    kind: what is computed. frechet: Frechet and kernel distance of two sets; inception: how sure and how varied a
        classifier's answers are, of the generated side alone; pairs: PSNR, SSIM, LPIPS of clips that belong together.
    n_generated, n_real: clips of each side, at most (None: all there are).
    split: which part of the data is real.
    real_clips: which clips of it. windows: random windows of shuffled videos, as training sees them; first: one window
        at a random place of each of the first videos by name; visits: shuffled videos in turn, a random window at each
        visit; consecutive: windows side by side from the first frame on; frames: every single frame.
    frames, stride: frames of a clip, and how many frames of a real video each of them stands for. frames None takes
        clips as long as they are. generated_stride: the same for generated videos; 1 where the model makes its frames
        at that rate by itself.
    size: height and width of the pictures (None: as they are). resize: how they get there.
    offset: generated clips start at a random frame from 0 to this one, where they are long enough.
    levels: how pixels become 0 to 255: truncated, or rounded.
    pixels: where generated frames come from: raw (arrays, pictures, a model), or video files, which have lost some.
    network: what describes clips or frames; a name of `tats weights list`, or `file` for any other. Of pairs: what
        makes LPIPS.
    picture: features are of single frames, not of clips.
    ddof: 1 divides the covariance by N - 1, 0 by N. by_video: every frame counts 1 / frames of its video.
    group: clips of one statistic; the score is the mean over groups, beside their deviation (None: all in one).
    splits: parts whose scores an inception score averages. context: frames at the start of a clip that pairs leave out.
    runs: repetitions with other seeds, averaged. seed: of everything random.
    """

    name: str
    source: str
    kind: str = "frechet"
    n_generated: int | None = 2048
    n_real: int | None = 2048
    split: str = "train"
    real_clips: str = "windows"
    frames: int | None = 16
    stride: int = 1
    generated_stride: int = 1
    size: tuple[int, int] | None = (128, 128)
    resize: str = "bilinear"
    offset: int = 0
    levels: str = "truncated"
    pixels: str = "raw"
    network: str = "i3d-torchscript"
    picture: bool = False
    ddof: int = 1
    by_video: bool = False
    group: int | None = None
    splits: int = 10
    context: int = 0
    runs: int | None = None
    seed: int | None = None

    @property
    def span(self) -> int:
        """Frames of a real video from the first frame of a clip to its last; 1 for clips of any length."""
        return ((self.frames or 1) - 1) * self.stride + 1

    @property
    def choices(self) -> dict[str, Any]:
        """Every choice by name, plain values."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()
                if name not in ("name", "source")}  # fmt: skip

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """What differs from the recipe of this name: choice -> (the recipe's, this one's)."""
        recipe = find(self.name).choices
        return {
            name: (recipe[name], value)
            for name, value in self.choices.items()
            if value != recipe[name] and not (name in _FREE and recipe[name] is None) and recipe[name] != "any"
        }

    @property
    def label(self) -> str:
        """The name a score is cited under; `(modified)` where any choice differs from the recipe."""
        return f"{self.name} (modified)" if self.changes else self.name

    def with_choices(self, **choices: Any) -> "Protocol":
        """The same recipe with other choices; those that are None stay as they are.

        Raises:
            UserError: a choice that no score can be made with.
        """
        given = {name: value for name, value in choices.items() if value is not None}
        return _checked(replace(self, **given))

    @property
    def changed_line(self) -> str:
        """What was changed, in words; empty for the recipe itself."""
        return ", ".join(f"{name} {_word(used)} instead of {_word(stated)}"
                         for name, (stated, used) in self.changes.items())  # fmt: skip


def _word(value: Any) -> str:
    """A value as it stands in a line."""
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value))
    return "all" if value is None else str(value)


def _checked(protocol: Protocol) -> Protocol:
    for name in ("n_generated", "n_real", "frames", "stride", "generated_stride", "group", "splits", "runs"):
        value = getattr(protocol, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    if protocol.kind == "pairs" and protocol.frames is not None and protocol.context >= protocol.frames:
        raise UserError(
            f"--context {protocol.context} leaves nothing of clips of {protocol.frames} frames to be compared"
        )
    if protocol.ddof not in (0, 1):
        raise UserError(f"--ddof is 0 (divide by N) or 1 (by N - 1), got {protocol.ddof}")
    if protocol.offset < 0 or protocol.context < 0:
        raise UserError("--offset and --context count frames, from 0 on")
    return protocol


_CLIPS = Protocol("clips", "this toolkit: all clips of two sets, as they are", n_generated=None, n_real=None,
                  split="test", real_clips="consecutive", frames=None, size=None, pixels="any",
                  network="file")  # fmt: skip
_TATS = Protocol("tats", "Ge et al. 2022, published code: 2048 clips beside random windows of the train split",
                 network="i3d-plain")  # fmt: skip
_STYLEGAN = Protocol("stylegan-v/fvd2048_16f", "Skorokhodov et al. 2022, published code; also used by LARP and others",
                     real_clips="first", size=(256, 256), levels="rounded", ddof=0)  # fmt: skip
_LONG = Protocol("longvideogan/fvd2048_128f", "Brooks et al. 2022, published code", real_clips="visits", frames=128,
                 size=(144, 256), offset=31, levels="rounded", ddof=0)  # fmt: skip
_MAGVIT = Protocol("magvit", "Yu et al. 2023: 10000 clips, mean of 4 repeats; the statistic is not stated",
                   n_generated=10000, n_real=None, real_clips="consecutive", runs=4)  # fmt: skip
_TECO = Protocol("teco", "Yan et al. 2023, published code: groups of 256 videos, whole clips with their context",
                 n_generated=None, n_real=None, split="test", real_clips="consecutive", frames=300, size=None,
                 network="i3d-plain", group=256)  # fmt: skip
_PAIRS = replace(_TECO, name="teco/pairs", kind="pairs", context=144, network="alexnet",
                 source="Yan et al. 2023, published code: frames after the context, one sample each")  # fmt: skip
_CD = Protocol("cd-fvd/16f", "Ge et al. 2024: content-debiased, features of VideoMAE-v2", network="videomae-ssv2",
               seed=0)  # fmt: skip


def _variant(base: Protocol, suffix: str, what: str, **choices: Any) -> Protocol:
    return replace(
        base, name=base.name.split("/")[0] + suffix, source=f"{base.source.split(':')[0]}: {what}", **choices
    )


PROTOCOLS = (
    _CLIPS,
    _TATS,
    _variant(_TATS, "/taichi", "Taichi-HD, every fourth frame", stride=4),
    _variant(_TATS, "/mugen", "MUGEN at 256", size=(256, 256)),
    _variant(_TATS, "/is", "inception score of 10000 clips by C3D of UCF-101", kind="inception", n_generated=10000,
             n_real=None, network="c3d-ucf101"),
    _STYLEGAN,
    _variant(_STYLEGAN, "/fvd2048_128f", "128 frames", frames=128),
    _variant(_STYLEGAN, "/fvd2048_128f_subsample8f", "16 of 128 frames", stride=8,
             generated_stride=8),
    _variant(_STYLEGAN, "/fvd2048_16f-ucf101", "UCF-101, train and test videos", split="train+test"),
    _variant(_STYLEGAN, "/fvd2048_128f-ucf101", "UCF-101, train and test videos, 128 frames", split="train+test",
             frames=128),
    _variant(_STYLEGAN, "/fid50k_full", "50000 frames, 16 of each video, beside all frames", n_generated=50000,
             n_real=None, real_clips="frames", picture=True, network="inception-2015"),
    _variant(_STYLEGAN, "/isv2048_ucf", "inception score of 2048 clips by C3D of UCF-101", kind="inception",
             n_real=None, network="c3d-ucf101", seed=42),
    _LONG,
    _variant(_LONG, "/fvd2048_16f", "16 frames", frames=16),
    _variant(_LONG, "/fvd2048_128f-low", "128 frames of the low-resolution model", size=(36, 64)),
    _variant(_LONG, "/fvd2048_16f-low", "16 frames of the low-resolution model", frames=16, size=(36, 64)),
    _variant(_LONG, "/fid50k_full", "50000 frames beside all, each counted 1 / frames of its video", n_generated=50000,
             n_real=None, real_clips="frames", frames=16, picture=True, by_video=True, network="inception-2015"),
    _MAGVIT,
    Protocol("larp/ucf101", "Wang et al. 2024: 10000 clips beside the train list, statistic of StyleGAN-V",
             n_generated=10000, n_real=9536, real_clips="first", levels="rounded", ddof=0),
    Protocol("larp/kinetics600", "Wang et al. 2024: 11 frames predicted from 5, validation videos",
             n_generated=50000, n_real=50000, split="test", real_clips="first", size=(64, 64), levels="rounded",
             ddof=0),
    Protocol("omnitokenizer", "Wang et al. 2024: 2048 clips of 17 frames; the statistic is not stated", frames=17),
    Protocol("nbp/ucf101", "Ren et al. 2025: 10000 clips of 16 frames; the statistic is not stated", n_generated=10000,
             n_real=10000),
    Protocol("nbp/kinetics600", "Ren et al. 2025: 50000 clips of validation videos; the statistic is not stated",
             n_generated=50000, n_real=50000, split="test"),
    _TECO,
    _variant(_TECO, "/kinetics600", "Kinetics-600, 100 frames", frames=100, size=(128, 128)),
    _variant(_TECO, "/dmlab", "DMLab and Habitat without actions, 36 frames of context", context=36),
    _PAIRS,
    _variant(_PAIRS, "/pairs-minecraft", "Minecraft, as teco/pairs at 128", size=(128, 128)),
    _CD,
    _variant(_CD, "/128f", "content-debiased, 128 frames", frames=128),
    _variant(_CD, "/16f-ucf101", "content-debiased, UCF-101 with train and test videos", split="train+test"),
)  # fmt: skip


def find(name: str) -> Protocol:
    """The protocol of that name; the name of a family alone means its first one.

    Raises:
        UserError: there is none.
    """
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    for protocol in PROTOCOLS:
        if protocol.name.split("/")[0] == name:
            return protocol
    names = [protocol.name for protocol in PROTOCOLS]
    raise UserError(f"--protocol {name} is not known{nearest(name, names)} (all: {', '.join(names)})")


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population deviation, as the published tables of repeated runs and of groups give them."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
