"""The flags that say what a clip is and where it comes from: those of both training scripts, of sample_short.py and
of several verbs. Imports nothing but `tats.flags`."""

import math
from dataclasses import dataclass

from tats.flags import UserError, arg


@dataclass(frozen=True)
class DataConfig:
    """Where the clips come from and how they are cut."""

    data_path: str | None = arg(
        None,
        "folder with train/ and test/; or an HDF5 file; or zip files of pictures; or a folder of code shards, which "
        "may lie at an address (s3://...)",
    )
    sequence_length: int = arg(16, "frames of a clip, before --sample_every_n_frames")
    resolution: int = arg(64, "height and width of a clip (with --vtokens on HDF5: of the stored codes)")
    sample_every_n_frames: int = arg(
        1, "keep every n-th frame of the clip; with --image_folder the clip spans n times as many frames instead"
    )
    image_channels: int = arg(3, "channels of a clip: 3, or 1 for brightness only")
    batch_size: int = arg(32, "clips of one batch, per process")
    num_workers: int = arg(8, "processes that load clips, at most one per processor core; 0: none but the main one")
    keep_gb: float = arg(0.0, "memory, in each loading process, for videos that are decoded once and kept (0: none)")
    worker_start: str | None = arg(
        None, "how these processes start; none: as Python does here", ["fork", "spawn", "forkserver"]
    )
    image_folder: bool = arg(False, "--data_path holds folders of pictures, one folder per video")
    test_share: float = arg(0.1, "with --image_folder and no train/ and test/: share of the folders that tests")
    split_seed: int = arg(0, "with --image_folder: which folders these are")
    cache_dir: str | None = arg(
        None, "folder of this machine that keeps the codes of an address; none: tats/remote in the user's cache"
    )
    vtokens: bool = arg(False, "clips are codes computed beforehand (`tats tokenize`, or HDF5): nothing is decoded")
    spatial_length: int = arg(
        15,
        "rows and columns of the random crops of codes, with --vtokens on HDF5, and on shards with --vtokens_pos",
    )
    latent_frames: int | None = arg(
        None, "with --vtokens on shards: latent frames of a window, cut from a stored clip at random; none: all of it"
    )
    stft_data: bool = arg(False, "videos with their sound as STFT: --data_path holds stft/ and video/")
    text_cond: bool = arg(False, "clips carry their text: captions.json or .csv of a split, text file of an HDF5 file")
    text_path: str | None = arg(None, "file with the texts of both splits: JSON, CSV, or MUGEN's own JSON")
    smap_cond: int = arg(0, "number of classes of the semantic maps that clips carry; 0: none")
    smap_only: bool = arg(False, "the semantic maps are the video")
    smap_path: str | None = arg(None, "folder or HDF5 file with the semantic maps, laid out as --data_path")
    check_videos: str = arg(
        "ends", "what is decoded of a video file when it is indexed: its ends, or all of it", ["ends", "all"]
    )
    index_workers: int | None = arg(None, "processes that index video files; none: one per processor core")

    def __post_init__(self) -> None:
        for name in ("sequence_length", "resolution", "sample_every_n_frames", "batch_size", "spatial_length"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.latent_frames is not None and self.latent_frames < 1:
            raise UserError(f"--latent_frames must be at least 1, got {self.latent_frames}")
        if self.keep_gb < 0:
            raise UserError(f"--keep_gb counts gigabytes, 0 or more, got {self.keep_gb}")
        if self.num_workers < 0:
            raise UserError(f"--num_workers counts processes, 0 or more, got {self.num_workers}")
        if self.index_workers is not None and self.index_workers < 1:
            raise UserError(f"--index_workers counts processes, 1 or more, got {self.index_workers}")
        if self.image_channels not in (1, 3) and not self.smap_only:
            raise UserError(f"--image_channels must be 1 or 3, got {self.image_channels}")
        if not 0 <= self.test_share < 1:
            raise UserError(f"--test_share is a share of the folders, from 0 to below 1, got {self.test_share}")
        if self.smap_only and not self.smap_cond:
            raise UserError("--smap_only needs --smap_cond N, the number of classes of the semantic maps")

    @property
    def clip_frames(self) -> int:
        """Frames of a clip as the model sees it."""
        if self.image_folder:
            return self.sequence_length
        return math.ceil(self.sequence_length / self.sample_every_n_frames)

    @property
    def span(self) -> int:
        """Frames of the window in a video that a clip is taken from; a video with fewer has no clip."""
        if self.image_folder:
            return (self.sequence_length - 1) * self.sample_every_n_frames + 1
        return self.sequence_length

    def describe(self) -> str:
        """One line: the frames of a clip, and the window of the video they are taken from."""
        every = self.sample_every_n_frames
        kept = "every frame" if every == 1 else f"one frame in {every}"
        return f"clips of {self.clip_frames} frames, {kept} of a window of {self.span} frames of the video"
