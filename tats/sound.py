"""The sound of files, read in pieces: any audio or video file that FFmpeg knows, of any length.

    for samples in sound_pieces("film.mp4", rate=16000):      # float32 [n], the mean of the channels
        ...

Time counts from the first frame of the picture, if there is one: sample 0 is heard with it, whatever the stamps of the
file begin with. What is missing there (a sound that begins later, a gap) is silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats import limits
from tats.arrays import reason
from tats.flags import UserError
from tats.opened import UNDECODABLE, open_film

BESIDE = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")  # sound files that may lie beside a video
PIECE = 1 << 16  # samples, about: what is held in memory at a time
LONGEST_GAP = 3600  # seconds of silence inside a file; more are a damaged stamp
GAP = 0.03  # seconds that stamps may disagree with the count of samples: containers round them to milliseconds


class SoundError(UserError):
    """The sound of a file cannot be read. The message names the file."""


class NoSound(SoundError):
    """A file can be read, but has no audio track."""


def read_sound(path: str | Path, rate: int) -> NDArray[np.float32]:
    """The whole sound of a file, the mean of its channels, resampled to `rate` hertz: float32 [n], about in [-1, 1].
    Sample 0 is heard with the first frame.

    Raises:
        SoundError: the file is missing or damaged, or (NoSound) has no audio track.
    """
    return np.concatenate([np.zeros(0, np.float32), *sound_pieces(path, rate)])


def sound_pieces(
    path: str | Path, rate: int, start: float = 0.0, seconds: float | None = None
) -> Iterator[NDArray[np.float32]]:
    """As `read_sound`, in pieces float32 [n] of a few seconds or less: `seconds` of it (None: all) from `start` on, as
    far as there is sound."""
    if not Path(path).is_file():
        raise SoundError(f"{path} is a folder." if Path(path).is_dir() else f"{path} does not exist.")
    first = round(start * rate)
    last = None if seconds is None else first + round(seconds * rate)
    place = 0
    for piece in _whole(Path(path), rate):
        cut = piece[max(first - place, 0) : None if last is None else max(last - place, 0)]
        place += len(piece)
        if len(cut):
            yield cut
        if last is not None and place >= last:
            return


def sound_of(video: str | Path) -> Path:
    """The file that the sound of a video is read from: one of the same name beside it, else the video itself."""
    found = [Path(video).with_suffix(suffix) for suffix in BESIDE]
    return next((path for path in found if path.is_file()), Path(video))


def native_rate(path: str | Path) -> int:
    """The sampling rate of a file's sound in hertz.

    Raises:
        SoundError: as `read_sound`.
    """
    with _opened(Path(path)) as file:
        return int(file.streams.audio[0].rate)


def _whole(path: Path, rate: int) -> Iterator[NDArray[np.float32]]:
    """All samples from time 0 on, in pieces."""
    with _opened(path) as file:
        yield from _gathered(_placed(_resampled(file, rate), rate, _begin(file)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container of a file that has sound; what FFmpeg says inside becomes a `SoundError` that names the file."""
    from av.error import FFmpegError

    try:
        with open_film(path) as file:
            if not file.streams.audio:
                raise NoSound("has no audio track. Give a file with sound.")
            yield file
    except SoundError as error:
        raise type(error)(f"{path} {error}") from None
    except (FFmpegError, *UNDECODABLE) as error:
        raise SoundError(f"{path} cannot be read: {getattr(error, 'strerror', None) or reason(error)}.") from error


def _begin(file: Any) -> float:
    """The time stamp in seconds that counts as 0: of the first picture, or without pictures of the first sound."""
    from av.stream import Disposition

    pictures = [stream for stream in file.streams.video if not stream.disposition & Disposition.attached_pic]
    stream = (pictures or file.streams.audio)[0]
    return float((stream.start_time or 0) * stream.time_base)


def _resampled(file: Any, rate: int) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
    """Samples float32 [n] at `rate`, and the time stamp in seconds of the first, where the file tells.

    A resampler holds samples back; a time stamp is handed on with the samples that come next, less what was held.
    """
    import av

    resampler = av.AudioResampler(format="fltp", rate=rate)  # keeps the channels: FFmpeg's mono is too loud
    taken = given = 0.0  # seconds that went into the resampler and came out
    for frame in file.decode(audio=0):
        time = frame.time
        held = taken - given
        taken += frame.samples / frame.sample_rate
        limits.check_seconds(taken)
        frame.pts = None  # the resampler counts by itself
        for part in resampler.resample(frame):
            samples = part.to_ndarray().mean(0)
            yield (None if time is None else time - held), samples
            given += len(samples) / rate
            time = None
    for part in resampler.resample(None):
        yield None, part.to_ndarray().mean(0)


def _placed(
    parts: Iterator[tuple[float | None, NDArray[np.float32]]], rate: int, begin: float
) -> Iterator[NDArray[np.float32]]:
    """The same samples with silence where the stamps leave gaps, and without what comes before time 0 or twice."""
    place = 0  # the next sample of the result
    for number, (time, samples) in enumerate(parts):
        at = place if time is None else round((time - begin) * rate)
        if number and abs(at - place) <= GAP * rate:
            at = place
        if at - place > LONGEST_GAP * rate:
            raise SoundError(f"is damaged: its sound stops for {(at - place) / rate / 3600:.1f} hours")
        while at > place:
            silence = np.zeros(min(at - place, PIECE), np.float32)
            yield silence
            place += len(silence)
        samples = samples[place - at :]
        yield samples
        place += len(samples)


def _gathered(parts: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The same samples in pieces of about `PIECE`."""
    waiting: list[NDArray[np.float32]] = []
    count = 0
    for part in parts:
        waiting.append(part.astype(np.float32))
        count += len(part)
        if count >= PIECE:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if count:
        yield np.concatenate(waiting)
