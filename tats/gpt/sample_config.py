"""The flags of the sampling scripts. No torch here."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

from tats.data.config import DataConfig
from tats.flags import UserError, arg
from tats.gpt.continue_config import ContinueConfig
from tats.gpt.judge_config import JudgeConfig, LongJudgeConfig

KINDS = {"mp4": ".mp4", "gif": ".gif", "frames": ""}  # --save_as -> suffix of the file; a folder of pictures has none
GROUP_NORM = "a VQGAN with group normalisation decodes long videos piece by piece, with seams"
AUDIO = "a sound or video file to follow, as long as the video, for transformers conditioned on sound"
SCHEDULE = "YAML file of what changes on the way: label, text, sound or guidance, from a frame on (docs/conditions.md)"


@dataclass(frozen=True)
class DrawConfig:
    """How codes are drawn."""

    top_k: int | None = arg(2048, "draw among the k most likely codes; 1: always the likeliest, 0: all")
    top_p: float | None = arg(0.92, "draw among the most likely codes that sum up to this probability; 1: all")
    temperature: float = arg(1.0, "above 1 more varied, below 1 more certain")
    top_k_init: int | None = arg(None, "--top_k of the first latent frames (none: as the rest)")
    top_p_init: float | None = arg(None, "--top_p of the first latent frames (none: as the rest)")
    temperature_init: float | None = arg(None, "--temperature of the first latent frames (none: as the rest)")
    frames_init: int | None = arg(None, "how many these are (none: 1 of a clip, --temporal_sample_pos of a long video)")
    cfg_scale: float = arg(
        1.0, "guidance: above 1 the condition counts for more, 1: none; for transformers trained with --cond_dropout"
    )
    as_published: bool = arg(False, "repeat the published choices where ours differ, for comparing samples")
    precision: str = arg("fp32", "number format of the transformer", ["fp32", "fp16", "bf16", "int8"])
    cache: str = arg(
        "auto",
        "keys and values: full, or int8, in 8 bits, in less than a third of the memory; auto: full, but int8 with "
        "--precision int8 where that is faster",
        ["auto", "full", "int8"],
    )
    cuda_graph: bool | None = arg(
        None, "on a GPU, record the step of a code once and repeat it; untried (none: where a stored result says so)"
    )
    decode: str = arg(
        "raster",
        "codes one by one; jacobi: the same codes, several guessed and looked at per step; diagonal: approximate, the "
        "rows of a latent frame at once",
        ["raster", "jacobi", "diagonal"],
    )
    jacobi_block: int = arg(8, "codes that a step of --decode jacobi looks at")
    diagonal_lag: int = arg(2, "columns that a row is behind the one above, with --decode diagonal")
    seed: int = arg(0, "seed of the first video; the others count on")
    run: int = arg(0, "shifts the seeds by a million each, and stands in the names of files")
    device: str | None = arg(None, "cpu, cuda, ...; none: a GPU when there is one")

    def __post_init__(self) -> None:
        for name, value in (("top_k", self.top_k), ("top_k_init", self.top_k_init)):
            if value is not None and value < 0:
                raise UserError(f"--{name} counts codes: 1 for the most likely, 2, 3, ..., 0 for all; got {value}")
        for name, p in (("top_p", self.top_p), ("top_p_init", self.top_p_init)):
            if p is not None and not 0 <= p <= 1:
                raise UserError(f"--{name} is a probability between 0 and 1, got {p}")
        for name, t in (("temperature", self.temperature), ("temperature_init", self.temperature_init)):
            if t is not None and not t > 0:
                raise UserError(f"--{name} must be above 0, got {t}; --top_k 1 always takes the best")
        if not 0 <= self.cfg_scale < math.inf:
            raise UserError(f"--cfg_scale is 0 or more (1: no guidance), got {self.cfg_scale}")
        for name, value in (("jacobi_block", self.jacobi_block), ("diagonal_lag", self.diagonal_lag)):
            if value < 1:
                raise UserError(f"--{name} is 1 or more, got {value}")

    @property
    def settings(self) -> dict:
        """The keyword arguments of the functions in `tats.gpt.api`."""
        names = ["top_k", "top_p", "temperature", "top_k_init", "top_p_init", "temperature_init", "frames_init"]
        names += ["cfg_scale", "as_published", "precision", "cache", "cuda_graph", "decode"]
        names += {"jacobi": ["jacobi_block"], "diagonal": ["diagonal_lag"]}.get(self.decode, [])
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class OutputConfig:
    """How many videos, of what, and what is written."""

    save: str = arg("./results/tats", "folder that receives everything")
    n_sample: int = arg(2048, "videos altogether, spread evenly over the classes")
    dataset: str = arg("ucf101", "any name; stands in the names of files")
    class_cond: bool | None = arg(None, "the transformer makes videos by class (none: as its checkpoint says)")
    label: list[str] | None = arg(None, "classes to make, by name or id (none: all of them)")
    text: str | None = arg(None, "what to show: a sentence, or a file with a sentence per line, which take turns")
    bpe_path: str | None = arg(
        None, "CLIP's byte pairs (.txt, .txt.gz), for transformers that do not hold their own", aliases=("bpe",)
    )
    truncate_captions: bool = arg(
        False, "cut a --text that is longer than the trained ones, which is refused otherwise"
    )
    smap: str | None = arg(None, "semantic maps to follow: .npy of class ids [frames, H, W], or a folder; by turns")
    smap_vqgan_ckpt: str | None = arg(None, "checkpoint of the VQGAN of semantic maps, with --smap")
    save_videos: bool = arg(False, "write every video and grids; the default when nothing else is asked for")
    save_as: list[str] | None = arg(
        None,
        "what every video is written as, files or a folder of numbered pictures; several allowed (none: mp4)",
        [*KINDS],
    )
    save_arrays: bool = arg(False, "write the frames of all videos as one array (_eval.npy)")
    fps: float = arg(16.0, "frames per second of the videos")

    def __post_init__(self) -> None:
        if self.n_sample < 1:
            raise UserError(f"--n_sample counts videos, got {self.n_sample}")
        if not self.fps > 0:
            raise UserError(f"--fps must be above 0, got {self.fps}")

    def kinds(self, otherwise: bool) -> list[str]:
        """The kinds of files that every video is written as; `otherwise`: something else is written anyway."""
        if self.save_as:
            return list(dict.fromkeys(self.save_as))
        return [] if otherwise and not self.save_videos else ["mp4"]


@dataclass(frozen=True)
class LongOutputConfig(OutputConfig):
    """How many videos, of what, and what is written."""

    save: str = arg("./results", "folder that receives everything")
    n_sample: int = arg(100, "videos altogether, spread evenly over the classes")
    batch_size: int = arg(10, "videos made at once")


@dataclass(frozen=True)
class ShortConfig:
    """Makes clips of the length a transformer was trained on, and judges them."""

    gpt_ckpt: str = arg("", "checkpoint of the transformer (needed)")
    vqgan_ckpt: str = arg("", "checkpoint of the VQGAN whose codes it makes (needed)")
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    given: ContinueConfig = field(default_factory=ContinueConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    draw: DrawConfig = field(default_factory=DrawConfig)
    data: DataConfig = field(default_factory=DataConfig)

    notes: ClassVar[dict[str, tuple[int | str, str]]] = {
        "vtokens_pos": (0, "has no effect: the checkpoint says whether it has a table of places"),
    }


@dataclass(frozen=True)
class LongConfig:
    """Makes videos of any length with a sliding window."""

    gpt_ckpt: str = arg("", "checkpoint of the transformer (needed)")
    vqgan_ckpt: str = arg("", "checkpoint of the VQGAN whose codes it makes (needed)")
    sample_length: int = arg(256, "latent frames of a video")
    frames: int | list[int] | None = arg(
        None, "frames of a video, instead of --sample_length; several numbers: of the videos by turns, in one queue"
    )
    decode_group_norm_in_pieces: bool = arg(False, GROUP_NORM)
    sample_resolution: int | None = arg(
        None, "rows and columns of codes, beyond the trained ones with --vtokens_pos models (none: as trained)"
    )
    temporal_sample_pos: int = arg(1, "latent frames that the transformer sees of what it made before")
    schedule: str | None = arg(None, SCHEDULE)
    audio: str | None = arg(None, AUDIO)
    stft_vqgan_ckpt: str | None = arg(None, "checkpoint of the VQGAN of sounds, with --audio or sounds in --schedule")
    judge: LongJudgeConfig = field(default_factory=LongJudgeConfig)
    given: ContinueConfig = field(default_factory=ContinueConfig)
    output: LongOutputConfig = field(default_factory=LongOutputConfig)
    draw: DrawConfig = field(default_factory=DrawConfig)


@dataclass(frozen=True)
class HierarchicalDrawConfig(DrawConfig):
    """How codes are drawn."""

    top_p: float | None = arg(0.8, "draw among the most likely codes that sum up to this probability; 1: all")
    top_k_init: int | None = arg(2048, "--top_k of the first coarse frames")
    top_p_init: float | None = arg(0.8, "--top_p of the first coarse frames")
    cfg_scale_fine: float | None = arg(None, "--cfg_scale of the frames between coarse ones (none: as those)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cfg_scale_fine is not None and not 0 <= self.cfg_scale_fine < math.inf:
            raise UserError(f"--cfg_scale_fine is 0 or more (1: no guidance), got {self.cfg_scale_fine}")

    @property
    def settings(self) -> dict:
        """The keyword arguments of `tats.gpt.api.sample_hierarchical_codes`."""
        return {**super().settings, "cfg_scale_fine": self.cfg_scale_fine}


@dataclass(frozen=True)
class HierarchicalOutputConfig(LongOutputConfig):
    """How many videos, of what, and what is written."""

    n_sample: int = arg(2048, "videos altogether, spread evenly over the classes")
    dataset: str = arg("taichi", "any name; stands in the names of files")
    batch_size: int = arg(12, "videos made at once")


@dataclass(frozen=True)
class HierarchicalConfig:
    """Makes long videos: coarse frames first, then the frames between them."""

    ckpt1: str = arg("", "checkpoint of the coarse transformer (needed)", aliases=("CKPT1",))
    ckpt2: str = arg("", "checkpoint of the transformer that fills in frames (needed)", aliases=("CKPT2",))
    vqgan: str = arg("", "checkpoint of the VQGAN whose codes both make (needed)")
    sample_length: int = arg(64, "latent frames of a video after the first; must end on a coarse one")
    frames: int | None = arg(None, "frames of a video, instead of --sample_length")
    decode_group_norm_in_pieces: bool = arg(False, GROUP_NORM)
    sample_resolution: int | None = arg(None, "rows and columns of codes, as trained")
    temporal_sample_pos: int = arg(1, "coarse frames that the coarse transformer sees of what it made before")
    gap_batch: int = arg(16, "gaps between coarse frames that are filled at once, over all videos of a batch")
    schedule: str | None = arg(None, SCHEDULE)
    audio: str | None = arg(None, AUDIO)
    stft_vqgan_ckpt: str | None = arg(None, "checkpoint of the VQGAN of sounds, with --audio or sounds in --schedule")
    judge: LongJudgeConfig = field(default_factory=LongJudgeConfig)
    given: ContinueConfig = field(default_factory=ContinueConfig)
    output: HierarchicalOutputConfig = field(default_factory=HierarchicalOutputConfig)
    draw: HierarchicalDrawConfig = field(default_factory=HierarchicalDrawConfig)


@dataclass(frozen=True)
class AudioOutputConfig(LongOutputConfig):
    """How many videos, and what is written."""

    save: str = arg("./results/tats", "folder that receives everything")
    n_sample: int | None = arg(  # type: ignore[assignment]
        None, "videos altogether (none: 2048 of a data set, whose clips take turns; 1 of --audio)"
    )
    dataset: str = arg("drum", "any name; stands in the names of files")
    fps: float | None = arg(  # type: ignore[assignment]
        None, "frames per second of the videos (none: those of the video that sounds; 16 of a sound file)"
    )

    def __post_init__(self) -> None:
        if self.n_sample is not None and self.n_sample < 1:
            raise UserError(f"--n_sample counts videos, got {self.n_sample}")
        if self.fps is not None and not self.fps > 0:
            raise UserError(f"--fps must be above 0, got {self.fps}")

    def filled(self, n_sample: int, fps: float) -> "AudioOutputConfig":
        """The same with numbers where none were given."""
        return replace(self, n_sample=self.n_sample or n_sample, fps=self.fps or fps)


@dataclass(frozen=True)
class AudioConfig:
    """Makes videos from sound: from the clips of a data set, or from a sound file of any length."""

    gpt_ckpt: str = arg("", "checkpoint of the transformer (needed)")
    vqgan_ckpt: str = arg("", "checkpoint of the VQGAN whose codes it makes (needed)")
    stft_vqgan_ckpt: str = arg("", "checkpoint of the VQGAN of sounds (needed)")
    data_path: str = arg("./dataset/AudioSet_Dataset/stft", "folder with stft/ and the videos, whose test clips sound")
    audio: str | None = arg(
        None, "a sound or video file (wav, flac, mp3, mp4, ...) of any length, instead of a data set"
    )
    frames: int | None = arg(None, "frames of a video of --audio, at most (none: as long as the sound lasts)")
    temporal_sample_pos: int | None = arg(
        None, "latent frames that the transformer sees of what it made before (none: all but one of a window)"
    )
    decode_group_norm_in_pieces: bool = arg(False, GROUP_NORM)
    output: AudioOutputConfig = field(default_factory=AudioOutputConfig)
    draw: DrawConfig = field(default_factory=DrawConfig)

    def __post_init__(self) -> None:
        if self.frames is not None and self.audio is None:
            raise UserError("--frames is for --audio: clips of a data set are as long as a window")
        if self.frames is not None and self.frames < 1:
            raise UserError(f"--frames counts frames, 1 or more, got {self.frames}")
