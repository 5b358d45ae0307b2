"""The flags of `tats evaluate`. No torch here."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tats.data.config import DataConfig
from tats.flags import UserError, arg
from tats.gpt.sample_config import DrawConfig
from tats.metrics.protocols import REAL_CLIPS, SPLITS, Protocol, find


@dataclass(frozen=True)
class ClipConfig(DataConfig):
    """Where the clips come from and how they are cut."""

    sequence_length: int | None = arg(  # type: ignore[assignment]  # filled in by `data`
        None, "frames of a clip, before --sample_every_n_frames (none: as the protocol says)"
    )
    resolution: int | None = arg(  # type: ignore[assignment]
        None, "height and width at which clips are judged (none: as the protocol says)"
    )
    sample_every_n_frames: int | None = arg(  # type: ignore[assignment]
        None, "keep every n-th frame of a real clip; with --image_folder its span is n times longer (none: protocol's)"
    )

    def __post_init__(self) -> None:
        self.data()

    def data(self, **values: Any) -> DataConfig:
        """Plain settings of a data set: `values`, then what the flags say, then the defaults."""
        own = {each.name: getattr(self, each.name) for each in fields(DataConfig)}
        return DataConfig(**{name: value for name, value in {**own, **values}.items() if value is not None})

    @property
    def choices(self) -> dict[str, Any]:
        """What these flags choose of a protocol; None where they leave it as it is."""
        stride, length = self.sample_every_n_frames, self.sequence_length
        frames = length if length is None or self.image_folder else math.ceil(length / (stride or 1))
        size = None if self.resolution is None else (self.resolution, self.resolution)
        return {"frames": frames, "stride": stride, "size": size}


@dataclass(frozen=True)
class ModelDrawConfig(DrawConfig):
    """How codes are drawn, with --gpt_ckpt."""

    seed: int | None = arg(None, "seed of everything random (none: the protocol's, or 0)")  # type: ignore[assignment]


@dataclass(frozen=True)
class ChoiceConfig:
    """Choices of the protocol; with any that differs, the score is called (modified)."""

    limit: int | None = arg(None, "clips of each side, at most, as --n_generated and --n_real")
    n_generated: int | None = arg(None, "generated clips (of pictures: frames) that are taken, at most")
    n_real: int | None = arg(None, "real clips that are taken, at most")
    split: str | None = arg(None, "which part of --data_path is real", SPLITS)
    real_clips: str | None = arg(None, "which clips of it", REAL_CLIPS)
    generated_stride: int | None = arg(None, "keep every n-th frame of a generated video")
    offset: int | None = arg(None, "generated clips start at a random frame from 0 to this one")
    resize: str | None = arg(None, "how pictures get their size", ["bilinear", "antialias"])
    levels: str | None = arg(None, "how pixels become 0 to 255", ["truncated", "rounded"])
    ddof: int | None = arg(None, "1: the covariance is divided by N - 1, 0: by N", [0, 1])
    group: int | None = arg(None, "clips of one statistic; the score is the mean over groups")
    context: int | None = arg(None, "frames at the start of a clip that pairs leave out")
    num_runs: int | None = arg(None, "repeat with other seeds: mean and deviation")

    @property
    def choices(self) -> dict[str, Any]:
        """By the names of `Protocol`; None where they leave it as it is."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("limit", "num_runs")}
        own["n_generated"], own["n_real"] = self.n_generated or self.limit, self.n_real or self.limit
        return {**own, "runs": self.num_runs}


@dataclass(frozen=True)
class NllConfig:
    """How well a transformer foresees the codes of --data_path; nothing is sampled."""

    nll: bool = arg(False, "bits per code and per pixel dimension that --gpt_ckpt needs for the clips of --data_path")
    nll_shuffled: bool = arg(False, "with --nll: the same behind the condition of another clip, for comparison")
    stft_vqgan_ckpt: str | None = arg(None, "with --nll: VQGAN of sounds, for transformers by sound")
    smap_vqgan_ckpt: str | None = arg(None, "with --nll: VQGAN of semantic maps, for transformers by maps")
    bpe_path: str | None = arg(None, "with --nll: CLIP's byte pairs, for transformers that do not hold their own")
    truncate_captions: bool = arg(False, "with --nll: cut captions that are longer than the trained ones")

    def __post_init__(self) -> None:
        for name in ("nll_shuffled", "stft_vqgan_ckpt", "smap_vqgan_ckpt", "bpe_path", "truncate_captions"):
            if getattr(self, name) and not self.nll:
                raise UserError(f"--{name} belongs to --nll: give both, or leave it out")


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores videos by a protocol, compares two sets of clips, or trains a feature network."""

    protocol: str | None = arg(
        None, "a published evaluation by name (docs/protocols.md; none: two folders as they are, else tats)"
    )
    generated: str | None = arg(None, "generated videos: folder or file of .npy, .npz, videos, or codes (--vqgan_ckpt)")
    real: str | None = arg(None, "real clips, likewise, in place of --data_path (`tats evaluate GENERATED REAL` works)")
    gpt_ckpt: str | None = arg(None, "a transformer that samples the generated videos as they are judged")
    vqgan_ckpt: str | None = arg(None, "the VQGAN that decodes them, or codes below --generated")
    temporal_sample_pos: int = arg(1, "with clips longer than the trained ones: latent frames that it sees again")
    reconstruct: bool = arg(False, "the generated clips are what --vqgan_ckpt makes of the real ones")
    features_ckpt: str | None = arg(None, "a network of --train_features (none: as the protocol says)")
    i3d_ckpt: str | None = arg(None, "weights of I3D, instead of those that `tats weights` has fetched")
    lpips_ckpt: str | None = arg(None, "weights of LPIPS for pairs: alexnet, vgg16, or a file (none: no LPIPS)")
    replace_cache: bool = arg(False, "describe the real clips anew, whatever is stored of them")
    out: str | None = arg(None, "JSON file for the result")
    train_features: bool = arg(
        False, "train a feature network on the classes of --data_path and write it to --features_ckpt"
    )
    feature_steps: int = arg(300, "training steps of the feature network, 32 clips each")
    feature_clips: int = arg(2000, "clips that it learns from, at most; of 16 frames each they take 100 MB")
    likelihood: NllConfig = field(default_factory=NllConfig)
    choice: ChoiceConfig = field(default_factory=ChoiceConfig)
    data: ClipConfig = field(default_factory=ClipConfig)
    draw: ModelDrawConfig = field(default_factory=ModelDrawConfig)

    def __post_init__(self) -> None:
        for name, value in (("limit", self.choice.limit), ("feature_steps", self.feature_steps),
                            ("feature_clips", self.feature_clips)):  # fmt: skip
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.features_ckpt is not None and self.i3d_ckpt is not None:
            raise UserError("--features_ckpt and --i3d_ckpt are two networks: give one of them")
        makers = [flag for flag in ("generated", "gpt_ckpt", "reconstruct") if getattr(self, flag)]
        if len(makers) > 1:
            raise UserError(f"--{makers[0]} and --{makers[1]} are two sources of generated videos: give one of them")
        if (self.gpt_ckpt or self.reconstruct) and not self.vqgan_ckpt:
            raise UserError(f"--{makers[0]} needs --vqgan_ckpt, which turns codes into videos")
        if self.protocol is not None:
            find(self.protocol)
        if self.likelihood.nll:
            self._check_nll()

    def _check_nll(self) -> None:
        """What --nll needs, and what does not go with it."""
        if not self.gpt_ckpt or self.data.data_path is None:
            raise UserError("--nll needs --gpt_ckpt and --vqgan_ckpt, the models, and --data_path, what they foresee")
        if self.train_features or self.protocol is not None:
            other = "train_features" if self.train_features else "protocol"
            raise UserError(f"--nll looks at codes, not at features: leave --{other} out")

    @property
    def path(self) -> Path:
        """Where the feature network lies."""
        return Path(self.features_ckpt or "runs/features.pt")

    @property
    def seed(self) -> int:
        """Seed of what no protocol states."""
        return self.draw.seed or 0

    def recipe(self) -> Protocol:
        """The protocol, with the choices that the flags make."""
        name = self.protocol or ("clips" if self.generated and self.real else "tats")
        chosen = {**self.data.choices, **self.choice.choices, "seed": self.draw.seed}
        return find(name).with_choices(**chosen)
