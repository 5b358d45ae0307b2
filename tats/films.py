"""Videos, grids and arrays of a run, written while they are decoded: memory depends on the piece, not on the length."""

import glob
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tats import output
from tats.codes_file import Video
from tats.gpt.sample_config import KINDS, OutputConfig
from tats.media import FILMS, Sound, VideoWriter
from tats.video import grid, to_frames

Heard = Callable[[Video], tuple[float, Sound | None]]  # frames per second of a video, and its sound if it has one
Mark = Callable[[Tensor, int], Tensor]  # frames uint8 [B, n, H, W, C], number of the first of them -> the same


class Films:
    """What a run writes of its videos: a file per video and kind of `--save_as`, a grid per batch, one array.

    wanted: the flags. name: of the run, stands in the names of files. videos: all of the run. frames: T, of every
    video. otherwise: something else is made of them, so no files unless asked for. mark: draws something into the
    frames of the films, not into those of the array. heard: the rate and the sound of every film; grids have none.
    array: false in one of several processes, whose share is only a part of it.
    """

    def __init__(
        self,
        wanted: OutputConfig,
        name: str,
        videos: Sequence[Video],
        frames: int,
        *,
        otherwise: bool = False,
        mark: Mark | None = None,
        heard: Heard | None = None,
        array: bool = True,
    ):
        self.save, self.fps, self.mark, self.heard = Path(wanted.save), wanted.fps, mark, heard
        self.folder = folder_of(wanted, name)
        self.kinds = wanted.kinds(otherwise or wanted.save_arrays)
        self.row = {video.index: row for row, video in enumerate(videos)}
        self.array: ArrayFile | None = None
        if wanted.save_arrays and array:
            path = self.save / "numpy_files" / wanted.dataset / f"{name}_eval.npy"
            self.array = ArrayFile(path, len(videos), frames)

    def path(self, video: Video, kind: str) -> Path:
        """The file (or folder of pictures) of a video."""
        name = output.video_name(video)
        return self.folder / (name + KINDS[kind] if KINDS[kind] else name.replace(".", "_"))

    def entry(self, video: Video) -> str:
        """The first file of a video, as the manifest names it."""
        return str(self.path(video, self.kinds[0]).relative_to(self.save))

    def lacking(self, videos: Sequence[Video]) -> list[Video]:
        """Those of which something is not written yet."""
        return [
            video
            for video in videos
            if any(not self.path(video, kind).exists() for kind in self.kinds)
            or (self.array is not None and self.row.get(video.index) in self.array.missing)
        ]

    def write(self, batch: Sequence[Video], pieces: Iterable[Tensor]) -> None:
        """Write what is lacking of a batch of videos, as their pieces [B, C, n, H, W] come."""
        with ExitStack() as open_files:
            writers = [
                (n, open_files.enter_context(self._writer(self.path(video, kind), video)))
                for n, video in enumerate(batch)
                for kind in self.kinds
                if not self.path(video, kind).exists()
            ]
            whole = None
            if writers and len(batch) > 1:
                whole = open_files.enter_context(self._writer(self.folder / f"grid_{batch[0].index:05d}.mp4"))
            done = 0
            for piece in pieces:
                frames = to_frames(piece).cpu()  # [B, n, H, W, C]
                shown = frames if self.mark is None else self.mark(frames, done)
                for n, writer in writers:
                    writer.write(colour(shown[n]))
                if whole is not None:
                    pictures = shown.movedim(-1, 1).float() / 255  # [B, C, n, H, W]
                    whole.write(colour(grid(pictures, int(math.sqrt(len(batch))))))
                if self.array is not None:
                    for n, video in enumerate(batch):
                        self.array.write(self.row.get(video.index), done, frames[n].numpy())
                done += frames.shape[1]
        if self.array is not None:
            self.array.missing -= {self.row.get(video.index) for video in batch}
        for n in sorted({n for n, _ in writers}):
            of = "" if batch[n].name is None else f", {batch[n].name}"
            print(f"{self.path(batch[n], self.kinds[0]).name}: seed {batch[n].seed}{of}, {done} frames", flush=True)

    def _writer(self, path: Path, video: Video | None = None) -> VideoWriter:
        """The writer of a file, of a video or of a grid; what a killed run has left of it goes away."""
        for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if self.heard is None or video is None:
            return VideoWriter(path, self.fps)
        fps, sound = self.heard(video)
        return VideoWriter(path, fps, sound=sound if path.suffix in FILMS else None)

    def finish(self) -> Path | None:
        """Give the array its name, once all videos are in it; returns the file."""
        return self.array.finish() if self.array is not None else None


def folder_of(wanted: OutputConfig, name: str) -> Path:
    """The folder that receives the films of a run of this name."""
    return Path(wanted.save) / "videos" / wanted.dataset / name


class ArrayFile:
    """One array uint8 [N, T, H, W, C] on disk, written anywhere in any order, without holding any of it in memory.

    missing: rows that are not complete. A file that is there with the right N and T is complete already.
    """

    def __init__(self, path: Path, rows: int, frames: int):
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.rows, self.frames = rows, frames
        self.missing: set[int | None] = set(range(rows))
        self._file: BinaryIO | None = None
        self._begin = 0
        if path.exists() and np.load(path, mmap_mode="r").shape[:2] == (rows, frames):
            self.missing = set()

    def write(self, row: int | None, start: int, frames: NDArray[np.uint8]) -> None:
        """Put frames uint8 [n, H, W, C] of a row at the frame `start`; nothing happens for rows that are there."""
        if row is None or row not in self.missing:
            return
        file = self._file or self._open(frames.shape[1:])
        file.seek(self._begin + (row * self.frames + start) * math.prod(frames.shape[1:]))
        file.write(np.ascontiguousarray(frames).tobytes())

    def _open(self, picture: tuple[int, ...]) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.part.open("wb")
        shape = (self.rows, self.frames, *picture)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._file, self._begin = file, file.tell()
        file.truncate(self._begin + math.prod(shape))
        return file

    def finish(self) -> Path:
        """Close the file and give it its name."""
        if self.missing:
            raise ValueError(f"{len(self.missing)} rows of {self.path} were not written")
        if self._file is not None:
            self._file.close()
            self.part.replace(self.path)
        return self.path


def colour(frames: Tensor) -> np.ndarray:
    """uint8 [n, H, W, 1 or 3] -> uint8 [n, H, W, 3]"""
    return frames.expand(*frames.shape[:-1], 3).numpy()
