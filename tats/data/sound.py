"""Videos with their sound as STFT: `<data_path>/stft/{train,test}/.../<name>.pickle` and, beside stft/, the video file
`<data_path>/video/{train,test}/.../<name>.mp4` (or another suffix).

A pickle holds one array [n, H, W] of numbers in [0, 1], one picture of the sound per video frame; `.npy` files serve
too. Nothing of a pickle is run: only plain arrays are accepted. `--data_path` may also be the folder stft/ itself.
"""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats.data.config import DataConfig
from tats.data.index import index_folder
from tats.data.left_out import check_short, check_unreadable
from tats.flags import UserError
from tats.reader import SUFFIXES, ReadError, read_clip
from tats.video import preprocess

SIZE = (64, 16)  # rows and columns of the sound of one frame, as published
ENDINGS = (".pickle", ".pkl", ".npy")
ARRAY_PARTS = {  # what a pickled numpy array names, by old and new numpy
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how protocol 2 spells bytes
}


class SoundVideos:
    """The pairs of one split as a source of clips, one per video and epoch.

    `names` of the videos, `starts` int64 [n] windows that lie in both video and sound, `clips` int64 [n] ones.
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: no such folders, sounds without video, too many unreadable, or none long enough.
        """
        self.config, self.span = config, config.span
        root = Path(config.data_path or "").expanduser()
        root = root if (root / "stft").is_dir() or root.name != "stft" else root.parent
        self.sounds, self.root = root / "stft" / split, root / "video" / split
        for folder in (self.sounds, self.root):
            if config.data_path is None or not folder.is_dir():
                raise UserError(
                    f"--stft_data: no folder {folder}. Lay sounds out as stft/{split}/ and videos as video/{split}/"
                )
        pairs = self._pairs()
        entries = index_folder(
            self.root, [name for _, name in pairs], config.check_videos == "all", config.index_workers
        )
        kept, problems, short = [], [], []
        for (sound, name), entry in zip(pairs, entries, strict=True):
            try:
                if entry.timeline is None:
                    raise ReadError(f"{name}: {entry.problem}")
                length = min(len(read_stft(self.sounds / sound)), entry.timeline.n_frames)
            except ReadError as error:
                problems.append(str(error))
                continue
            if length < config.span:
                short.append(name)
            else:
                kept.append((sound, name, entry.timeline, length))
        check_unreadable(str(self.sounds), problems, len(pairs))
        check_short(str(self.sounds), short, len(short) + len(kept), config.span)
        self._kept = kept
        self.names = [name for _, name, _, _ in kept]
        self.starts = np.array([length for *_, length in kept], np.int64) - config.span + 1
        self.clips = np.ones(len(kept), np.int64)

    def _pairs(self) -> list[tuple[str, str]]:
        """Sound files and the videos of the same name, sorted."""
        sounds = _files(self.sounds, ENDINGS)
        videos = {os.path.splitext(name)[0]: name for name in _files(self.root, SUFFIXES)}
        missing = [name for name in sounds if os.path.splitext(name)[0] not in videos]
        if missing or not sounds:
            what = (
                f"no video for {len(missing)} of {len(sounds)} sounds: {', '.join(missing[:5])}"
                if sounds
                else "no sounds"
            )
            raise UserError(f"{self.sounds}: {what}; each needs a file of the same name in {self.root}")
        return [(name, videos[os.path.splitext(name)[0]]) for name in sounds]

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [C, t, res, res], `stft` float [1, n, 64, 16] in [-1, 1], `label` 0, `path`.

        `--sample_every_n_frames` thins out the video and not the sound, as published.
        """
        config = self.config
        sound, name, timeline, _ = self._kept[video]
        frames = read_clip(self.root / name, timeline, start, config.span, config.sample_every_n_frames)
        return {
            "video": preprocess(frames, config.resolution, image_channels=config.image_channels),
            "stft": sound_pictures(read_stft(self.sounds / sound), start, config.span),
            "label": 0,
            "path": str(self.root / name),
        }


def sound_pictures(stft: np.ndarray, start: int, count: int) -> Tensor:
    """Pictures start to start + count of a sound, [n, H, W] in [0, 1] -> float32 [1, count, 64, 16] in [-1, 1]."""
    levels = torch.from_numpy(stft[start : start + count].astype(np.float32)) * 2 - 1
    return F.interpolate(levels[:, None], size=SIZE, mode="bilinear", align_corners=False).transpose(0, 1).contiguous()


def read_stft(path: Path) -> np.ndarray:
    """The array of a sound file, float [n, H, W].

    Raises:
        ReadError: the file cannot be read, holds something else than an array of numbers, or would run code.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            array = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
        array = np.asarray(array)
    except (OSError, ValueError, TypeError, EOFError, IndexError, AttributeError, pickle.UnpicklingError) as error:
        raise ReadError(f"{path}: {' '.join(str(error).split())}") from error
    if array.ndim != 3 or array.dtype.kind not in "fui" or not array.size:
        raise ReadError(f"{path}: a sound is an array [pictures, rows, columns] of numbers, this is {array.dtype} {list(array.shape)}")  # fmt: skip  # noqa: E501
    return array


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and nothing else: every other name in the file is refused before anything is made of it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"holds {module}.{name}; only plain arrays are read")
        return super().find_class(module, name)


def _files(root: Path, endings: tuple[str, ...]) -> list[str]:
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.name.lower().endswith(endings)]
    return sorted(name for name in found if not Path(name).name.startswith("."))
