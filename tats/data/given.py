"""Given videos: whatever the data pipeline reads, one after the other, at any frames of them.

    given = open_given("videos/test/red_circle", split="test")
    given.names, given.classes, given.lengths, given.rates     # per video: str, str, frames, frames per second or None
    given.video(0, range(8, 16), resolution=64, channels=3)    # float [3, 8, 64, 64], preprocessed as for training

What lies at the path decides: a video file, a folder of videos, of pictures, or of folders of pictures, an HDF5 file
with frames or codes, a folder of code shards. Codes come without their videos (`GivenCodes`).
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tats.data.clips import NO_FOLDER, class_of, find_videos
from tats.data.code_index import INDEX
from tats.data.codes import CodeShards, codebook_of
from tats.data.config import DataConfig
from tats.data.frames import load_pictures, sorted_pictures
from tats.data.hdf5 import Table
from tats.data.index import index_folder
from tats.data.left_out import check_unreadable, say
from tats.data.stores import PICTURES, picture_folders
from tats.flags import UserError, existing_path
from tats.reader import SUFFIXES, Timeline, read_clip, scan
from tats.video import change_channels, preprocess

SPLITS = ("train", "test")


@dataclass(frozen=True)
class GivenFrames:
    """Videos as pixels.

    Per video: its name, the class whose folder it lies in (None: no folder tells), its number of frames, its frames per
    second (None: not known). `class_names`: the sorted classes of the train split beside it, empty without one.
    `video(which, frames, resolution, channels)` reads frames of one: float [channels, len(frames), resolution,
    resolution] in [-0.5, 0.5]; it raises ReadError where they can't be decoded.
    """

    path: Path
    names: list[str]
    classes: list[str | None]
    lengths: list[int]
    rates: list[float | None]
    class_names: list[str]
    video: Callable[[int, range, int, int], Tensor]


@dataclass(frozen=True)
class GivenCodes:
    """Videos as codes.

    Per video: its name, its class (None: not known), its latent frames. `side`: rows and columns of a latent frame.
    `vqgan`: the fingerprint of the VQGAN that made them, None where the file does not tell. `codes(which, count)` reads
    the last latent frames of one: int64 [count, h, w]. Only the last ones are offered: codes of others were made by an
    encoder that saw what comes after them.
    """

    path: Path
    names: list[str]
    classes: list[str | None]
    latents: list[int]
    class_names: list[str]
    n_codes: int
    side: tuple[int, int]
    vqgan: str | None
    codes: Callable[[int, int], Tensor]


def open_given(path: str | Path, split: str = "test") -> GivenFrames | GivenCodes:
    """The videos at `path`; `split` is taken where it holds train/ and test/.

    Raises:
        UserError: nothing is there, it is of a form that isn't read, or too much of it is broken.
    """
    root = existing_path(path, "--continue_from")
    if root.is_file():
        return _of_file(root, split)
    codes = _code_folder(root, split)
    if codes is not None:
        return _of_shards(*codes)
    home = root / "video" if (root / "stft").is_dir() and (root / "video").is_dir() else root  # videos with their sound
    folder = _inside(home, split)
    kind = _kind(folder)
    if kind == "films":
        return _of_films(folder, find_videos(folder), _train_classes(folder))
    if kind == "pictures":
        return _of_pictures(folder)
    raise UserError(
        f"--continue_from {path} holds no video, no picture and no codes: give a video "
        f"({' '.join(SUFFIXES)}), a folder of them, pictures, HDF5, or codes of `tats tokenize`"
    )


def _of_file(path: Path, split: str) -> GivenFrames | GivenCodes:
    if path.suffix.lower() in SUFFIXES:
        return _films(path.parent, [path.name], [scan(path)], _train_classes(path.parent))
    import h5py

    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            table = file.get(f"{split}_data")
            ndim = 4 if table is None else len(table.shape)
        return _of_codes_table(path, split) if ndim == 3 else _of_table(path, split)
    raise UserError(
        f"--continue_from {path}: neither a video ({' '.join(SUFFIXES)}) nor an HDF5 file; other forms are not read"
    )


def _of_films(folder: Path, names: list[str], class_names: list[str]) -> GivenFrames:
    entries = index_folder(folder, names)
    check_unreadable(str(folder), [f"{e.name}: {e.problem}" for e in entries if e.timeline is None], len(entries))
    kept = [(entry.name, entry.timeline) for entry in entries if entry.timeline is not None]
    return _films(folder, [name for name, _ in kept], [timeline for _, timeline in kept], class_names)


def _films(folder: Path, names: list[str], timelines: list[Timeline], class_names: list[str]) -> GivenFrames:
    def video(which: int, frames: range, resolution: int, channels: int) -> Tensor:
        span = frames[-1] - frames[0] + 1
        read = read_clip(folder / names[which], timelines[which], frames[0], span, frames.step)
        return preprocess(read, resolution, image_channels=channels)

    lengths = [timeline.n_frames for timeline in timelines]
    rates = [timeline.fps if timeline.fps > 0 and math.isfinite(timeline.fps) else None for timeline in timelines]
    return GivenFrames(folder, names, [_home(folder / name) for name in names], lengths, rates, class_names, video)


def _of_pictures(folder: Path) -> GivenFrames:
    names = picture_folders(folder)
    files = [sorted_pictures(folder / name) for name in names]

    def video(which: int, frames: range, resolution: int, channels: int) -> Tensor:
        paths = [folder / names[which] / files[which][number] for number in frames]
        return change_channels(load_pictures(paths, resolution), channels)

    classes = [_home(folder / name) for name in names]
    return GivenFrames(folder, names, classes, [len(row) for row in files], [None] * len(names), [], video)


def _of_table(path: Path, split: str) -> GivenFrames:
    table = Table(path, split, ndim=4)
    if table.dtype != np.uint8 or table.shape[-1] not in (1, 3):
        raise UserError(
            f"--continue_from {path}: {split}_data must be uint8 [frames, H, W, 3] or integer codes [frames, h, w], is "
            f"{table.dtype} {list(table.shape)}"
        )

    def video(which: int, frames: range, resolution: int, channels: int) -> Tensor:
        first = int(table.first[which])
        read = table.rows(first + frames[0], first + frames[-1] + 1, frames.step)
        return preprocess(read, resolution, image_channels=channels)

    n = len(table.first)
    names = [f"{split} {number}" for number in range(n)]
    return GivenFrames(path, names, [None] * n, table.lengths.tolist(), [None] * n, [], video)


def _of_codes_table(path: Path, split: str) -> GivenCodes:
    table = Table(path, split, ndim=3)

    def codes(which: int, count: int) -> Tensor:
        end = int(table.first[which] + table.lengths[which])
        return torch.from_numpy(table.rows(end - count, end).astype(np.int64))

    n, side = len(table.first), (table.shape[1], table.shape[2])
    names = [f"{split} {number}" for number in range(n)]
    n_codes = codebook_of(table)
    return GivenCodes(path, names, [None] * n, table.lengths.tolist(), [], n_codes, side, None, codes)


def _of_shards(folder: Path, split: str) -> GivenCodes:
    source = CodeShards(DataConfig(data_path=str(folder), vtokens=True), split)
    index = source.index
    last: dict[int, int] = {}  # of each video the clip that ends last
    for clip, video in enumerate(index.video):
        if video not in last or index.start[clip] > index.start[last[video]]:
            last[video] = clip
    rows = [last[video] for video in sorted(last)]
    _, height, width = index.latent_shape

    def codes(which: int, count: int) -> Tensor:
        return source.last_frames(rows[which], count)

    known = index.label_names
    names = [index.videos[index.video[row]] if index.videos else f"{split} {index.video[row]}" for row in rows]
    classes = [known[index.label[row]] if known else None for row in rows]
    side = (height, width)
    latents, known = source.lengths[rows].tolist(), list(known)
    return GivenCodes(folder / split, names, classes, latents, known, index.n_codes, side, index.vqgan, codes)


def _code_folder(root: Path, split: str) -> tuple[Path, str] | None:
    """Folder and split of code shards at `root`, which may be the folder of one split; None without any."""
    if (root / INDEX).is_file():
        here = Path(os.path.abspath(root))
        return here.parent, here.name
    if any((root / each / INDEX).is_file() for each in SPLITS):
        return _inside(root, split).parent, split
    return None


def _inside(root: Path, split: str) -> Path:
    """The folder of the split where `root` has splits, else `root`."""
    if (root / split).is_dir():
        return root / split
    others = [each for each in SPLITS if (root / each).is_dir()]
    if others:
        raise UserError(f"--continue_from {root} has no folder {split}/: take --observed_split {others[0]}")
    return root


def _train_classes(folder: Path) -> list[str]:
    """The classes of the train split that a folder (a split, or a class in one) lies beside or in; [] without one."""
    here = Path(os.path.abspath(folder))  # links are not followed: where they point to, folders have other names
    for split in (here, here.parent):
        train = split.parent / "train"
        if split.name in SPLITS and train.is_dir():
            return sorted({class_of(name) for name in find_videos(train)})
    return []


def _home(path: Path) -> str | None:
    """The class of a video: the folder it lies in, or what training calls videos that lie in a split itself."""
    name = Path(os.path.abspath(path)).parent.name
    return (NO_FOLDER if name in SPLITS else name) or None


def _kind(folder: Path) -> str | None:
    """`films` when a folder holds video files anywhere below it, else `pictures`, else None."""
    seen = False
    for _, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name.lower() for name in files if not name.startswith(".")]
        if any(name.endswith(SUFFIXES) for name in shown):
            if seen:
                say(f"--continue_from {folder} holds videos and pictures: the videos are taken")
            return "films"
        seen = seen or any(name.endswith(PICTURES) for name in shown)
    return "pictures" if seen else None
