"""One part of what `tats prepare` makes: its videos decoded, shrunk, and written; done in any process.

A part is done when its record lies beside it: `<part>.json`, which is written last. What the videos became lies in
`<part>.zip` (pictures, stored), in `<part>.bin` (uint8 frames one after the other), or, of folders, in place.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.prepare_plan import Film, Part, write_json
from tats.reader import ReadError, read_all

AT_ONCE = 16  # frames that are shrunk together
TALL_ENOUGH = 95  # from this quality on, JPEG keeps the colours of every pixel


@dataclass(frozen=True)
class How:
    """What a part becomes. roots: the folder of each split; resolution None: pictures stay as they are."""

    form: str  # hdf5, zip, zips or folders
    roots: dict[str, Path]
    work: Path
    out: Path
    resolution: int | None
    picture: str  # jpg or png
    quality: int

    def record(self, part: Part) -> Path:
        """Where the record of a part lies when it is done."""
        return self.work / f"{part}.json"

    def data(self, part: Part) -> Path:
        """Where the pictures of a part lie."""
        return self.work / (f"{part}.bin" if self.form == "hdf5" else f"{part}.zip")


@dataclass(frozen=True)
class Job:
    """A part and what it becomes."""

    part: Part
    how: How

    def __str__(self) -> str:
        return ", ".join(film.source for film in self.part.films[:3])


def make(job: Job) -> str:
    """Make a part; returns what kept it from being made, nothing when it is done.

    Videos that cannot be read are noted in its record; the part is done without them.
    """
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    part, how = job.part, job.how
    try:
        writer: _Frames | _Folders | _Pictures
        if how.form == "hdf5":
            writer = _Frames(part, how)
        else:
            writer = _Folders(part, how) if how.form == "folders" else _Pictures(part, how)
        films = []
        try:
            for film in part.films:
                films.append(_convert(film, how, writer))
            writer.close()
        finally:
            writer.clear()
        write_json(how.record(part), {"part": str(part), "split": part.split, "films": films})
    except OSError as error:
        return f"{how.out}: {error.strerror or error}"
    return ""


def read_record(path: Path) -> list[dict[str, Any]]:
    """What became of the videos of a part: name, source, label, fps, frames, height, width, and `problem` where one
    could not be read."""
    return list(json.loads(path.read_text(encoding="utf-8"))["films"])


def _convert(film: Film, how: How, writer: "_Frames | _Pictures | _Folders") -> dict[str, Any]:
    said: dict[str, Any] = {**asdict(film), "frames": 0, "height": 0, "width": 0, "problem": ""}
    writer.begin(film)
    try:
        for number, frame in enumerate(frames_of(how.roots[writer.part.split] / film.source, how.resolution)):
            height, width = frame.shape[:2]
            if number and (height, width) != (said["height"], said["width"]):
                raise ReadError(
                    f"the picture changes its size from {said['width']}x{said['height']} to {width}x{height}"
                )
            writer.add(frame)
            said.update(frames=number + 1, height=height, width=width)
    except ReadError as error:
        writer.take_back()
        return {**said, "frames": 0, "problem": str(error)}
    writer.end()
    return said


def frames_of(path: Path, resolution: int | None) -> Iterator[np.ndarray]:
    """All frames of a video, uint8 [resolution, resolution, 3] as training would see them, to the nearest level; with
    resolution None as they are, uint8 [H, W, 3].

    Raises:
        ReadError: it cannot be decoded.
    """
    import torch

    from tats.video import shrink

    if resolution is None:
        yield from read_all(path)
        return
    waiting: list[np.ndarray] = []

    def shrunk() -> Iterator[np.ndarray]:
        frames = torch.from_numpy(np.stack(waiting))  # [n, H, W, 3]
        if frames.shape[1:3] != (resolution, resolution):
            frames = shrink(frames, resolution).round_().to(torch.uint8).permute(1, 2, 3, 0).contiguous()
        waiting.clear()
        yield from frames.numpy()

    for frame in read_all(path):
        if waiting and (frame.shape != waiting[0].shape or len(waiting) == AT_ONCE):
            yield from shrunk()
        waiting.append(frame)
    if waiting:
        yield from shrunk()


class _Frames:
    """Raw frames, one after the other."""

    def __init__(self, part: Part, how: How):
        self.part, self.how = part, how
        self._partial = how.work / f".{part}.{os.getpid()}.part"
        self._file = self._partial.open("wb")
        self._begin = 0

    def begin(self, film: Film) -> None:
        self._begin = self._file.tell()

    def add(self, frame: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(frame).tobytes())

    def take_back(self) -> None:
        self._file.seek(self._begin)
        self._file.truncate()

    def end(self) -> None:
        """Nothing is left to do: the next video follows."""

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.how.data(self.part))

    def clear(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


class _Pictures:
    """Pictures in a zip file, stored: those of a video that broke off stay in it, and no record names them."""

    def __init__(self, part: Part, how: How):
        self.part, self.how = part, how
        self._partial = how.work / f".{part}.{os.getpid()}.part"
        self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED)
        self._name, self._count = "", 0

    def begin(self, film: Film) -> None:
        self._name, self._count = film.name, 0

    def add(self, frame: np.ndarray) -> None:
        self._zip.writestr(f"{self._name}/{picture_name(self._count, self.how)}", encoded(frame, self.how))
        self._count += 1

    def take_back(self) -> None:
        """Nothing: see the class."""

    def end(self) -> None:
        """Nothing is left to do: the next video follows."""

    def close(self) -> None:
        self._zip.close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._partial, self.how.data(self.part))

    def clear(self) -> None:
        self._zip.close()
        self._partial.unlink(missing_ok=True)


class _Folders:
    """Pictures in a folder per video, in its place when it is complete."""

    def __init__(self, part: Part, how: How):
        self.part, self.how = part, how
        self._work = how.work / f".{part}.{os.getpid()}.part"
        self._work.mkdir(exist_ok=True)
        self._name, self._count = "", 0

    def begin(self, film: Film) -> None:
        self.take_back()
        self._work.mkdir(exist_ok=True)
        self._name, self._count = film.name, 0

    def add(self, frame: np.ndarray) -> None:
        (self._work / picture_name(self._count, self.how)).write_bytes(encoded(frame, self.how))
        self._count += 1

    def take_back(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    def end(self) -> None:
        place = self.how.out / self.part.split / self._name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # of a call that was stopped before its record was written
        self._work.rename(place)

    def close(self) -> None:
        """Nothing is left to do: every video is in its place."""

    def clear(self) -> None:
        self.take_back()


def picture_name(number: int, how: How) -> str:
    """Name of a picture: of several zip files as LongVideoGAN names them, else its number alone."""
    return f"frame_{number:06d}.{how.picture}" if how.form == "zips" else f"{number:06d}.{how.picture}"


def encoded(frame: np.ndarray, how: How) -> bytes:
    """A frame uint8 [H, W, 3] as the content of a picture file."""
    from PIL import Image

    buffer = io.BytesIO()
    if how.picture == "png":
        Image.fromarray(frame).save(buffer, "PNG", compress_level=4)
    else:
        sampling = 0 if how.quality >= TALL_ENOUGH else 2  # 4:4:4 or 4:2:0
        Image.fromarray(frame).save(buffer, "JPEG", quality=how.quality, subsampling=sampling)
    return buffer.getvalue()
