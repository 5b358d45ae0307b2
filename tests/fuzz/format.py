"""What a format of outside files is to the fuzzer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tats.flags import UserError


class NotParsed(Exception):
    """The file is not even of its format: the reader's first look at it refuses it."""


@dataclass(frozen=True)
class Format:
    """One kind of file that comes from outside.

    seed: writes valid files into an empty folder, once. change: breaks one of the files of a copy of that folder.
    first: the first parse of what lies there, by the library that reads the format; any error of it means that the
    rest of the reader was not reached. read: our reader, to the end. modules: whose lines count as covered.
    """

    name: str
    modules: tuple[str, ...]
    seed: Callable[[Path], None]
    change: Callable[[Path, random.Random], None]
    first: Callable[[Path], Any]
    read: Callable[[Path], Any]


def change_one(pattern: str, how: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    """Breaks one of the files of a folder that match `pattern`, with `how`."""

    def change(folder: Path, rng: random.Random) -> None:
        files = sorted(path for path in folder.rglob(pattern) if path.is_file())
        path = rng.choice(files)
        path.write_bytes(how(path.read_bytes(), rng))

    return change


def only(folder: Path, pattern: str = "*") -> Path:
    """The file of a folder that matches."""
    return next(path for path in sorted(folder.rglob(pattern)) if path.is_file())


def drained(pieces: Any, most: int = 400) -> int:
    """Runs through an iterator, at most so far; how many pieces came."""
    count = 0
    for _ in pieces:
        count += 1
        if count >= most:
            break
    return count


__all__ = ["Format", "NotParsed", "UserError", "change_one", "drained", "only"]
