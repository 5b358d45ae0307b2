"""Videos in one HDF5 file: all frames in a row, and where each video begins.

For each split: `<split>_data` uint8 [frames, H, W, 3] and `<split>_idx` integer [videos] or [videos + 1], the first
frame of every video; a last entry equal to the number of frames is an end mark and no video. With `--text_cond`, the
file `<split>_text_description.txt` beside it has one line per video, its captions separated by tabs. With
`--smap_cond N`, a second file (`--smap_path`) has the same tables, and the first channel of its data holds class ids
below N.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.captions import one_hot_map
from tats.data.config import DataConfig
from tats.data.left_out import check_short
from tats.flags import UserError
from tats.reader import ReadError
from tats.video import preprocess


class Table:
    """One `<split>_data` with its `<split>_idx`: the rows of every video.

    `first` and `lengths` int64 [videos], `shape` of the data. The file is opened anew in every process that reads it.
    """

    def __init__(self, path: str | Path, split: str, ndim: int):
        """Raises:
        UserError: no such file, no such tables, or tables that contradict each other.
        """
        import h5py

        self.path, self.split = Path(path).expanduser(), split
        try:
            with h5py.File(self.path, "r") as file:
                missing = [name for name in (f"{split}_data", f"{split}_idx") if name not in file]
                if missing:
                    raise UserError(f"{path} has no table {' and no table '.join(missing)}; it has {', '.join(file)}")
                data, idx = file[f"{split}_data"], np.asarray(file[f"{split}_idx"])
                self.shape, self.dtype = tuple(data.shape), data.dtype
                self.attributes = {key: file.attrs[key] for key in file.attrs}
        except OSError as error:
            raise UserError(f"{path} cannot be read as HDF5: {' '.join(str(error).split())}") from error
        if len(self.shape) != ndim or self.dtype.kind not in "ui":
            raise UserError(
                f"{path}: {split}_data must be integers of {ndim} dimensions, is {self.dtype} {list(self.shape)}"
            )
        self.first, self.lengths = self._videos(idx)
        self._opened: tuple[int, Any] | None = None

    def _videos(self, idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = self.shape[0]
        if idx.ndim != 1 or idx.dtype.kind not in "ui" or not len(idx):
            raise UserError(
                f"{self.path}: {self.split}_idx must be a row of integers, is {idx.dtype} {list(idx.shape)}"
            )
        idx = idx.astype(np.int64)
        steps = np.diff(idx)
        if idx[0] != 0 or (steps < 0).any() or idx[-1] > total:
            at = 0 if idx[0] != 0 else int(np.argmax(steps < 0)) + 1 if (steps < 0).any() else len(idx) - 1
            raise UserError(
                f"{self.path}: {self.split}_idx does not fit {self.split}_data of {total} frames: its entry {at} is "
                f"{idx[at]}; entries begin with 0, never fall, and end at {total} at the latest"
            )
        first = idx if idx[-1] < total else idx[:-1]
        return first, np.diff(np.append(first, total))

    def rows(self, start: int, stop: int, step: int = 1, box: tuple[slice, slice] | None = None) -> np.ndarray:
        """Rows start to stop by step of the data, of each the rectangle `box`."""
        import h5py

        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), h5py.File(self.path, "r")[f"{self.split}_data"])
        try:
            data = self._opened[1]
            return data[start:stop:step] if box is None else data[start:stop:step, box[0], box[1]]
        except OSError as error:
            raise ReadError(f"{self.path}: frames {start} to {stop}: {' '.join(str(error).split())}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # an open file does not travel to another process


class VideoFile:
    """The videos of one split of an HDF5 file as a source of clips: one clip per video and epoch.

    `videos` int64 [n] rows of the table, `starts` int64 [n] windows of each, `clips` int64 [n] ones.
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: the file or its tables are missing or contradict each other, or no video is long enough.
        """
        self.config, self.span = config, config.span
        self.table = Table(str(config.data_path), split, ndim=4)
        if self.table.dtype != np.uint8 or self.table.shape[-1] not in (1, 3):
            raise UserError(
                f"{config.data_path}: {split}_data must be uint8 [frames, H, W, 3], is {self.table.dtype} "
                f"{list(self.table.shape)}. Codes instead of pixels need --vtokens"
            )
        self.videos = long_enough(self.table, config.span)
        self.starts = self.table.lengths[self.videos] - config.span + 1
        self.clips = np.ones(len(self.videos), np.int64)
        self.texts = texts_beside(self.table) if config.text_cond else None
        self.maps = self._maps(split) if config.smap_cond else None

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5], `label` 0; `text` (drawn), `video_smap`."""
        config, row = self.config, int(self.videos[video])
        first = int(self.table.first[row]) + start
        window = (first, first + config.span, config.sample_every_n_frames)
        clip: dict[str, Any] = {"label": 0}
        if self.maps is not None:
            clip["video_smap"] = one_hot_map(self.maps.rows(*window), config, self.maps.path)
        if self.maps is not None and config.smap_only:
            clip["video"] = clip.pop("video_smap")
        else:
            clip["video"] = preprocess(
                self.table.rows(*window), config.resolution, image_channels=config.image_channels
            )
        if self.texts is not None:
            choice = self.texts[row]
            clip["text"] = choice[int(draw.integers(len(choice)))]
        return clip

    def _maps(self, split: str) -> Table:
        if self.config.smap_path is None:
            raise UserError("--smap_cond on an HDF5 file needs --smap_path, the HDF5 file of the semantic maps")
        maps = Table(self.config.smap_path, split, ndim=4)
        if maps.shape[0] != self.table.shape[0] or not np.array_equal(maps.first, self.table.first):
            raise UserError(
                f"{self.config.smap_path} and {self.config.data_path} do not hold the same videos in {split}"
            )
        return maps


def texts_beside(table: Table) -> list[list[str]]:
    """The captions of every video of a table, one or more.

    Raises:
        UserError: the file beside it is missing, or has no text for a video.
    """
    path = table.path.parent / f"{table.split}_text_description.txt"
    texts = read_descriptions(path)
    if len(texts) != len(table.first):
        raise UserError(f"{path} has {len(texts)} lines for {len(table.first)} videos; one line per video")
    empty = [i + 1 for i, found in enumerate(texts) if not found]
    if empty:
        raise UserError(f"{path}: line {empty[0]} has no text ({len(empty)} such lines)")
    return texts


def read_descriptions(path: Path) -> list[list[str]]:
    """The captions beside an HDF5 file, one list per line: as many lines as videos, captions separated by tabs.

    Raises:
        UserError: the file can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text_cond needs {path}: {error}") from error
    return [[text for text in line.split("\t") if text.strip()] for line in lines]


def long_enough(table: Table, span: int) -> np.ndarray:
    """Numbers of the videos with at least `span` frames, int64; the others are named in one line."""
    short = [f"video {i}" for i in np.flatnonzero(table.lengths < span)]
    check_short(f"{table.path} ({table.split})", short, len(table.lengths), span)
    return np.flatnonzero(table.lengths >= span)
