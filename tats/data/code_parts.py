"""Codes that several processes make, each started with the same command by torchrun or srun.

    parts/00012/    a folder of code shards like any other: clips 12 * n to 13 * n of the split
    parts.lock      locked by the process that looks whether all parts are there, and joins them

Nothing is sent between the processes. A part has a fixed size, whatever their number, so that those of a run that was
stopped count for the next one with another number; the last process to be done joins all parts.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tats.data.code_index import INDEX, Index, read_index, write_index
from tats.data.code_writer import CodeWriter, described
from tats.data.left_out import check_unreadable, say
from tats.launched import launched, locked

LEAST, MOST = 64, 256  # items of a part, unless there are less; parts of a split
PROBLEMS = "problems.json"  # of a part: what could not be read, one line each

Encode = Callable[[range, CodeWriter], list[str]]  # writes the codes of some items; lines on those it can't read


def encode_shared(folder: Path, index: Index, count: int, encode: Encode) -> bool:
    """Encode `count` items (windows, or whole videos) into a folder of code shards: alone, or in this process's share
    of the parts. True when the folder is complete.

    Raises:
        UserError: more than 1 in 100 items can't be read.
    """
    own, parts = launched(), folder / "parts"
    if own.size == 1 and not parts.exists():
        writer = CodeWriter(folder, index)
        check_unreadable(str(folder), encode(range(count), writer), count)
        writer.close()
        return True
    each = max(LEAST, -(-count // MOST))
    starts = range(0, count, each)
    places = [(parts / f"{first // each:05d}", range(first, min(first + each, count))) for first in starts]
    for place, items in places[own.rank :: own.size]:
        if not _there(place, index):
            writer = CodeWriter(place, copy.deepcopy(index))
            problems = encode(items, writer)
            writer.close()
            (place / PROBLEMS).write_text(json.dumps(problems), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)  # where this process has had no part
    with locked(folder / "parts.lock"):
        if not (folder / INDEX).exists():
            left = sum(not _there(place, index) for place, _ in places)
            if left:
                say(f"{folder}: {len(places) - left} of {len(places)} parts are there; the last process joins them")
                return False
            _join(folder, index, [place for place, _ in places], count)
    (folder / "parts.lock").unlink(missing_ok=True)
    return True


def _there(place: Path, index: Index) -> bool:
    """Whether a part is complete; one of other codes goes away."""
    if not (place / PROBLEMS).exists():
        return False
    if described(read_index(place)) == described(index):
        return True
    shutil.rmtree(place)
    return False


def _join(folder: Path, index: Index, places: list[Path], count: int) -> None:
    """Make one folder of all parts; can be done again from the start after a stop."""
    problems = [line for place in places for line in json.loads((place / PROBLEMS).read_text(encoding="utf-8"))]
    check_unreadable(str(folder), problems, count)
    for place in places:
        part = read_index(place)
        for number, shard in enumerate(part.shards):
            new = len(index.shards)
            for key in index.beside:
                _link(place / f"{key}_{number:05d}.bin", folder / f"{key}_{new:05d}.bin")
            name = f"codes_{new:05d}.bin"
            _link(place / shard["file"], folder / name)
            index.shards.append({**shard, "file": name})
        for key, facts in index.beside.items():
            facts["sha256"] += part.beside[key]["sha256"]
        for rows in ("video", "start", "label", "lengths"):
            getattr(index, rows).extend(getattr(part, rows))
    if index.lengths:
        index.latent_shape = (min(index.lengths), *index.latent_shape[1:])
    write_index(folder, index)
    shutil.rmtree(folder / "parts")


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system knows no second names."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
