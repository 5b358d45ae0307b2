"""Small video files for the tests of readers: every frame tells its own number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [H, W, 3]: brightness and a bar that tell frames apart even after compression."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : (number * 7) % width + 1] = 60 + (number * 11) % 180
    frame[:8] = (number * 4) % 256
    return frame


def write_film(
    path: Path,
    codec: str = "libx264",
    n_frames: int = 40,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    stamps: list[int] | None = None,
    rate: int = 25,
) -> Path:
    """A video file of `n_frames` pictures; `stamps` in milliseconds make the rate vary, or the file begin late."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if stamps else Fraction(1, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"g": "12"})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = base
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
            frame.pts, frame.time_base = stamps[number] if stamps else number, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def whole_film(path: Path) -> np.ndarray:
    """All frames of a file, decoded in order: uint8 [T, H, W, 3]. Knows nothing of our reader."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def film_folders(root: Path, classes: dict[str, int], n_frames: int = 24, suffix: str = ".mp4", **settings) -> Path:
    """`root/{train,test}/<class>/<number><suffix>` with as many files per class as told, in both splits."""
    codec = settings.pop("codec", "libx264")
    for split in ("train", "test"):
        for name, count in classes.items():
            for number in range(count):
                write_film(root / split / name / f"{number}{suffix}", codec, n_frames, **settings)
    return root
