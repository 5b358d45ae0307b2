"""From flags to loaders: pick the source that fits `--data_path`, make the batches.

    data = VideoData(config, seed=1234)
    for batch in data.train_loader():
        batch["video"], batch["label"]           # float [B, C, T, H, W] in [-0.5, 0.5], int64 [B]

What a batch holds besides `video`, `label` and `index` depends on the flags: `text` (list of strings), `stft`
(float [B, 1, T, 64, 16]), `cbox` (int64 [B, 4]), `video_smap` (float [B, classes, T, H, W]). With `--vtokens`,
`video` is int64 codes [B, t, h, w].
"""

import math
from typing import Any

from tats.data.clips import VideoFolder
from tats.data.codes import CodeFile, CodeShards
from tats.data.config import DataConfig
from tats.data.frames import FrameFolder
from tats.data.hdf5 import VideoFile
from tats.data.left_out import say
from tats.data.litdata_codes import LitCodes, is_litdata
from tats.data.loader import Clips, Loader, Order, Source
from tats.data.remote import is_address
from tats.data.room import check_workers
from tats.data.sound import Sounds, SoundVideos
from tats.data.stores import zips_at
from tats.flags import UserError, existing_path

__all__ = ["DataConfig", "VideoData"]


class VideoData:
    """The two splits of a data set and their loaders. Nothing is read before it is asked for.

    crop_codes: code shards give random crops of `--spatial_length` rows and columns, as HDF5 files of codes always do.
    sounds_alone: with --stft_data, `video` of a batch is the sound, float [B, 1, T, 64, 16] in [-1, 1], and no video is
    decoded: what the VQGAN of sounds is trained with.
    """

    def __init__(self, config: DataConfig, *, seed: int, crop_codes: bool = False, sounds_alone: bool = False):
        self.config, self.seed, self.crop_codes, self.sounds_alone = config, seed, crop_codes, sounds_alone
        self._sources: dict[str, Any] = {}

    def source(self, split: str) -> Any:
        """The source of `train` or `test`; made when first asked for, and its clips described in one line.

        Raises:
            UserError: the data is missing, broken beyond what may be left out, or too short.
        """
        if split not in self._sources:
            if split == "train":
                say(self.config.describe())
            self._sources[split] = self._make(split)
        return self._sources[split]

    @property
    def label_names(self) -> list[str]:
        """Names of the classes of the train split, by id; empty when the data has no classes."""
        return list(getattr(self.source("train"), "label_names", None) or [])

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 when the data has none."""
        return len(self.label_names)

    @property
    def n_codes(self) -> int | None:
        """With --vtokens: size of the codebook the codes come from; else None."""
        return getattr(self.source("train"), "n_codes", None)

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """With --vtokens: latent frames, rows and columns of one clip; else None."""
        return getattr(self.source("train"), "latent_shape", None)

    @property
    def code_side(self) -> int | None:
        """With --vtokens: longer side of the stored pictures of codes, of which clips may be crops; else None."""
        return getattr(self.source("train"), "code_side", None)

    @property
    def fingerprint(self) -> str | None:
        """With --vtokens: fingerprint of the VQGAN the codes come from, None when the file does not tell."""
        return getattr(self.source("train"), "vqgan", None)

    def need_vqgan(self, fingerprint: str) -> None:
        """Check that the codes come from the VQGAN with this fingerprint; codes that do not tell get a line.

        Raises:
            UserError: they come from another one.
        """
        path = self.config.data_path
        if self.fingerprint is None:
            say(f"--data_path {path} does not tell which VQGAN made its codes; the given one is believed")
        elif self.fingerprint != fingerprint:
            raise UserError(
                f"--data_path {path} holds codes of another VQGAN (fingerprint {self.fingerprint[:12]}, the given "
                f"one has {fingerprint[:12]}). Give the VQGAN that made them, or make them anew with `tats tokenize`"
            )

    def captions(self, split: str) -> list[tuple[str, str]]:
        """All captions of a split with the videos that they belong to: (name of the video, caption).

        Raises:
            UserError: the data has none.
        """
        source = self.source(split)
        texts = getattr(source, "texts", None)
        if not texts:
            raise UserError(
                f"{self.config.data_path} has no captions that could be read with these flags: lay captions.json "
                f"beside the videos of each split, or give --text_path"
            )
        names = getattr(source, "names", None) or [f"{split} video {number}" for number in range(len(texts))]
        return [(name, text) for name, found in zip(names, texts, strict=True) for text in found]

    def need_classes(self) -> None:
        """Check that labels can be a condition.

        Raises:
            UserError: the data has no classes, or one only.
        """
        if self.n_classes < 2:
            found = f"only one class, '{self.label_names[0]}'" if self.n_classes else "no classes"
            raise UserError(
                f"{self.config.data_path} has {found}, and a label as condition needs two or more: lay videos out as "
                f"train/<class>/<file>, or train with --unconditional"
            )

    def train_loader(
        self,
        batch_size: int | None = None,
        *,
        epoch: int = 0,
        start_batch: int = 0,
        rank: int | None = None,
        world: int | None = None,
        raw: bool = False,
    ) -> Loader:
        """Shuffled clips at random windows, from batch `start_batch` of `epoch` on.

        `batch_size` clips per process, by default that of the flags; `rank` of `world` processes, by default those of
        torch.distributed when the batches are asked for. The same for every number of workers. raw: prepared frames
        come as `frames` uint8 [B, T, H, W, C] in place of `video`, for `tats.video.with_video` on the device.

        Raises:
            UserError: the data cannot be read, or batches on their way from the workers do not fit into shared memory.
        """
        loader = self._loader("train", batch_size, rank, world, raw)
        loader.load_state_dict({"epoch": epoch, "batch": start_batch})
        return loader

    def test_loader(
        self, batch_size: int | None = None, *, rank: int | None = None, world: int | None = None, raw: bool = False
    ) -> Loader:
        """All clips of the test split in order, at fixed windows. raw: see `train_loader`."""
        return self._loader("test", batch_size, rank, world, raw)

    def _loader(self, split: str, batch_size: int | None, rank: int | None, world: int | None, raw: bool) -> Loader:
        train, batch_size = split == "train", batch_size or self.config.batch_size
        clips = Clips(self.source(split), self.seed, train, raw)
        check_workers(self.config.num_workers, batch_size * self._clip_bytes(split))
        order = Order(len(clips), batch_size, self.seed, train, rank, world)
        return Loader(clips, order, self.config.num_workers, self.config.worker_start, raw)

    def _clip_bytes(self, split: str) -> int:
        """What a clip takes in memory, at most."""
        config, shape = self.config, getattr(self.source(split), "latent_shape", None)
        if shape is not None:
            return 8 * math.prod(shape)
        return 4 * (config.image_channels + config.smap_cond) * config.clip_frames * config.resolution**2

    def _far(self, split: str) -> Source:
        """Data at an address: code shards."""
        if not self.config.vtokens:
            raise UserError(
                f"--data_path {self.config.data_path}: of data at an address only codes are read: give --vtokens, or "
                f"copy the videos to this machine"
            )
        return self._codes(split)

    def _codes(self, split: str) -> Source:
        """Folders of codes, here or at an address: shards, or the form of litdata."""
        if is_litdata(str(self.config.data_path), split):
            if self.crop_codes:
                raise UserError("codes for litdata are not cropped: train with --vtokens_pos from code shards")
            return LitCodes(self.config, split)
        return CodeShards(self.config, split, self.crop_codes)

    def _make(self, split: str) -> Source:
        config = self.config
        if config.data_path is None:
            raise UserError(
                "--data_path is needed: a folder with train/ and test/, one folder of videos per class in each"
            )
        if is_address(config.data_path):
            return self._far(split)
        path = existing_path(config.data_path, "--data_path")
        if config.vtokens:
            return CodeFile(config, split) if path.is_file() else self._codes(split)
        if config.image_folder or zips_at(path, split, config.resolution):
            return FrameFolder(config, split)
        if config.stft_data and self.sounds_alone:
            return Sounds(config, split)
        if config.stft_data:
            return SoundVideos(config, split, self._train_names(split))
        if path.is_file():
            return VideoFile(config, split)
        return VideoFolder(config, split, self._train_names(split))

    def _train_names(self, split: str) -> list[str] | None:
        """The classes that the videos of a split may be of; None for the train split, which says so itself."""
        return None if split == "train" else self.source("train").label_names
