"""The parts that `tats prepare` has made, put together: an HDF5 file, a zip file per split, or one per partition.

Each is written to a temporary name, synced, and renamed when it is complete.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.prepare_parts import How, picture_name, read_record
from tats.data.prepare_plan import Part, Plan, write_json
from tats.data.stores import LABELS, LISTED
from tats.flags import UserError

AT_ONCE = 16 * 2**20  # bytes that are copied at once
HDF5 = "videos.h5"

Made = tuple[Part, list[dict[str, Any]]]  # a part, and what became of its videos


def put_together(plan: Plan, how: How, partition: int | None) -> list[Path]:
    """Make the files out of the parts; returns them. `partition`: of several zip files, this one only.

    Raises:
        UserError: the disk is full, or HDF5 should hold pictures of several sizes.
    """
    made = [(part, read_record(how.record(part))) for part in plan.parts if how.record(part).exists()]
    names = plan.label_names
    splits = list(dict.fromkeys(part.split for part, _ in made))
    try:
        if how.form == "hdf5":
            return [_hdf5(how, made, splits, names)]
        if how.form == "zip":
            return [_zip(how, [each for each in made if each[0].split == split], names, split) for split in splits]
        if how.form == "folders":
            return [_folders(how, [each for each in made if each[0].split == split], names, split) for split in splits]
        wanted = range(plan.settings["num_partitions"]) if partition is None else [partition]
        return [_partition(how, made, names, split, number) for split in splits for number in wanted]
    except OSError as error:
        raise UserError(
            f"--out {how.out}: {error.strerror or error}. What is done is kept; the same command goes on"
        ) from error


def _films(made: Sequence[Made]) -> Iterator[dict[str, Any]]:
    return (film for _, films in made for film in films if film["frames"])


def _hdf5(how: How, made: Sequence[Made], splits: Sequence[str], names: Sequence[str]) -> Path:
    """One file: `<split>_data`, `<split>_idx`, and beside what every reader knows `<split>_label`, `<split>_name`."""
    import h5py

    sizes = {(film["height"], film["width"]) for film in _films(made)}
    if len(sizes) > 1:
        there = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:5])
        raise UserError(f"HDF5 holds pictures of one size, and these videos have several ({there}): give --resolution")
    height, width = sizes.pop()
    path, partial = how.out / HDF5, how.work / f".{HDF5}.{os.getpid()}.part"
    try:
        with h5py.File(partial, "w") as file:
            file.attrs["label_names"] = json.dumps(list(names))
            for split in splits:
                parts = [each for each in made if each[0].split == split]
                films = list(_films(parts))
                frames = np.array([film["frames"] for film in films], np.int64)
                data = file.create_dataset(f"{split}_data", (int(frames.sum()), height, width, 3), np.uint8)
                _fill(data, how, parts)
                file[f"{split}_idx"] = np.cumsum(frames) - frames
                file[f"{split}_label"] = np.array([film["label"] for film in films], np.int64)
                file[f"{split}_fps"] = np.array([film["fps"] for film in films], np.float64)
                file.create_dataset(f"{split}_name", data=[film["source"] for film in films], dtype=h5py.string_dtype())
        _settle(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _fill(data: Any, how: How, parts: Sequence[Made]) -> None:
    """Frames of all parts, in their order, into a table uint8 [frames, H, W, 3]."""
    one = int(np.prod(data.shape[1:]))
    rows = max(1, AT_ONCE // one)
    place = 0
    for part, films in parts:
        left = sum(film["frames"] for film in films)
        with how.data(part).open("rb") as file:
            while left:
                taken = np.fromfile(file, np.uint8, min(rows, left) * one).reshape(-1, *data.shape[1:])
                if not len(taken):
                    raise UserError(f"{how.data(part)} is cut short: delete {how.work} and start anew")
                data[place : place + len(taken)] = taken
                place, left = place + len(taken), left - len(taken)


def _zip(how: How, made: Sequence[Made], names: Sequence[str], split: str) -> Path:
    """`<split>.zip`, as StyleGAN-V reads it: the split's own folder in it, folders before what they hold, sorted."""
    path = how.out / f"{split}.zip"

    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr(member(f"{split}/"), "")
        archive.writestr(member(f"{split}/{LABELS}"), labels_of(_films(made), names, how))
        for film, names_in, read in _members(how, made):
            archive.writestr(member(f"{split}/{film['name']}/"), "")
            for name in names_in:
                archive.writestr(member(f"{split}/{film['name']}/{name}"), read(f"{film['name']}/{name}"))

    return _write_zip(how, path, fill)


def _partition(how: How, made: Sequence[Made], names: Sequence[str], split: str, number: int) -> Path:
    """`<split>/<H>x<W>/partition_<number>.zip`, as LongVideoGAN reads it, with the list of its pictures."""
    mine = [each for each in made if each[0].split == split and each[0].partition == number]
    folder = how.out / split
    if how.resolution:
        folder = folder / f"{how.resolution:04d}x{how.resolution:04d}"
    folder.mkdir(parents=True, exist_ok=True)

    path = folder / f"partition_{number:04d}.zip"
    if path.exists():  # from an earlier call of the same plan: renamed when it was complete
        return path

    def fill(archive: zipfile.ZipFile) -> None:
        listed = {}
        for film, names_in, read in _members(how, mine):
            listed[film["name"]] = names_in
            for name in names_in:
                archive.writestr(member(f"{film['name']}/{name}"), read(f"{film['name']}/{name}"))
        archive.writestr(member(LABELS), labels_of(_films(mine), names, how))
        archive.writestr(member(LISTED), json.dumps(listed, indent=2, sort_keys=True))

    return _write_zip(how, path, fill)


def _folders(how: How, made: Sequence[Made], names: Sequence[str], split: str) -> Path:
    """The folders are in their places; only the classes are missing."""
    content = json.loads(labels_of(_films(made), names, how))
    write_json(how.out / split / LABELS, content)
    return how.out / split


def _members(how: How, made: Sequence[Made]) -> Iterator[tuple[dict[str, Any], list[str], Any]]:
    """Every video of the parts: what became of it, the names of its pictures, and a function that reads one. Sorted by
    name within each part, and parts hold videos in the order of their names."""
    for part, films in made:
        with zipfile.ZipFile(how.data(part)) as archive:
            for film in films:
                if film["frames"]:
                    yield film, [picture_name(number, how) for number in range(film["frames"])], archive.read


def labels_of(films: Iterator[dict[str, Any]], names: Sequence[str], how: How) -> str:
    """`dataset.json`: the first picture of every video with its class id, and the names of the classes."""
    labels = [[f"{film['name']}/{picture_name(0, how)}", film["label"]] for film in films]
    return json.dumps({"labels": labels, "label_names": list(names)})


def member(name: str) -> zipfile.ZipInfo:
    """A file of a zip file, or a folder; without a time, so that equal content makes equal files."""
    found = zipfile.ZipInfo(name)
    found.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
    return found


def _write_zip(how: How, path: Path, fill: Any) -> Path:
    partial = how.work / f".{path.name}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            fill(archive)
        _settle(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _settle(partial: Path, path: Path) -> None:
    """A finished file to its name, once its bytes are on the disk."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
