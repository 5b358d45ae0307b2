"""Exact clips out of video files: an index of presentation time stamps, and seeking by it.

A frame number means nothing to a container; a presentation time stamp (pts) does. `scan` lists the stamps of a file
once; `read_clip` seeks to the key frame before the wanted one and decodes up to it. Every frame it returns carries
the very stamp of the index, or the file is decoded from its start instead; a clip that is not what the index says is an
error, never a guess.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats import limits
from tats.flags import UserError
from tats.opened import UNDECODABLE, open_film

SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov")  # what a folder of videos is searched for
ENDS = 2  # frames decoded at the front of a file when it is indexed; at the back, all frames after the last key frame
STEP_BACK = 32  # frames; a seek that lands too late is tried again this much earlier
STAMPS_OF_PACKETS = (
    "h264",
    "hevc",
    "mpeg4",
    "mpeg1video",
    "mpeg2video",
    "vp9",
    "av1",
    "mjpeg",
    "png",
    "ffv1",
    "prores",
)
"""Codecs of which a packet is a frame. Of others (VP8 hides frames) the stamps come from decoding the whole file."""


class ReadError(UserError):
    """A video file cannot be read, or is not what its index says. The message names the file."""


@dataclass(frozen=True)
class Timeline:
    """When the frames of one file are shown.

    `stamps` int64 [n_frames], strictly increasing, in units of the stream's time base; empty when the file's stamps are
    of no use (H.264 with B-frames in AVI), and frames are counted from the start. `fps` is the average rate.
    """

    n_frames: int
    stamps: np.ndarray
    fps: float

    def __post_init__(self) -> None:
        if len(self.stamps) not in (0, self.n_frames):
            raise ValueError(f"stamps has {len(self.stamps)} entries for {self.n_frames} frames")


def scan(path: str | Path, decode_all: bool = False) -> Timeline:
    """List the stamps of a file, decoding its first frames and those after the last key frame to see that it plays.

    `decode_all` decodes every frame, which finds damage in the middle too. Files whose packets do not tell their frames
    (VP8; B-frames in AVI) are always decoded as a whole.

    Raises:
        ReadError: the file is missing, empty, damaged, or holds no video.
    """
    import av

    try:
        with _opened(path) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            n_packets, known = _packets(container, stream)
            stamps = sorted(known)
            in_doubt = container.format.name == "avi" and stream.codec_context.has_b_frames
            in_doubt |= len(stamps) != n_packets or stream.codec_context.name not in STAMPS_OF_PACKETS
        if not decode_all and not in_doubt and stamps and _ends_agree(path, stamps):
            return Timeline(len(stamps), np.array(stamps, np.int64), rate)
        return _scan_by_decoding(path, rate, strict=decode_all)
    except (av.FFmpegError, *UNDECODABLE) as error:
        raise ReadError(f"{path}: {_reason(error)}") from error


def frame_times(path: str | Path) -> np.ndarray:
    """When each frame of a file begins to be shown, and when the last one ends, in seconds from the first one on:
    float64 [n_frames + 1].

    Raises:
        ReadError: as `scan`.
    """
    import av

    timeline = scan(path)
    rate = timeline.fps or 25.0  # no container of ours leaves the rate out; raw streams may, and play at 25
    if not len(timeline.stamps):
        return np.arange(timeline.n_frames + 1) / rate
    try:
        with _opened(path) as container:
            unit = container.streams.video[0].time_base
    except (av.FFmpegError, *UNDECODABLE) as error:
        raise ReadError(f"{path}: {_reason(error)}") from error
    times = (timeline.stamps - timeline.stamps[0]) * float(unit)
    return np.append(times, times[-1] + 1 / rate)


def read_clip(path: str | Path, timeline: Timeline, start: int, count: int, step: int = 1) -> np.ndarray:
    """Frames start, start + step, ... below start + count -> uint8 [ceil(count / step), H, W, 3].

    Exactly what decoding the whole file in order and slicing gives, without decoding what lies before the key frame.

    Raises:
        ReadError: the file cannot be decoded there, or no longer agrees with `timeline`.
        ValueError: the window does not lie inside the file.
    """
    import av

    if start < 0 or count < 1 or step < 1 or start + count > timeline.n_frames:
        raise ValueError(f"frames {start} to {start + count} by {step} do not lie in the {timeline.n_frames} of {path}")
    try:
        if not len(timeline.stamps):
            frames = _read_by_count(path, start, count, step)
        else:
            frames = _read_by_stamp(path, timeline.stamps, start, count, step)
    except (av.FFmpegError, *UNDECODABLE) as error:
        raise ReadError(f"{path}: frames {start} to {start + count}: {_reason(error)}") from error
    if frames is None:
        raise ReadError(
            f"{path}: frames {start} to {start + count} are not those of its index: the file is damaged there, or was "
            f"replaced while in use. Repair or remove it; --check_videos all finds such files before training."
        )
    return frames


def read_all(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, uint8 [H, W, 3] each, one at a time.

    Raises:
        ReadError: the file cannot be opened or decoded.
    """
    import av

    try:
        with _opened(path) as container:
            for frame in _decoded(container):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, *UNDECODABLE) as error:
        raise ReadError(f"{path}: {_reason(error)}") from error


def _opened(path: str | Path, strict: bool = False) -> Any:
    """The container, with a video stream that decodes in one thread; `strict` refuses what a decoder could patch up.

    Frame threads wait for each other's log lines and can hang for ever when a file is closed half-read; slice threads
    do not, and must be asked for before the first frame.
    """
    container = open_film(path)
    if not container.streams.video:
        container.close()
        raise ReadError(f"{path}: holds no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    if strict:
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    return container


def _packets(container: Any, stream: Any) -> tuple[int, set[int]]:
    """How many packets of a stream hold something that is shown, and their stamps; packets are let go at once."""
    count, known = 0, set()
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            count += 1
            limits.check_frames(count)
            if packet.pts is not None:
                known.add(packet.pts)
    return count, known


def _decoded(container: Any) -> Iterator[Any]:
    yield from container.decode(container.streams.video[0])


class _Window:
    """The frames of one clip as they come: uint8 [n, H, W, 3], filled in one by one.

    One converter serves them all: a converter per frame, as `frame.to_ndarray` makes it, costs four times as much.
    """

    def __init__(self, count: int, step: int):
        from av.video.reformatter import VideoReformatter

        self.count, self.step, self.place = count, step, 0
        self._converter = VideoReformatter()
        self._frames: np.ndarray | None = None

    def add(self, frame: Any) -> bool:
        """Take the next frame of the window; whether the window is full. A frame of another size is refused."""
        if self.place % self.step == 0:
            picture = self._converter.reformat(frame, format="rgb24").to_ndarray()  # [H, W, 3]
            if self._frames is None:
                self._frames = np.empty((-(-self.count // self.step), *picture.shape), np.uint8)
            if picture.shape != self._frames.shape[1:]:
                raise OSError(None, f"the picture changes its size to {picture.shape[1]}x{picture.shape[0]}")
            self._frames[self.place // self.step] = picture
        self.place += 1
        return self.place == self.count

    @property
    def frames(self) -> np.ndarray | None:
        """The window when it is full, else None."""
        return self._frames if self.place == self.count else None


def _read_by_stamp(path: str | Path, stamps: np.ndarray, start: int, count: int, step: int) -> np.ndarray | None:
    """Seek to the wanted frame; when that lands too late, somewhat earlier; else from the start of the file."""
    for place in (start, max(start - STEP_BACK, 0), 0):
        with _opened(path) as container:
            if place:
                container.seek(int(stamps[place]), stream=container.streams.video[0])
            frames = _collect(_decoded(container), stamps[start : start + count], step, sought=place > 0)
        if frames is not None or not place:
            return frames
    return None


def _collect(decoded: Iterator[Any], wanted: np.ndarray, step: int, sought: bool) -> np.ndarray | None:
    """Frames with the stamps `wanted`, each `step`-th of them kept; None when another frame lies among them.

    A seek (`sought`) is believed only when the first frame behind it is a key frame, and not beyond the first wanted
    one: else frames may lean on others that were never decoded.
    """
    window = _Window(len(wanted), step)
    for frame in decoded:
        if frame.pts is None or frame.is_corrupt or (sought and not frame.key_frame):
            return None
        sought = False
        if window.place == 0 and frame.pts < wanted[0]:
            continue
        if frame.pts != wanted[window.place]:
            return None
        if window.add(frame):
            break
    return window.frames


def _read_by_count(path: str | Path, start: int, count: int, step: int) -> np.ndarray | None:
    window = _Window(count, step)
    with _opened(path) as container:
        for frame in itertools.islice(_decoded(container), start, None):
            if frame.is_corrupt:
                return None
            if window.add(frame):
                break
    return window.frames


def _ends_agree(path: str | Path, stamps: list[int]) -> bool:
    """Whether the first frames, and those from the last key frame on, decode with exactly the stamps listed."""
    with _opened(path) as container:
        decoded = _decoded(container)
        for stamp in stamps[:ENDS]:
            frame = next(decoded, None)
            if frame is None or frame.pts != stamp or frame.is_corrupt:
                return False
    with _opened(path) as container:
        container.seek(stamps[-1], stream=container.streams.video[0])
        tail = [frame.pts for frame in _decoded(container) if not frame.is_corrupt]
    return bool(tail) and tail == stamps[-len(tail) :]


def _scan_by_decoding(path: str | Path, rate: float, strict: bool) -> Timeline:
    stamps: list[int | None] = []
    with _opened(path, strict) as container:
        for frame in _decoded(container):
            if frame.is_corrupt:
                raise ReadError(f"{path}: frame {len(stamps)} is damaged")
            stamps.append(frame.pts)
            limits.check_frames(len(stamps))
    if not stamps:
        raise ReadError(f"{path}: holds no frame that decodes")
    known = [stamp for stamp in stamps if stamp is not None]
    ordered = len(known) == len(stamps) and all(a < b for a, b in itertools.pairwise(known))
    return Timeline(len(stamps), np.array(known if ordered else [], np.int64), rate)


def _reason(error: Exception) -> str:
    """What went wrong, in one short line: FFmpeg repeats the path, which the caller has named already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
