"""Videos in one HDF5 file: all frames in a row, and where each video begins.

For each split: `<split>_data` uint8 [frames, H, W, 3] and `<split>_idx` integer [videos] or [videos + 1], the first
frame of every video; a last entry equal to the number of frames is an end mark and no video. Where there are classes,
`<split>_label` integer [videos] holds their ids, and the attribute `label_names` of the file their names, as JSON text:
so `tats prepare --form hdf5` writes it. With `--text_cond`, the
file `<split>_text_description.txt` beside it has one line per video, its captions separated by tabs. With
`--smap_cond N`, a second file (`--smap_path`) has the same tables, and the first channel of its data holds class ids
below N.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats import limits
from tats.arrays import BROKEN, reason
from tats.data.captions import one_hot_map
from tats.data.config import DataConfig
from tats.data.left_out import check_short
from tats.flags import UserError
from tats.plain import plain_text
from tats.reader import ReadError
from tats.video import preprocess

SMALL = 1 << 20  # bytes below which it does not matter how much of a table is really stored
RATIO = 1100  # times its stored size that a table may have; gzip reaches 1032


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
                missing = [name for name in (f"{split}_data", f"{split}_idx") if file.get(name, getlink=True) is None]
                if missing:
                    raise UserError(f"{path} has no table {' and no table '.join(missing)}; it has {', '.join(file)}")
                data, idx = plain_table(file, f"{split}_data"), np.asarray(plain_table(file, f"{split}_idx"))
                self.shape, self.dtype = tuple(data.shape), data.dtype
                self.attributes = {key: file.attrs[key] for key in file.attrs}
                self._labels = _column(file, f"{split}_label", len(idx))
        except BROKEN as error:
            raise UserError(f"{path} cannot be read as HDF5: {reason(error)}") from error
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

    def classes(self) -> tuple[np.ndarray, list[str]]:
        """Class id of every video, int64 [videos], and the names of the classes; zeros and none without any.

        Raises:
            UserError: ids and names contradict each other, or the videos.
        """
        labels = self._labels
        if labels is None:
            return np.zeros(len(self.first), np.int64), []
        try:
            names = [str(name) for name in json.loads(self.attributes.get("label_names", "[]"))]
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{self.path}: its attribute label_names is no JSON list of names ({error})") from None
        if labels.shape != self.first.shape or labels.dtype.kind not in "ui":
            raise UserError(
                f"{self.path}: {self.split}_label must be integers, one for each of {len(self.first)} videos, is "
                f"{labels.dtype} {list(labels.shape)}"
            )
        highest = int(labels.max(initial=0))
        if int(labels.min(initial=0)) < 0 or highest >= (len(names) or 2**20):
            raise UserError(
                f"{self.path}: {self.split}_label holds ids from {labels.min()} to {highest}, and label_names "
                f"{len(names)} names"
            )
        return labels.astype(np.int64), names or [str(label) for label in range(highest + 1)]

    def rows(
        self,
        start: int,
        stop: int,
        step: int = 1,
        box: tuple[slice, slice] | None = None,
        room: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rows start to stop by step of the data, of each the rectangle `box`. They are read into `room`, if given."""
        import h5py

        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), plain_table(h5py.File(self.path, "r"), f"{self.split}_data"))
            data = self._opened[1]
            if room is not None:
                data.read_direct(room, (slice(start, stop, step), *(box or ())))
                return room
            return data[start:stop:step] if box is None else data[start:stop:step, box[0], box[1]]
        except BROKEN as error:
            raise ReadError(f"{self.path}: frames {start} to {stop}: {reason(error)}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # an open file does not travel to another process


def plain_table(file: Any, name: str) -> Any:
    """The table `name` of an open HDF5 file: one that lies in it, of plain numbers, with as much as it announces.

    Raises:
        ValueError: it is a group or a link, lies in other files, holds references or text, or is packed so tightly
            that reading a little of it would take all memory.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise ValueError(f"{name} is no table, or a link to one")
    table = file[name]
    if table.external or table.is_virtual:
        raise ValueError(f"{name} lies in other files")
    if table.dtype.kind not in "uifb":
        raise ValueError(f"{name} holds {table.dtype}, no plain numbers")
    piece = math.prod(table.chunks or (1,)) * table.dtype.itemsize
    wrong = limits.problem("max_unpacked_mb", piece / 1e6, "{:,.0f} MB each")
    if wrong is not None:
        raise ValueError(f"{name} is stored in pieces of {wrong}")
    stored, announced = table.id.get_storage_size(), math.prod(table.shape) * table.dtype.itemsize
    if announced > SMALL and announced > RATIO * stored:
        raise ValueError(f"{name} announces {announced:,} bytes and holds {stored:,}")
    return table


class VideoFile:
    """The videos of one split of an HDF5 file as a source of clips: one clip per video and epoch.

    `videos` int64 [n] rows of the table, `starts` int64 [n] windows of each, `clips` int64 [n] ones; `labels` int64 [n]
    and `label_names` where the file holds classes (else 0 and none).
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
        labels, self.label_names = self.table.classes()
        self.labels = labels[self.videos]
        self.ready = self.table.shape[1:] == (config.resolution, config.resolution, config.image_channels)
        self.texts = texts_beside(self.table) if config.text_cond else None
        self.maps = self._maps(split) if config.smap_cond else None

    def frames(self, video: int, start: int) -> np.ndarray:
        """Frames of one window as stored: uint8 [clip_frames, H, W, C]."""
        first = int(self.table.first[self.videos[video]]) + start
        return self.table.rows(first, first + self.config.span, self.config.sample_every_n_frames)

    def room(self, clips: int) -> np.ndarray | None:
        """Where the frames of so many clips can be read to, uint8 [clips, T, res, res, C]; None where they can't come
        as they are stored."""
        config = self.config
        if not self.ready or (self.maps is not None and config.smap_only):
            return None
        return np.empty(
            (clips, len(range(0, config.span, config.sample_every_n_frames)), *self.table.shape[1:]), np.uint8
        )

    def read(
        self, video: int, start: int, draw: np.random.Generator, raw: bool = False, room: np.ndarray | None = None
    ) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5], `label` int; `text` (drawn), `video_smap`.

        raw: where the stored frames have the size and channels of a clip (`ready`), they come as they are, `frames`
        uint8 [T, res, res, C] in place of `video`: a quarter of the bytes, for `tats.video.with_video` on the device.
        room: where such frames go, one of those that `room` gave.
        """
        config, row = self.config, int(self.videos[video])
        first = int(self.table.first[row]) + start
        window = (first, first + config.span, config.sample_every_n_frames)
        clip: dict[str, Any] = {"label": int(self.labels[video])}
        if self.maps is not None:
            clip["video_smap"] = one_hot_map(self.maps.rows(*window), config, self.maps.path)
        if self.maps is not None and config.smap_only:
            clip["video"] = clip.pop("video_smap")
        elif raw and self.ready:
            clip["frames"] = torch.from_numpy(self.table.rows(*window, room=room))  # [T, res, res, C]
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
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # other breaks belong to a text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text_cond needs {path}: {error}") from error
    try:
        return [[plain_text(text) for text in line.split("\t") if text.strip()] for line in lines]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _column(file: Any, name: str, rows: int) -> np.ndarray | None:
    """A row of at most that many numbers; None without one, and nothing of one that is something else."""
    if file.get(name, getlink=True) is None:
        return None
    table = plain_table(file, name)
    return np.asarray(table) if getattr(table, "ndim", 0) == 1 and table.shape[0] <= rows else np.zeros((0, 0))


def long_enough(table: Table, span: int) -> np.ndarray:
    """Numbers of the videos with at least `span` frames, int64; the others are named in one line."""
    short = [f"video {i}" for i in np.flatnonzero(table.lengths < span)]
    check_short(f"{table.path} ({table.split})", short, len(table.lengths), span)
    return np.flatnonzero(table.lengths >= span)
