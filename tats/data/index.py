"""The index of a folder of videos: what every file holds, found out once and kept beside the files.

`<folder>/.tats_index.npz` lists name, size and time of change of every file with the stamps of its frames, or the
reason why it cannot be read. Files that are new or were changed are scanned again, the others are not touched. A folder
that cannot be written to keeps its index in the user's cache instead.
"""

import concurrent.futures
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tats.arrays import ArrayError, read_npz
from tats.data.left_out import say
from tats.flags import UserError
from tats.reader import ReadError, Timeline, scan

NAME = ".tats_index.npz"
VERSION = 1
IN_PROCESS = 32  # up to this many files are scanned without further processes


@dataclass(frozen=True)
class Entry:
    """One video file: `timeline` when it can be read, else `problem` says why not. `whole`: every frame was decoded."""

    name: str  # relative to the folder, with forward slashes
    size: int
    modified: int  # nanoseconds
    whole: bool
    timeline: Timeline | None = None
    problem: str = ""


@dataclass(frozen=True)
class _Job:
    folder: Path
    name: str
    whole: bool
    stat: tuple[int, int] = field(default=(0, 0))


def index_folder(folder: Path, names: Sequence[str], whole: bool = False, workers: int | None = None) -> list[Entry]:
    """An entry for each of `names`, paths relative to `folder`, in that order.

    `whole` decodes every frame of every file (`--check_videos all`); else the ends. `workers` processes share the work,
    by default one per processor core.
    """
    stored = {entry.name: entry for entry in _load(folder)}
    entries: dict[str, Entry] = {}
    jobs = []
    for name in names:
        status = (folder / name).stat() if (folder / name).exists() else None
        stat = (status.st_size, status.st_mtime_ns) if status else (0, 0)
        known = stored.get(name)
        kept = known and "--max_" not in known.problem  # a limit may have been raised
        if known and kept and (known.size, known.modified) == stat and (known.whole or not whole):
            entries[name] = known
        else:
            jobs.append(_Job(folder, name, whole, stat))
    for entry in _scan_all(folder, jobs, workers):
        entries[entry.name] = entry
    found = [entries[name] for name in names]
    if jobs or len(stored) != len(found):
        _save(folder, found)
    return found


def _scan_all(folder: Path, jobs: list[_Job], workers: int | None) -> list[Entry]:
    from tqdm import tqdm

    if not jobs:
        return []
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with tqdm(total=len(jobs), desc=f"indexing {folder}", unit=" files", delay=0.5) as bar:
        done: list[Entry] = []
        if workers == 1 or len(jobs) <= IN_PROCESS:
            for job in jobs:
                done.append(_scan_one(job))
                bar.update()
            return done
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            try:
                for entry in pool.map(_scan_one, jobs, chunksize=8):
                    done.append(entry)
                    bar.update()
            except concurrent.futures.process.BrokenProcessPool as error:
                near = ", ".join(job.name for job in jobs[len(done) : len(done) + 8 * workers])
                raise UserError(
                    f"{folder}: a process died while indexing one of: {near}. Too little memory, or a file that "
                    f"crashes the decoder: --index_workers 1 goes through them one by one."
                ) from error
    return done


def _scan_one(job: _Job) -> Entry:
    size, modified = job.stat
    try:
        timeline = scan(job.folder / job.name, decode_all=job.whole)
    except ReadError as error:
        problem = str(error).removeprefix(f"{job.folder / job.name}: ")
        return Entry(job.name, size, modified, whole=True, problem=problem)
    return Entry(job.name, size, modified, job.whole, timeline)


def _places(folder: Path) -> list[Path]:
    """Where the index of `folder` may lie: beside the files, else in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return [folder / NAME, cache / "tats" / f"index-{key}.npz"]


def _load(folder: Path) -> list[Entry]:
    """The stored entries; none when there is no index, or none that can be read."""
    for path in _places(folder):
        try:
            return _unpack(read_npz(path))
        except (ArrayError, ValueError, KeyError, TypeError, IndexError):
            continue  # missing, cut short or of another version: it is made anew
    return []


def _save(folder: Path, entries: list[Entry]) -> None:
    """Write the index so that a reader sees the old one or the new one, never a part."""
    beside, cached = _places(folder)
    for path in (beside, cached):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
                np.savez_compressed(file, allow_pickle=False, **_pack(entries))
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError as error:
            where = f"keeping it in {cached}" if path is beside else "it will be made again next time"
            say(f"{folder}: the index of its videos cannot be written to {path.parent} ({error.strerror}); {where}")
        else:
            return


def _pack(entries: list[Entry]) -> dict[str, np.ndarray]:
    lines = [entry.timeline or Timeline(0, np.zeros(0, np.int64), 0.0) for entry in entries]
    return {
        "version": np.array(VERSION),
        "names": np.array([entry.name for entry in entries], np.str_),
        "sizes": np.array([entry.size for entry in entries], np.int64),
        "modified": np.array([entry.modified for entry in entries], np.int64),
        "whole": np.array([entry.whole for entry in entries], bool),
        "problems": np.array([entry.problem for entry in entries], np.str_),
        "n_frames": np.array([line.n_frames for line in lines], np.int64),
        "fps": np.array([line.fps for line in lines], np.float64),
        "n_stamps": np.array([len(line.stamps) for line in lines], np.int64),
        "stamps": np.concatenate([np.zeros(0, np.int64), *(line.stamps for line in lines)]),
    }


_ROWS = {"names": "U", "sizes": "i", "modified": "i", "whole": "b", "problems": "U", "n_frames": "i", "fps": "f", "n_stamps": "i"}  # fmt: skip  # noqa: E501


def _unpack(arrays: dict[str, np.ndarray]) -> list[Entry]:
    if int(arrays["version"]) != VERSION:
        raise ValueError(f"index of version {int(arrays['version'])}")
    n = len(arrays["names"])
    if any(arrays[key].shape != (n,) or arrays[key].dtype.kind != kind for key, kind in _ROWS.items()):
        raise ValueError("its rows contradict each other")
    if arrays["stamps"].ndim != 1 or arrays["stamps"].dtype != np.int64 or arrays["n_stamps"].min(initial=0) < 0:
        raise ValueError("its stamps are no row of integers")
    ends = np.cumsum(arrays["n_stamps"])
    entries = []
    for i, name in enumerate(arrays["names"].tolist()):
        problem = str(arrays["problems"][i])
        stamps = arrays["stamps"][ends[i] - arrays["n_stamps"][i] : ends[i]]
        timeline = None if problem else Timeline(int(arrays["n_frames"][i]), stamps, float(arrays["fps"][i]))
        size, modified, whole = int(arrays["sizes"][i]), int(arrays["modified"][i]), bool(arrays["whole"][i])
        entries.append(Entry(name, size, modified, whole, timeline, problem))
    return entries
