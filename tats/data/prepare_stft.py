"""Spectrograms of the sound of a folder of videos: `<stft>/<split>/<name>.npy`, one picture per frame.

A sound lies in its video, or beside it as a file of the same name (`<name>.wav`, `.flac`, `.mp3`, ...), which then
counts. What is there and newer than its sources is kept, so that a stopped call goes on with the same command.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tats.data.left_out import check_unreadable, named, say
from tats.data.pool import each
from tats.data.spectrogram import RATE, SETTINGS, SIZE, spectrogram
from tats.flags import UserError, new_folder
from tats.reader import ReadError, frame_times
from tats.sound import BESIDE, NoSound, SoundError, sound_of, sound_pieces

SPLITS = ("train", "test")
ABOUT = "spectrogram.json"  # beside the splits: what the pictures were made with


@dataclass(frozen=True)
class Job:
    """One video, the file its sound is read from, and the file that is made."""

    video: Path
    sound: Path
    out: Path

    def __str__(self) -> str:
        return str(self.video)


@dataclass(frozen=True)
class Made:
    """What became of a job: `frames` pictures, or why there are none; `silent`: the video has no sound."""

    frames: int = 0
    silent: bool = False
    problem: str = ""


def prepare_stft(data_path: str, out: str | None = None, workers: int | None = None) -> Path:
    """Make what is missing of the spectrograms of `data_path`; returns the folder with stft/, which --data_path of
    training takes.

    data_path: a folder with video/train and video/test, or with train/ and test/. out: another folder, which receives
    links to the videos beside the spectrograms.

    Raises:
        UserError: no videos, none with sound, more than 1 in 100 unreadable, or spectrograms of another kind there.
    """
    from tats.data.clips import find_videos  # not at the top: it takes torch along, into every process

    source = Path(data_path).expanduser()
    source = source.parent if source.name == "stft" and not (source / "train").is_dir() else source
    videos = source / "video" if (source / "video").is_dir() else source
    splits = [split for split in SPLITS if (videos / split).is_dir()]
    if not splits:
        raise UserError(
            f"--data_path {data_path} has neither train/ nor test/, nor video/train/: lay the videos out so"
        )
    root = Path(out).expanduser() if out is not None else source
    _claim(root / "stft")
    for split in splits:
        names = find_videos(videos / split)
        if root.resolve() != source.resolve():
            _link(videos / split, root / "video" / split, names)
        _make_split(videos / split, root / "stft" / split, names, workers)
    return root


def _make_split(videos: Path, out: Path, names: Sequence[str], workers: int | None) -> None:
    """The spectrograms of one split, and lines about what was left out."""
    jobs = [Job(videos / name, sound_of(videos / name), (out / name).with_suffix(".npy")) for name in names]
    twice = [job.video.name for job, other in pairwise(sorted(jobs, key=lambda job: job.out)) if job.out == other.out]
    if twice:
        raise UserError(f"{videos}: files that differ by their suffix alone would share a spectrogram: {named(twice)}")
    missing = [job for job in jobs if not is_made(job)]
    results = list(each(missing, make, workers, f"spectrograms of {videos}"))
    silent = [job.video.relative_to(videos).as_posix() for job, made in zip(missing, results) if made.silent]
    problems = [made.problem for made in results if made.problem]
    there = len(jobs) - len(silent) - len(problems)
    before = f", {len(jobs) - len(missing)} of them from before" if len(missing) < len(jobs) else ""
    say(f"{out}: spectrograms of {there} of {len(jobs)} videos{before}")
    if silent:
        say(f"{videos}: {len(silent)} of {len(jobs)} videos have no sound: {named(silent)}")
    check_unreadable(str(videos), problems, len(jobs))
    if not there:
        raise UserError(f"{videos}: none of {len(jobs)} videos has a sound, inside or beside it ({' '.join(BESIDE)})")


def make(job: Job) -> Made:
    """Write the pictures of one video; the file is there when it is complete, never before."""
    try:
        times = frame_times(job.video)
        part = job.out.with_name(f".{job.out.name}.{os.getpid()}.part")
        job.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(part, spectrogram(sound_pieces(job.sound, RATE), times), len(times) - 1)
            os.replace(part, job.out)
        finally:
            part.unlink(missing_ok=True)
    except NoSound:
        return Made(silent=True)
    except (ReadError, SoundError) as error:
        return Made(problem=str(error))
    return Made(frames=len(times) - 1)


def _write(path: Path, pieces: Iterator[NDArray[np.float16]], frames: int) -> None:
    """An array float16 [frames, 64, 16] as .npy, written piece by piece."""
    with path.open("wb") as file:
        header = {"descr": np.dtype("<f2").str, "fortran_order": False, "shape": (frames, *SIZE)}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, "<f2").tobytes())


def is_made(job: Job) -> bool:
    """Whether the pictures are there, and not older than what they are made of."""
    if not job.out.exists():
        return False
    made = job.out.stat().st_mtime_ns
    return all(made >= path.stat().st_mtime_ns for path in (job.video, job.sound))


def _claim(folder: Path) -> None:
    """Say in the folder what its pictures are made with; pictures that were made in another way are refused."""
    path = folder / ABOUT
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            there = None
        if there != SETTINGS:
            raise UserError(f"{folder} holds spectrograms of another kind ({there}): delete it, or give another --out")
        return
    if folder.is_dir() and any(folder.rglob("*.*")):
        raise UserError(f"{folder} holds files that `tats prepare --stft` has not written: give another --out")
    new_folder(folder, "--out")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(SETTINGS, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def _link(videos: Path, folder: Path, names: Sequence[str]) -> None:
    """Links in `folder` to the videos, where they are not there yet."""
    for name in names:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.resolve() != (videos / name).resolve():
            raise UserError(f"{link} is another video than {videos / name}: give another --out")
        if not link.exists():
            link.symlink_to((videos / name).resolve())
