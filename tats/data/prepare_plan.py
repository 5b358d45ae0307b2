"""What `tats prepare` has to do: which videos become which parts of what is made, settled before anything is decoded.

A part is a run of videos that one process decodes and writes at once. Parts depend on the videos and the settings
alone, so that a stopped call, or another machine, goes on with them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tats.data.clips import class_of, find_videos
from tats.data.config import DataConfig
from tats.data.frames import share_out
from tats.data.index import Entry, index_folder
from tats.flags import UserError, existing_path

SPLITS = ("train", "test")
PART_BYTES = 64 * 2**20  # pixels that a part holds, about: minutes of work for a process at most


@dataclass(frozen=True)
class Film:
    """A video: its path below the root of its split, what it is called in what is made, its class id and frames."""

    source: str
    name: str
    label: int
    frames: int
    fps: float


@dataclass(frozen=True)
class Part:
    """Videos that are decoded and written together. `str()` names it, as a file name does."""

    number: int
    split: str
    partition: int
    films: tuple[Film, ...]

    def __str__(self) -> str:
        return f"{self.split}_{self.number:05d}"


@dataclass(frozen=True)
class Found:
    """The videos of a split, as they lie there: `root` of the paths, all files of it, and its classes."""

    split: str
    root: Path
    entries: Sequence[Entry]
    label_names: list[str]

    @property
    def readable(self) -> list[Entry]:
        """Files that can be read, as far as indexing can tell."""
        return [entry for entry in self.entries if entry.timeline is not None]

    @property
    def problems(self) -> list[str]:
        """The others, each with its reason."""
        return [f"{entry.name}: {entry.problem}" for entry in self.entries if entry.timeline is None]


@dataclass(frozen=True)
class Plan:
    """Settings, parts, and a digest that tells whether the parts of an earlier call are of the same data."""

    settings: dict[str, Any]
    found: tuple[Found, ...]
    parts: tuple[Part, ...]
    digest: str = field(default="")

    @property
    def label_names(self) -> list[str]:
        """Names of the classes by id, those of the train split first."""
        return list(self.found[0].label_names) if self.found else []


def find(
    data_path: str, workers: int | None, test_share: float = 0.0, split_seed: int = 0, whole: bool = False
) -> list[Found]:
    """The videos at `data_path`: of train/ and test/ where these exist, else of the folder itself, of which
    `test_share` are dealt out at random to test. `whole`: every frame of every file is decoded to see that it can be.

    Raises:
        UserError: no such folder, or no video in it.
    """
    root = existing_path(data_path, "--data_path")
    if not root.is_dir():
        raise UserError(f"--data_path {data_path} is a file: give the folder that holds the videos")
    splits = [split for split in SPLITS if (root / split).is_dir()]
    folders = {split: root / split for split in splits} or {"": root}
    entries = {split: index_folder(folder, find_videos(folder), whole, workers) for split, folder in folders.items()}
    if not splits:
        by_name = {entry.name: entry for entry in entries.pop("")}
        config = DataConfig(data_path=data_path, test_share=test_share, split_seed=split_seed)
        dealt = {split: share_out(config, sorted(by_name), split) for split in SPLITS[: 1 + bool(test_share)]}
        folders = dict.fromkeys(dealt, root)
        entries = {split: [by_name[name] for name in names] for split, names in dealt.items()}
    classes = [sorted({class_of(entry.name) for entry in some}) for some in entries.values()]
    others = sorted({name for some in classes for name in some} - set(classes[0]))
    return [Found(split, folders[split], some, classes[0] + others) for split, some in entries.items()]


def make_plan(found: Sequence[Found], settings: dict[str, Any]) -> Plan:
    """The parts of the work. `settings` that count: form, resolution (None: as they are), num_partitions.

    Raises:
        UserError: no video can be read.
    """
    if not any(each.readable for each in found):
        problems = [problem for each in found for problem in each.problems]
        raise UserError(f"none of {len(problems)} videos can be read: {'; '.join(problems[:10])}")
    flat = settings["form"] in ("zip", "folders")  # of these, readers expect <video>/<picture> and nothing above
    parts: list[Part] = []
    for each in found:
        films = _films(each, flat)
        shares = np.array_split(np.arange(len(films)), settings["num_partitions"])
        for partition, share in enumerate(shares):
            for group in _groups([films[place] for place in share], settings["resolution"]):
                parts.append(Part(len(parts), each.split, partition, tuple(group)))
    about = {
        "settings": settings,
        "files": [[each.split, entry.name, entry.size, entry.modified] for each in found for entry in each.entries],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return Plan(settings, tuple(found), tuple(parts), digest)


def claim(folder: Path, plan: Plan) -> None:
    """Say in `folder` what is being made there; go on where that has been said before.

    Raises:
        UserError: the folder holds something else, or the work of other settings or videos; they are named.
    """
    path = folder / "plan.json"
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            settings, digest = dict(there["settings"]), there["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): delete {folder} and start anew") from None
        if digest == plan.digest:
            return
        differ = [
            f"--{name} {settings.get(name)} there, {plan.settings[name]} now"
            for name in plan.settings
            if settings.get(name) != plan.settings[name]
        ]
        why = "; ".join(differ) or "videos were added, removed or changed since"
        raise UserError(
            f"--out {folder.parent} holds what was made otherwise ({why}): delete it, or give another --out"
        )
    inside = [entry.name for entry in folder.parent.iterdir() if entry != folder] if folder.parent.is_dir() else []
    if inside:
        raise UserError(
            f"--out {folder.parent} holds {', '.join(sorted(inside)[:3])}, which `tats prepare` has not made: give a "
            f"new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": plan.settings, "digest": plan.digest})


def write_json(path: Path, content: Any) -> None:
    """A JSON file that is there as a whole or not at all, and on the disk before its name is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _films(found: Found, flat: bool) -> list[Film]:
    ids = {name: number for number, name in enumerate(found.label_names)}
    names: set[str] = set()
    films = []
    for entry in found.readable:
        if entry.timeline is None:
            continue
        name = PurePosixPath(entry.name).with_suffix("").as_posix()
        name = name.replace("/", "__") if flat else name
        while name in names:  # two files that differ by their suffix alone
            name += "_"
        names.add(name)
        films.append(Film(entry.name, name, ids[class_of(entry.name)], entry.timeline.n_frames, entry.timeline.fps))
    return films


def _groups(films: Iterable[Film], resolution: int | None) -> Iterable[list[Film]]:
    most = max(1, PART_BYTES // (3 * (resolution or 256) ** 2))  # frames
    group: list[Film] = []
    for film in films:
        if group and sum(each.frames for each in group) + film.frames > most:
            yield group
            group = []
        group.append(film)
    if group:
        yield group
