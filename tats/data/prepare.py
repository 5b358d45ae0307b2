"""A folder of videos into what training reads fast: HDF5, pictures in folders or zip files; by several processes.

    prepare("videos", "prepared", form="hdf5", resolution=128)

Work is cut into parts (`prepare_plan`), each made by one process (`prepare_parts`), then put together
(`prepare_forms`). A part that is there stays, so a call that was stopped goes on with the same command; several
machines share a folder by giving each a partition.
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tats.data.inventory import as_text, take_stock
from tats.data.left_out import say
from tats.data.pool import each
from tats.data.prepare_forms import put_together
from tats.data.prepare_parts import How, Job, make, read_record
from tats.data.prepare_plan import Found, Part, Plan, claim, find, make_plan, write_json
from tats.data.room import check_disk
from tats.flags import UserError

WORK, DONE = ".parts", "done.json"  # folder in --out, and the list in it of what was made
BYTES_PER_PIXEL = {"hdf5": 3.0, "png": 2.0, "jpg": 0.7}  # what a pixel takes, about; measured on film at quality 95


def prepare(
    data_path: str,
    out: str,
    *,
    form: str,
    resolution: int | None,
    picture: str = "jpg",
    quality: int = 95,
    partition: int | None = None,
    num_partitions: int = 1,
    workers: int | None = None,
    test_share: float = 0.1,
    split_seed: int = 0,
    check_all: bool = False,
) -> list[Path]:
    """Make `form` (hdf5, zip, zips, folders) out of the videos at `data_path`; returns the files, or the folders.

    resolution: the middle square of every picture in this size, as training sees it; None keeps pictures as they are.
    partition: make the parts of this one of `num_partitions` only, then put together what is complete. [] while parts
    of other partitions are missing.

    Raises:
        UserError: no video, none that can be read, an `out` that holds something else, no room on the disk.
    """
    settings = {"form": form, "resolution": resolution, "picture": picture, "quality": quality,
                "num_partitions": num_partitions, "test_share": test_share, "split_seed": split_seed}  # fmt: skip
    found = find(data_path, workers, test_share, split_seed, check_all)
    plan = make_plan(found, settings)
    folder = Path(out).expanduser()
    how = How(form, {each_.split: each_.root for each_ in found}, folder / WORK, folder, resolution, picture, quality)
    claim(how.work, plan)
    if (how.work / DONE).is_file():
        say(f"{folder}: all of it is there already")
        return _done(how)
    stock = take_stock(found, workers)
    mine = [part for part in plan.parts if partition in (None, part.partition)]
    missing = [part for part in mine if not how.record(part).exists()]
    if len(missing) < len(mine):
        say(f"{folder}: {len(mine) - len(missing)} of {len(mine)} parts are there from before")
    _check_room(stock, missing, how)
    _make(missing, how, workers)
    return _finish(plan, how, stock, partition)


def _make(missing: Sequence[Part], how: How, workers: int | None) -> None:
    for part, problem in zip(missing, each([Job(part, how) for part in missing], make, workers, f"{how.form} in {how.out}", few=1)):  # fmt: skip  # noqa: E501
        if problem:
            raise UserError(f"{problem} (part {part}). What is done is kept; the same command goes on")


def _finish(plan: Plan, how: How, stock: dict[str, Any], partition: int | None) -> list[Path]:
    """Put together what is complete, and report."""
    lacking = [part for part in plan.parts if not how.record(part).exists()]
    records = [(part, film) for part in plan.parts if part not in lacking for film in read_record(how.record(part))]
    for part, film in records:
        if film["problem"]:
            stock[part.split]["unreadable"].append(f"{film['source']}: {film['problem']}")
    report(how.out, plan.found, stock)
    if records and not any(film["frames"] for _, film in records):
        raise UserError(f"{how.out}: none of {len(records)} videos could be read: {records[0][1]['problem']}")
    if lacking:
        others = ", ".join(map(str, sorted({part.partition for part in lacking})))
        say(f"{how.out}: partitions {others} are missing here")
        if how.form != "zips":  # each of several zip files stands for itself
            return []
    try:
        made = put_together(plan, how, partition)
    except (UserError, KeyError):
        if (how.work / DONE).is_file():  # another machine was faster, and has cleared its parts away
            return _done(how)
        raise
    if not lacking:
        write_json(how.work / DONE, [str(path.relative_to(how.out)) for path in made])
        _clear(how)
    return made


def _done(how: How) -> list[Path]:
    """What a finished call has made."""
    return [how.out / name for name in json.loads((how.work / DONE).read_text(encoding="utf-8"))]


def _clear(how: How) -> None:
    """Remove what was needed on the way; the records stay, and say what was made."""
    for left in [*how.work.glob("*.bin"), *how.work.glob("*.zip"), *how.work.glob(".*.part")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _check_room(stock: dict[str, Any], missing: Sequence[Part], how: How) -> None:
    """See that the disk has room for what will be made, in parts and once more put together."""
    frames = sum(film.frames for part in missing for film in part.films)
    sizes = [size.split("x") for of in stock.values() for size in of["sizes"]]
    largest = max((int(width) * int(height) for width, height in sizes), default=0)
    pixels = frames * (how.resolution**2 if how.resolution else largest)
    per_pixel = BYTES_PER_PIXEL["hdf5" if how.form == "hdf5" else how.picture]
    check_disk(how.out, pixels * per_pixel * (1 if how.form == "folders" else 2), f"{frames:,} frames")


def report(out: Path, found: Sequence[Found], stock: dict[str, Any]) -> str:
    """Write `report.json` and `report.txt`, name unreadable files, and return the text."""
    text = as_text(stock)
    write_json(out / "report.json", {"made": time.strftime("%Y-%m-%d %H:%M:%S"), "splits": stock})
    (out / "report.txt").write_text(text + "\n", encoding="utf-8")
    for split, of in stock.items():
        if of["unreadable"]:
            total = len(next(each_ for each_ in found if each_.split == split).entries)
            say(f"{split}: {len(of['unreadable'])} of {total} files could not be read and are left out; {out / 'report.txt'} names them")  # fmt: skip  # noqa: E501
    return text
