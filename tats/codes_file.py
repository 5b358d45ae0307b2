"""Codes of videos of any length on disk: read and written in pieces.

    codes.npz             codes int32 [N, t, h, w], seeds, labels (-1: none), index (which video of the run), in order;
                          schedule: a text of JSON, where the condition changed on the way (labels: of the first frames)
    codes_00012.journal   codes of a batch that is under way: a line of JSON, then one record per latent frame

A record is written in one go, with a checksum: whatever moment a run is killed at, all records but perhaps the last are
whole, and the next run goes on behind them.
"""

import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tats.arrays import BROKEN, read_array_bytes
from tats.flags import UserError

PIECE_BYTES = 2**20  # what is held in memory at a time
CODE = np.dtype("<i4")


@dataclass(frozen=True)
class Video:
    """One video of a run: which it is, its seed, its class (None without) and the name of that."""

    index: int
    seed: int
    label: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Row:
    """The codes of one video inside a file: `shape` [t, h, w], numbers that begin at the byte `offset`, and `stride`
    bytes from one latent frame to the next."""

    path: Path
    offset: int
    stride: int
    shape: tuple[int, int, int]

    def pieces(self) -> Iterator[NDArray[np.int32]]:
        """The latent frames in order, int32 [n, h, w], about a megabyte at a time."""
        t, h, w = self.shape
        at_once = max(PIECE_BYTES // self.stride, 1)
        with self.path.open("rb") as file:
            for start in range(0, t, at_once):
                n = min(at_once, t - start)
                file.seek(self.offset + start * self.stride)
                data = file.read((n - 1) * self.stride + h * w * CODE.itemsize)
                if len(data) < (n - 1) * self.stride + h * w * CODE.itemsize:
                    raise damaged(self.path)
                strides = (self.stride, w * CODE.itemsize, CODE.itemsize)
                yield np.ndarray((n, h, w), CODE, data, strides=strides).astype(np.int32)

    def read(self) -> NDArray[np.int32]:
        """All of them at once: int32 [t, h, w]."""
        return np.concatenate(list(self.pieces()))


def write_codes(path: Path, videos: Sequence[Video], rows: Sequence[Row], schedule: Any = None) -> None:
    """Write codes.npz from the codes of some videos, all of one shape; the file appears when it is complete.

    schedule: plain values, how the condition of all of them changes on the way; kept as a text of JSON.
    """
    shapes = {row.shape for row in rows}
    if len(shapes) != 1:
        raise ValueError(f"videos of one file have one shape, got {sorted(shapes)}")
    labels = [-1 if video.label is None else video.label for video in videos]
    numbers = {"seeds": [video.seed for video in videos], "labels": labels, "index": [video.index for video in videos]}
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w") as file:
        with file.open("codes.npy", "w", force_zip64=True) as member:
            header = {"descr": CODE.str, "fortran_order": False, "shape": (len(rows), *rows[0].shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for row in rows:
                for piece in row.pieces():
                    member.write(piece.astype(CODE).tobytes())
        for name, values in numbers.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(values, np.int64))
        if schedule is not None:
            with file.open("schedule.npy", "w") as member:
                np.lib.format.write_array(member, np.array(json.dumps(schedule)))
    os.replace(part, path)


def read_codes(path: Path) -> dict[int, tuple[Video, Row]]:
    """What a file of codes holds, by the index of the video; the codes themselves are read when they are asked for.

    Raises:
        UserError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            with file.open("codes.npy") as member:
                np.lib.format.read_magic(member)
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                begin = member.tell()
            numbers = {name: _row(file, name, shape[0]) for name in ("seeds", "labels", "index")}
            about = file.getinfo("codes.npy")
        size = math.prod(shape) * CODE.itemsize
        if dtype != CODE or about.compress_type or about.file_size != begin + size or len(shape) != 4 or min(shape) < 1:
            raise ValueError("not a file of ours")
        with path.open("rb") as raw:  # a local header: 30 bytes, then a name and more of the lengths it says
            raw.seek(about.header_offset)
            head = raw.read(30)
        offset = (
            about.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        )
        if offset + begin + size > path.stat().st_size:
            raise ValueError("cut short")
    except BROKEN:
        raise damaged(path) from None
    frame = shape[2] * shape[3] * CODE.itemsize
    found = {}
    for n, (index, seed, label) in enumerate(zip(numbers["index"], numbers["seeds"], numbers["labels"])):
        row = Row(path, offset + begin + n * shape[1] * frame, frame, (shape[1], shape[2], shape[3]))
        found[index] = (Video(index, seed, label if label >= 0 else None), row)
    return found


def _row(file: zipfile.ZipFile, name: str, count: int) -> list[int]:
    """A number per video out of a file of codes."""
    if file.getinfo(f"{name}.npy").file_size > 1024 + 8 * count:
        raise ValueError(f"{name} has more numbers than there are videos")
    row = read_array_bytes(file.read(f"{name}.npy"))
    if row.shape != (count,) or row.dtype != np.int64:
        raise ValueError(f"{name} must be a number per video")
    return row.tolist()


def damaged(path: Path) -> UserError:
    """What is said of a file that can't be used."""
    return UserError(f"{path} is damaged: delete it, and what it held is made again")


class Head(NamedTuple):
    """The first line of a journal: its videos, rows and columns of a latent frame, and where the records begin."""

    videos: list[Video]
    shape: tuple[int, int]
    begin: int


class Journal:
    """The codes of a batch while they are made, a record for every latent frame, on disk as soon as it is appended.

    videos: of the batch. shape: rows and columns of a latent frame. done: latent frames that are there.
    """

    def __init__(self, path: Path, videos: Sequence[Video], shape: tuple[int, int], begin: int):
        self.path, self.videos, self.shape, self.begin = path, list(videos), shape, begin
        self.frame = shape[0] * shape[1] * CODE.itemsize  # bytes of one latent frame of one video
        self.record = len(self.videos) * self.frame + 4  # and the checksum
        self._file = path.open("r+b", buffering=0)
        self.done = self._whole_records()

    @classmethod
    def create(cls, path: Path, videos: Sequence[Video], shape: tuple[int, int]) -> "Journal":
        """A new journal without records; it is there with its first line or not at all."""
        head: Mapping[str, Any] = {"shape": shape, "videos": [asdict(video) for video in videos]}
        part = path.with_name(path.name + ".part")
        part.write_bytes(line := json.dumps(head).encode() + b"\n")
        os.replace(part, path)
        return cls(path, videos, shape, len(line))

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """One that is there and that nobody else writes.

        Raises:
            UserError: its first line can't be read.
        """
        return cls(path, *cls.head(path))

    @staticmethod
    def head(path: Path) -> "Head":
        """The first line of one that is there.

        Raises:
            UserError: it can't be read.
        """
        try:
            with path.open("rb") as file:
                line = file.readline()
            head = json.loads(line)
            videos = [Video(**video) for video in head["videos"]]
            shape = (int(head["shape"][0]), int(head["shape"][1]))
            numbers = [number for video in videos for number in (video.index, video.seed, video.label or 0)]
            if not videos or min(shape) < 1 or max(shape) > 2**20 or any(type(number) is not int for number in numbers):
                raise ValueError("no videos, or no latent frames")
        except BROKEN:
            raise damaged(path) from None
        return Head(videos, shape, len(line))

    def append(self, codes: NDArray[Any]) -> None:
        """Add the next latent frame [B, h, w]; it is on disk when this returns."""
        data = np.ascontiguousarray(codes, CODE).tobytes()
        if len(data) != self.record - 4:
            raise ValueError(
                f"a latent frame of this journal is [{len(self.videos)}, *{self.shape}], got {codes.shape}"
            )
        self._file.seek(self.begin + self.done * self.record)
        left = memoryview(data + self._checksum(self.done, data))
        while left:
            left = left[self._file.write(left) :]
        self.done += 1

    def read(self, frames: range) -> NDArray[np.int32]:
        """Some of the latent frames that are there: int32 [B, n, h, w]."""
        if not len(frames):
            return np.zeros((len(self.videos), 0, *self.shape), np.int32)
        self._file.seek(self.begin + frames.start * self.record)
        records = np.frombuffer(self._file.read(len(frames) * self.record), np.uint8).reshape(len(frames), self.record)
        codes = records[:, :-4].copy().view(CODE).reshape(len(frames), len(self.videos), *self.shape)
        return codes.swapaxes(0, 1).astype(np.int32)

    def rows(self) -> list[Row]:
        """The codes of each video, as far as they are there."""
        shape = (self.done, *self.shape)
        starts = [self.begin + n * self.frame for n in range(len(self.videos))]
        return [Row(self.path, start, self.record, shape) for start in starts]

    def _whole_records(self) -> int:
        """How many records are whole; what is behind them is cut off."""
        size = self.path.stat().st_size
        for number in range((size - self.begin) // self.record):
            self._file.seek(self.begin + number * self.record)
            record = self._file.read(self.record)
            if record[-4:] != self._checksum(number, record[:-4]):
                break
        else:
            number = (size - self.begin) // self.record
        self._file.truncate(self.begin + number * self.record)
        return number

    @staticmethod
    def _checksum(number: int, data: bytes) -> bytes:
        return zlib.crc32(data, number & 0xFFFFFFFF).to_bytes(4, "little")

    def close(self) -> None:
        """Close the file; what was appended is in it."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
