"""Formats of pictures and sound: videos, animations, images, zip files of frames, sounds."""

import io
import json
import random
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.format import Format, change_one, drained, only
from fuzz.texts import changed_json

SIZE = (32, 24)
FILMS = {  # suffix -> codec and its options
    "mp4": ("libx264", {"g": "6", "bf": "2"}),
    "webm": ("libvpx", {"g": "6", "lag-in-frames": "0"}),
    "avi": ("mpeg4", {"g": "6"}),
    "mkv": ("libx264", {"g": "6"}),
    "mov": ("mjpeg", {}),
}


def frames(count: int = 16) -> np.ndarray:
    """uint8 [count, H, W, 3]: a bar that moves."""
    made = np.zeros((count, SIZE[1], SIZE[0], 3), np.uint8)
    for number in range(count):
        made[number, :, : number * 2 + 1] = (200, 15 * number, 90)
    return made


def film(suffix: str) -> Callable[[Path], None]:
    """Writes a video with sound where the container takes some."""

    def seed(folder: Path) -> None:
        import av

        codec, options = FILMS[suffix]
        with av.open(str(folder / f"film.{suffix}"), "w") as file:
            stream = file.add_stream(codec, rate=8, options=options)
            stream.width, stream.height = SIZE
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for picture in frames():
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())

    return seed


def parse_film(folder: Path) -> Any:
    """The container opens and holds a video."""
    import av

    with av.open(str(only(folder))) as file:
        return file.streams.video[0].codec_context.name


def read_film(folder: Path) -> Any:
    """Everything that is done with a video: index, a clip, all frames, times, pictures for a page."""
    from tats.media import frames_of
    from tats.reader import read_all, read_clip, scan

    path = only(folder)
    timeline = scan(path)
    last = timeline.n_frames - 1
    read_clip(path, timeline, last // 2, min(4, timeline.n_frames - last // 2))
    drained(read_all(path))
    drained(frames_of(path))
    scan(path, decode_all=True)


def animation(suffix: str) -> Callable[[Path], None]:
    """Writes an animated picture."""

    def seed(folder: Path) -> None:
        from tats.media import write_video

        write_video(folder / f"film.{suffix}", frames(5), fps=8)

    return seed


def parse_picture(folder: Path) -> Any:
    """What PIL reads of the head."""
    from PIL import Image

    with Image.open(only(folder)) as picture:
        return picture.size


def read_animation(folder: Path) -> Any:
    """Its frames."""
    from tats.media import frames_of

    return drained(frames_of(only(folder)))


def seed_images(folder: Path) -> None:
    """A picture in each form, grey, in colours, with a palette, 16 bit."""
    from PIL import Image

    picture = Image.fromarray(frames()[7])
    for suffix in ("png", "jpg", "webp", "bmp", "tiff", "ppm", "gif"):
        picture.save(folder / f"1.{suffix}")
    picture.convert("P").save(folder / "2.png")
    picture.convert("L").save(folder / "3.jpg")
    Image.fromarray(frames()[7, ..., 0].astype(np.uint16) << 8).save(folder / "4.png")
    picture.save(folder / "5.tiff", compression="tiff_deflate")


def change_images(folder: Path, rng: random.Random) -> None:
    """One of them stays, broken."""
    files = sorted(folder.iterdir())
    kept = rng.choice(files)
    for path in files:
        if path != kept:
            path.unlink()
    change = mutate.headers(0.2) if kept.suffix != ".png" else changed_png
    kept.write_bytes(change(kept.read_bytes(), rng))


def changed_png(data: bytes, rng: random.Random) -> bytes:
    """A PNG of which a chunk is broken and its checksum right all the same."""
    import struct
    import zlib

    if rng.random() < 0.3:
        return mutate.flipped(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    if not chunks:  # another change has left too little
        return mutate.flipped(data, rng)
    chunk = rng.choice(chunks)
    if chunk[0] == b"IHDR" and rng.random() < 0.5:
        chunk[1] = (
            struct.pack(">II", rng.choice((0, 1, 32, 2**16, 2**24, 2**31 - 1)), rng.choice((1, 24, 2**16)))
            + chunk[1][8:]
        )
    elif rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), list(chunk))
    else:
        chunk[1] = mutate.flipped(chunk[1], rng)
    made = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return data[:8] + b"".join(made)


def read_image(folder: Path) -> Any:
    """The square that a clip takes of it."""
    from tats.data.frames import load_pictures

    return load_pictures([only(folder)], 8).sum()


def seed_zip(folder: Path) -> None:
    """Two videos as folders of pictures in a zip file, with their classes."""
    import zipfile

    from PIL import Image

    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_STORED) as file:
        for video in ("a", "b", "deep/c"):
            for number, picture in enumerate(frames(4)):
                content = io.BytesIO()
                Image.fromarray(picture).save(content, "PNG")
                file.writestr(f"{video}/{number:06d}.png", content.getvalue())
        labels = [[f"{video}/000000.png", n] for n, video in enumerate(("a", "b", "deep/c"))]
        file.writestr("dataset.json", json.dumps({"labels": labels, "label_names": ["x", "y", "z"]}))


def inner_frame(name: str, data: bytes, rng: random.Random) -> bytes:
    """A member of a zip file of frames."""
    return changed_json(data, rng) if name.endswith(".json") else changed_png(data, rng)


def parse_zip(folder: Path) -> Any:
    """The list of members."""
    import zipfile

    with zipfile.ZipFile(only(folder)) as file:
        return file.namelist()


def read_zip(folder: Path) -> Any:
    """Every video of it, as training reads them."""
    from tats.data.config import DataConfig
    from tats.data.frames import FrameFolder

    config = DataConfig(str(only(folder)), sequence_length=2, resolution=8, image_folder=True, test_share=0.0)
    source = FrameFolder(config, "train")
    return [source.read(video, 0, np.random.default_rng(0))["video"].sum() for video in range(len(source.starts))]


def seed_sound(folder: Path) -> None:
    """Half a second of two channels."""
    samples = (np.sin(np.arange(4000) / 9) * 9000).astype("<i2")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.repeat(samples, 2).tobytes())


def parse_sound(folder: Path) -> Any:
    """The container opens and holds a sound."""
    import av

    with av.open(str(only(folder))) as file:
        return file.streams.audio[0].codec_context.name


def read_sound(folder: Path) -> Any:
    """All of it, at another rate."""
    from tats.sound import read_sound

    return read_sound(only(folder), 16000).sum()


def _film(suffix: str) -> Format:
    modules = ("tats/reader.py", "tats/media.py")
    return Format(
        f"video ({suffix})", modules, film(suffix), change_one("*", mutate.headers(1.0)), parse_film, read_film
    )


def _animation(suffix: str) -> Format:
    change = changed_png if suffix == "apng" else mutate.behind(30 if suffix == "webp" else 0, mutate.headers(0.3))
    return Format(
        f"animation ({suffix})",
        ("tats/media.py",),
        animation(suffix),
        change_one("*", change),
        parse_picture,
        read_animation,
    )


FORMATS = [
    *map(_film, FILMS),
    *map(_animation, ("gif", "webp", "apng")),
    Format(
        "pictures (png, jpg, webp, bmp, tiff, ppm, gif)",
        ("tats/data/frames.py",),
        seed_images,
        change_images,
        parse_picture,
        read_image,
    ),
    Format(
        "frames (zip)",
        ("tats/data/safe_zip.py", "tats/data/stores.py", "tats/data/frames.py"),
        seed_zip,
        change_one("*.zip", lambda data, rng: mutate.zipped(data, rng, inner_frame)),
        parse_zip,
        read_zip,
    ),
    Format(
        "sound (wav)", ("tats/sound.py",), seed_sound, change_one("*", mutate.headers(0.02)), parse_sound, read_sound
    ),
]
