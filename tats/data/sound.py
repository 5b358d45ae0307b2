"""Videos with their sound as STFT, and sounds alone. Two layouts:

    <data_path>/stft/{train,test}/.../<name>.npy      <data_path>/video/{train,test}/.../<name>.mp4      as published
    <data_path>/stft/{train,test}/.../<name>.npy      <data_path>/{train,test}/.../<name>.mp4            as our own

`tats prepare --stft` writes the sounds; `tats.data.spectrogram` says what they hold. A `.pickle`, as published, holds
one array [n, H, W] of numbers in [0, 1] too, one picture of the sound per video frame. Nothing of a pickle is run: only
plain arrays are accepted. `--data_path` may also be the folder stft/ itself.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats.arrays import ArrayError, read_npy
from tats.data import pickled_arrays
from tats.data.clips import VideoFolder, find_videos
from tats.data.config import DataConfig
from tats.data.left_out import check_short, check_unreadable, named, say
from tats.data.spectrogram import SIZE
from tats.flags import UserError
from tats.reader import ReadError

ENDINGS = (".pickle", ".pkl", ".npy")


class SoundVideos:
    """The videos of one split that have a sound, as a source of clips: those of `VideoFolder`, with their sound.

    `names` of the videos, `labels` int64 [n] and `label_names`, `texts` as `VideoFolder` has them, `starts` int64 [n]
    windows that lie in both video and sound, `clips` int64 [n] per epoch.
    """

    def __init__(self, config: DataConfig, split: str, label_names: list[str] | None = None):
        """Raises:
        UserError: no such folders, sounds without video, too many unreadable, or none long enough.
        """
        self.config, self.span = config, config.span
        self.sounds = sound_folder(config, split)
        self.root = film_folder(config, split)
        files = _files(self.sounds)
        films = {os.path.splitext(name)[0] for name in find_videos(self.root)}
        alone = [name for name in files if os.path.splitext(name)[0] not in films]
        if alone:
            raise UserError(
                f"{self.sounds}: no video for {len(alone)} of {len(files)} sounds: {named(alone)}; each needs a file "
                f"of the same name in {self.root}"
            )
        self.videos = VideoFolder(replace(config, data_path=str(self.root.parent)), split, label_names)
        sounds = {os.path.splitext(name)[0]: name for name in files}
        pairs = [(row, sounds.get(os.path.splitext(name)[0])) for row, name in enumerate(self.videos.names)]
        silent = [self.videos.names[row] for row, sound in pairs if sound is None]
        if silent:
            say(f"{self.root}: left out {len(silent)} of {len(pairs)} videos that have no sound: {named(silent)}")
        heard = {row: sound for row, sound in pairs if sound is not None}
        lengths = _lengths(self.sounds, list(heard.values()), config.span)
        self._kept = [(row, sound) for row, sound in heard.items() if sound in lengths]
        rows = [row for row, _ in self._kept]
        self.names = [self.videos.names[row] for row in rows]
        self.labels, self.label_names = self.videos.labels[rows], self.videos.label_names
        self.texts = None if self.videos.texts is None else [self.videos.texts[row] for row in rows]
        frames = np.minimum(self.videos.starts[rows] + config.span - 1, [lengths[sound] for _, sound in self._kept])
        self.starts = frames - config.span + 1
        self.clips = frames // config.span

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: what `VideoFolder.read` gives, `stft` float [1, n, 64, 16] in [-1, 1], and `path`, of the video.

        `--sample_every_n_frames` thins out the video and not the sound, as published.
        """
        clip = self.videos.read(self._kept[video][0], start, draw)
        return clip | {"stft": self.hear(video, start), "path": str(self.path(video))}

    def hear(self, video: int, start: int) -> Tensor:
        """The sound of one clip alone: float [1, n, 64, 16] in [-1, 1]."""
        return _clip(self.sounds / self._kept[video][1], start, self.span)

    def path(self, video: int) -> Path:
        """The file of one video."""
        return self.videos.path(self._kept[video][0])


class Sounds:
    """The sounds of one split alone, as a source of clips for the VQGAN of sounds; no video is looked at.

    `names` of the files, `starts` and `clips` as `SoundVideos` has them.
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: no such folder, too many unreadable, or none long enough.
        """
        self.config, self.span = config, config.span
        self.sounds = sound_folder(config, split)
        lengths = _lengths(self.sounds, _files(self.sounds), config.span)
        self.names = list(lengths)
        pictures = np.array(list(lengths.values()), np.int64)
        self.starts, self.clips = pictures - config.span + 1, pictures // config.span

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [1, n, 64, 16] in [-1, 1], the pictures of a sound; `label` 0."""
        return {"video": _clip(self.sounds / self.names[video], start, self.span), "label": 0}


def sound_folder(config: DataConfig, split: str) -> Path:
    """`stft/<split>` of --data_path.

    Raises:
        UserError: there is no such folder; what makes it is named.
    """
    folder = _top(config) / "stft" / split
    if config.data_path is None or not folder.is_dir():
        raise UserError(
            f"--stft_data: no folder {folder}. `tats prepare --stft --data_path DIR` makes it for the videos in "
            f"DIR/{split}/, or lay sounds out as stft/{split}/ and videos as video/{split}/"
        )
    return folder


def film_folder(config: DataConfig, split: str) -> Path:
    """The folder of the videos that sounds in stft/<split> belong to: video/<split>, or <split>.

    Raises:
        UserError: there is neither.
    """
    top = _top(config)
    folders = [top / "video" / split, top / split]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise UserError(f"--stft_data: no folder {folders[0]}, and no {folders[1]}: the videos must lie in one of them")
    return found


def _top(config: DataConfig) -> Path:
    """The folder that holds stft/, of which --data_path may be either."""
    root = Path(config.data_path or "").expanduser()
    return root if (root / "stft").is_dir() or root.name != "stft" else root.parent


def _files(folder: Path) -> list[str]:
    """Names of the sounds in `folder`, sorted.

    Raises:
        UserError: there are none.
    """
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name.lower().endswith(ENDINGS)]
    names = sorted(name for name in found if not Path(name).name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no sounds, looked for {' '.join('*' + ending for ending in ENDINGS)}")
    return names


def _lengths(folder: Path, names: list[str], span: int) -> dict[str, int]:
    """How many pictures each sound has that can be read and is long enough; the others are named."""
    lengths, problems, short = {}, [], []
    for name in names:
        try:
            length = len(read_stft(folder / name))
        except ReadError as error:
            problems.append(str(error))
            continue
        if length < span:
            short.append(name)
        else:
            lengths[name] = length
    check_unreadable(str(folder), problems, len(names))
    check_short(str(folder), short, len(short) + len(lengths), span)
    return lengths


def _clip(path: Path, start: int, count: int) -> Tensor:
    """`sound_pictures` of a file, whose numbers are checked."""
    pictures = sound_pictures(read_stft(path), start, count)
    if not (pictures.min() >= -1.01 and pictures.max() <= 1.01):
        raise ReadError(
            f"{path}: the numbers of a sound lie in [0, 1], these reach from {(pictures.min() + 1) / 2:.3g} to "
            f"{(pictures.max() + 1) / 2:.3g}"
        )
    return pictures


def sound_pictures(stft: np.ndarray, start: int, count: int) -> Tensor:
    """Pictures start to start + count of a sound, [n, H, W] in [0, 1] -> float32 [1, count, 64, 16] in [-1, 1]."""
    levels = torch.from_numpy(stft[start : start + count].astype(np.float32)) * 2 - 1
    return F.interpolate(levels[:, None], size=SIZE, mode="bilinear", align_corners=False).transpose(0, 1).contiguous()


def read_stft(path: Path) -> np.ndarray:
    """The array of a sound file, float [n, H, W]; of a .npy file, what is used of it is read when it is used.

    Raises:
        ReadError: the file cannot be read, holds something else than an array of numbers, or would run code.
    """
    try:
        array = read_npy(path) if path.suffix == ".npy" else pickled_arrays.load(path.read_bytes())
    except ArrayError as error:
        raise ReadError(str(error) if path.suffix == ".npy" else f"{path}: {error}") from None
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}") from error
    if array.ndim != 3 or array.dtype.kind not in "fui" or not array.size:
        raise ReadError(f"{path}: a sound is an array [pictures, rows, columns] of numbers, this is {array.dtype} {list(array.shape)}")  # fmt: skip  # noqa: E501
    return array
