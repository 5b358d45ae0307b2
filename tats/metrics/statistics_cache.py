"""Statistics of real clips, kept on disk: they are the same for every model that is judged against them.

A key is everything they depend on, as plain values: the data and its fingerprint, which clips and how they are cut and
resized, the network's description, seeds. Files lie in the folder `statistics` of the cache for fetched files
(`weights.cache()`), named by the key's checksum; the key itself lies inside, so that no two can be confused.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tats import weights
from tats.arrays import ArrayError
from tats.metrics.processes import ALONE, World
from tats.metrics.statistics import Statistics

VERSION = 1  # of the way statistics are computed; another one makes them anew
_BROKEN = (ArrayError, ValueError, KeyError, TypeError, RecursionError)


def canonical(key: Mapping[str, Any]) -> str:
    """The key as text: equal for equal keys, in whatever order they were written.

    Raises:
        TypeError: a value is not plain (numbers, text, lists, dicts, None).
    """
    return json.dumps({"version": VERSION, **key}, sort_keys=True, allow_nan=False)


def file_of(key: Mapping[str, Any], folder: str | Path | None = None) -> Path:
    """Where the statistics of this key lie, or would."""
    name = hashlib.sha256(canonical(key).encode()).hexdigest()[:32]
    return Path(folder or weights.cache() / "statistics") / f"{name}.npz"


def cached(
    key: Mapping[str, Any],
    make: Callable[[], Statistics],
    *,
    folder: str | Path | None = None,
    replace: bool = False,
    world: World = ALONE,
) -> Statistics:
    """The statistics of this key from the disk; made, and stored, where there are none.

    Args:
        make: computes them; in every process of `world`, with the same result in each.
        folder: instead of the usual one. replace: make them anew although they are there (`--replace_cache`).

    A file that is damaged, or that holds another key, is said and made anew. One process writes; all read, or all
    compute, so that none computes alone.
    """
    path = file_of(key, folder)
    found = None if replace else _read(path, key)
    if world.size > 1 and int(world.sum(torch.tensor([int(found is not None)]))) < world.size:
        found = None  # some process has no such file (another machine, another disk): all make them
    if found is not None:
        return found
    made = make()
    failure = None
    if world.rank == 0:
        made.network = {**made.network, "key": json.loads(canonical(key))}
        try:
            made.save(path)
        except OSError as error:
            failure = f"statistics can't be stored at {path}: {error}; choose another folder with $XDG_CACHE_HOME"
        made.network = {name: value for name, value in made.network.items() if name != "key"}
    world.agree(failure)
    return made


def _read(path: Path, key: Mapping[str, Any]) -> Statistics | None:
    """What lies at `path`, if it can be read and belongs to this key."""
    if not path.is_file():
        return None
    try:
        found = Statistics.load(path)
    except _BROKEN as error:
        print(f"{path} is damaged ({error}): its statistics are made anew", file=sys.stderr)
        return None
    if found.network.pop("key", None) != json.loads(canonical(key)):
        print(f"{path} belongs to something else: its statistics are made anew", file=sys.stderr)
        return None
    return found
