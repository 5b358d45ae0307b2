"""Files of pictures and sound: write a video piece by piece, read frames and sound back.

    with VideoWriter("out.mp4", fps=16) as file:
        for piece in decode_stream(vqgan, latent_frames):           # video [1, C, n, H, W]
            file.write(piece)

The suffix decides: `.mp4 .mov .mkv` become H.264 with AAC sound, `.gif .webp .apng .png` animations, and a path without
suffix a folder of numbered PNG files. A file appears under its name when it is complete, never before. What a video
file returns is not exactly what went in; measure on arrays.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats import limits
from tats.arrays import BROKEN, reason
from tats.flags import UserError
from tats.gif import GifFile
from tats.opened import UNDECODABLE, open_film, open_picture
from tats.sound import read_sound as read_sound  # a name of this module, too

FILMS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # suffix -> container
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG", ".png": "PNG"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
SUBSAMPLED = ("yuv420p", "yuv422p")  # pixel formats that need an even width (and height)
REPRODUCIBLE = {"bf": "0", "x264-params": "rc-lookahead=0:sync-lookahead=0:mbtree=0"}
"""x264 looking ahead gives other bytes now and then for the same small pictures; without it, it never did."""

Sound = tuple[Any, int]
"""Samples in [-1, 1], float [n] or [n, channels] (array or tensor), or an iterator of pieces of them, and their rate in
hertz."""


class VideoWriter:
    """Appends frames to a file that appears when the `with` block ends without an error.

    `path`: see the module. `fps` may be any positive number. `crf` is x264's quality (0 best, 17 looks lossless),
    `pix_fmt` yuv420p plays everywhere, yuv444p keeps the resolution of colours. Odd sizes are padded to even by their
    last row and column where the pixel format needs it. `sound` is cut where the video ends. `options` go to x264.
    WebP and animated PNG keep their frames in memory until the end, and make one longer picture of equal neighbours;
    the others need memory for one piece only.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        sound: Sound | None = None,
        crf: int = 17,
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
    ):
        self.path = Path(path)
        if not fps > 0 or math.isinf(fps):
            raise UserError(f"fps {fps} is not a rate: give a positive number of frames per second.")
        suffix = self.path.suffix.lower()
        if suffix and suffix not in {**FILMS, **ANIMATIONS}:
            raise UserError(
                f"{self.path}: cannot write {suffix} files. Use one of {' '.join([*FILMS, *ANIMATIONS])}, or a path "
                "without suffix for a folder of PNG files."
            )
        if sound is not None and suffix not in FILMS:
            raise UserError(f"{self.path}: only {' '.join(FILMS)} files carry sound.")
        if suffix and self.path.is_dir():
            raise UserError(f"{self.path} is a folder. Give the name of a file.")
        self.n_frames = 0
        self.size: tuple[int, ...] | None = None  # height and width of what is written
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._file: _Film | GifFile | _Animation | _Folder
        if suffix in FILMS:
            settings = {"crf": str(crf), **REPRODUCIBLE, **(options or {})}
            self._file = _Film(self._part, FILMS[suffix], fps, sound, pix_fmt, settings)
        elif suffix == ".gif":
            self._file = GifFile(self._part, fps)
        elif suffix:
            self._file = _Animation(self._part, ANIMATIONS[suffix], fps)
        else:
            self._file = _Folder(self._part, self.path)

    def write(self, piece: Any) -> None:
        """Append frames uint8 [n, H, W, 3] (or [n, H, W, 1]), or a video float [C, n, H, W] or [1, C, n, H, W]."""
        frames = _frames(piece)
        if self.size is None:
            self.size = frames.shape[1:3]
        elif self.size != frames.shape[1:3]:
            raise ValueError(f"pieces differ in size: {list(self.size)} at first, now {list(frames.shape[1:3])}")
        for frame in frames:
            self._file.add(frame)
        self.n_frames += len(frames)

    def close(self) -> None:
        """Finish the file and give it its name; without a single frame there is nothing to finish."""
        if self.n_frames == 0:
            self.discard()
            raise ValueError(f"no frames were written to {self.path}")
        complete = False
        try:
            self._file.finish()
            complete = True
        finally:
            if not complete:
                self.discard()
        if self.path.is_dir():
            shutil.rmtree(self.path)  # frames of an earlier video: `_Folder` has looked
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Drop what has been written."""
        self._file.abandon()
        if self._part.is_dir():
            shutil.rmtree(self._part)
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_video(path: str | Path, video: Any, fps: float, sound: Sound | None = None, **options: Any) -> None:
    """Write a whole video (float [1, C, T, H, W] or [C, T, H, W], or frames uint8 [T, H, W, 3]), or an iterator of
    pieces of one, to a file; `options` are those of `VideoWriter`."""
    pieces = [video] if hasattr(video, "shape") else video
    with VideoWriter(path, fps, sound=sound, **options) as file:
        for piece in pieces:
            file.write(piece)


def read_frames(path: str | Path) -> NDArray[np.uint8]:
    """All frames of a video file, an animation, or a folder of PNG files, in order: uint8 [T, H, W, 3]."""
    return np.stack(list(frames_of(path)))


def frames_of(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video file, an animation, or a folder of PNG files one by one, uint8 [H, W, 3]: a file of any
    length in the memory of a few frames."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist.")
    if path.is_dir():
        pictures = sorted(path.glob("*.png"), key=lambda picture: (len(picture.stem), picture.stem))
        frames: Iterator[NDArray[Any]] = _read_pictures(pictures)
    else:
        frames = _read_pictures([path]) if path.suffix.lower() in ANIMATIONS else _decode_frames(path)
    first = next(frames, None)
    if first is None:
        raise UserError(f"{path} holds no frames.")
    yield first
    yield from frames


class _Film:
    """H.264 and AAC in a container, with frame k shown at exactly k / fps."""

    def __init__(
        self, path: Path, container: str, fps: float, sound: Sound | None, pix_fmt: str, options: dict[str, str]
    ):
        self.path, self.container, self.rate = path, container, Fraction(fps).limit_denominator(1001)
        self.pix_fmt, self.options = pix_fmt, options
        self.sound = None if sound is None else _Samples(sound)
        self.count = self.heard = 0  # frames and samples written
        self.file: Any = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        import av

        if self.pix_fmt in SUBSAMPLED:
            height, width = frame.shape[:2]
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self.file is None:
            self._open(*frame.shape[:2])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.count, 1 / self.rate
        self.file.mux(self.video.encode(picture))
        self.count += 1
        self._sound_until(self.count / self.rate)

    def _open(self, height: int, width: int) -> None:
        import av

        flags = {} if self.container == "matroska" else {"movflags": "+faststart"}  # the index stands in front
        self.file = av.open(str(self.path), "w", format=self.container, options=flags)
        self.video = self.file.add_stream("libx264", rate=self.rate, options=self.options)
        self.video.width, self.video.height, self.video.pix_fmt = width, height, self.pix_fmt
        self.video.codec_context.time_base = 1 / self.rate
        self.video.thread_count = 1  # more threads cut the picture differently
        if self.sound is not None:
            layout = "mono" if self.sound.channels == 1 else "stereo"
            self.audio = self.file.add_stream("aac", rate=self.sound.rate, layout=layout, options={"b": "96k"})

    def _sound_until(self, seconds: Fraction) -> None:
        """Write the sound up to a time, so that both tracks grow together."""
        import av

        if self.sound is None:
            return
        rate = self.sound.rate
        part = self.sound.take(round(seconds * rate) - self.heard)  # [channels, n]
        if part.shape[1]:
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=self.audio.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), self.heard
            self.file.mux(self.audio.encode(frame))
            self.heard += part.shape[1]

    def finish(self) -> None:
        self.file.mux(self.video.encode(None))
        if self.sound is not None:
            self.file.mux(self.audio.encode(None))
        self.file.close()

    def abandon(self) -> None:
        if self.file is not None:
            self.file.close()


class _Animation:
    """WebP and animated PNG, written at the end."""

    def __init__(self, path: Path, kind: str, fps: float):
        self.path, self.kind, self.fps = path, kind, fps
        self.frames: list[NDArray[np.uint8]] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        self.frames.append(frame)

    def finish(self) -> None:
        from PIL import Image

        first, *rest = [Image.fromarray(frame) for frame in self.frames]
        options: dict[str, Any] = {"quality": 90} if self.kind == "WEBP" else {}
        times = [round(1000 * k / self.fps) for k in range(len(self.frames) + 1)]  # rounded times: no drift
        durations = [after - before for before, after in pairwise(times)]
        first.save(self.path, self.kind, save_all=True, append_images=rest, duration=durations, loop=0, **options)

    def abandon(self) -> None:
        self.frames.clear()


class _Folder:
    """A folder of pictures 00000.png, 00001.png, ..."""

    def __init__(self, path: Path, final: Path):
        if final.is_dir() and any(f.suffix != ".png" or not f.stem.isdigit() for f in final.iterdir()):
            raise UserError(f"{final} holds other files than frames. Give another folder.")
        self.path, self.count = path, 0
        path.mkdir(parents=True, exist_ok=True)

    def add(self, frame: NDArray[np.uint8]) -> None:
        from PIL import Image

        Image.fromarray(frame).save(self.path / f"{self.count:05d}.png")
        self.count += 1

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def _frames(piece: Any) -> NDArray[np.uint8]:
    """A piece of video in either form -> uint8 [n, H, W, 3]."""
    if not isinstance(piece, np.ndarray) and piece.is_floating_point():
        from tats.video import to_frames

        if piece.ndim == 5 and len(piece) != 1:
            raise ValueError(f"a file holds one video, got {len(piece)}: [{', '.join(map(str, piece.shape))}]")
        piece = to_frames(piece[0] if piece.ndim == 5 else piece)
    frames = np.asarray(piece)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3):
        raise ValueError(
            "expected frames uint8 [n, H, W, 3] or a video tensor [1, C, n, H, W], "
            f"got {frames.dtype} {list(frames.shape)}"
        )
    return np.broadcast_to(frames, (*frames.shape[:3], 3))


class _Samples:
    """A sound, given at once or in pieces, that is taken from its front; `rate` is one that AAC has."""

    def __init__(self, sound: Sound):
        values, self.rate = sound
        if self.rate not in AAC_RATES:
            raise UserError(f"AAC has no rate of {self.rate} Hz. Use one of {', '.join(map(str, AAC_RATES))}.")
        self._pieces = iter([values] if hasattr(values, "__array__") or isinstance(values, list | tuple) else values)
        self._held = _planes(next(self._pieces, np.zeros(0)))
        self.channels = len(self._held)

    def take(self, n: int) -> NDArray[np.float32]:
        """The next n samples, fewer where the sound ends: float32 [channels, n]."""
        parts, count = [self._held], self._held.shape[1]
        while count < n and (piece := next(self._pieces, None)) is not None:
            parts.append(_planes(piece))
            count += parts[-1].shape[1]
        whole = np.concatenate(parts, 1) if len(parts) > 1 else self._held
        self._held = whole[:, n:]
        return np.ascontiguousarray(whole[:, :n])


def _planes(values: Any) -> NDArray[np.float32]:
    """Samples float [n] or [n, channels] -> float32 [channels, n] in [-1, 1]."""
    samples = np.asarray(values, np.float32)
    samples = samples[None] if samples.ndim == 1 else samples.T
    if samples.ndim != 2 or len(samples) not in (1, 2):
        raise ValueError(f"sound must be float [n], [n, 1] or [n, 2], got {list(np.shape(values))}")
    return np.clip(samples, -1, 1)


def _decode_frames(path: Path) -> Iterator[NDArray[Any]]:
    from av.error import FFmpegError

    try:
        with open_film(path) as file:
            if not file.streams.video:
                raise UserError(f"{path} has no video track.")
            stream = file.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "SLICE", 1  # frame threads can hang (`tats.reader`)
            for number, frame in enumerate(file.decode(video=0), 1):
                limits.check_frames(number)
                yield frame.to_ndarray(format="rgb24")
    except (FFmpegError, *UNDECODABLE) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or reason(error)}.") from error


def _read_pictures(paths: Iterable[Path]) -> Iterator[NDArray[Any]]:
    from PIL import Image, ImageSequence

    for path in paths:
        try:
            with open_picture(path) as picture:
                for number, frame in enumerate(ImageSequence.Iterator(picture), 1):
                    limits.check_frames(number)
                    limits.check_picture(*frame.size)
                    yield np.asarray(frame if frame.mode == "RGB" else frame.convert("RGB"))
        except (*BROKEN, limits.TooLarge) as error:
            raise UserError(f"{path} cannot be read: {reason(error)}.") from error
        except Image.DecompressionBombError as error:
            most = f"--max_pixels allows {limits.limit('max_pixels'):,}"
            raise UserError(f"{path} cannot be read: a frame of it has more pixels than {most}.") from error
