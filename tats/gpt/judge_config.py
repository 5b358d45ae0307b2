"""The flags with which the sampling scripts judge what they have made. No torch here."""

from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class JudgeConfig:
    """How the videos are judged."""

    compute_fvd: bool = arg(False, "compare with clips of --data_path; needs --i3d_ckpt or --features_ckpt")
    protocol: str = arg("tats", "the published evaluation that is followed (docs/protocols.md)")
    i3d_ckpt: str | None = arg(None, "weights of I3D: the score is FVD")
    features_ckpt: str | None = arg(None, "a network of `tats evaluate --train_features`: the score has its own name")

    def __post_init__(self) -> None:
        if self.features_ckpt is not None and self.i3d_ckpt is not None:
            raise UserError("--features_ckpt and --i3d_ckpt are two networks: give one of them")


@dataclass(frozen=True)
class LongJudgeConfig(JudgeConfig):
    """How the videos are judged, and where the real clips lie."""

    data_path: str | None = arg(None, "real videos for --compute_fvd: folder with train/ and test/, or an HDF5 file")
    sequence_length: int | None = arg(
        None, "frames of a clip that is compared, from the start of each video (none: as the protocol says)"
    )
    resolution: int | None = arg(None, "height and width at which clips are compared (none: as the protocol says)")
    sample_every_n_frames: int | None = arg(None, "keep every n-th frame of a real video (none: as the protocol says)")
    image_folder: bool = arg(False, "--data_path holds folders of pictures, one folder per video")
    num_workers: int = arg(8, "processes that load real clips, at most one per processor core")
