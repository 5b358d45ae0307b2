"""Files that are whole or absent at any moment: written under another name, synced, renamed, with a checksum.

`last.ckpt` has its SHA-256 in `last.ckpt.sha256`, as `sha256sum --check` reads it. A file takes its name before its
checksum does; a program that ends in between leaves the new checksum as `last.ckpt.sha256.partial`, which counts as
well until `settle` has put it in its place.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 20  # bytes that are read at once


class Sink:
    """A file to write to that counts a checksum. It takes anything after a failure, which is kept as `error`: what
    writes through C++ code could not pass an exception on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.error = file, hashlib.sha256(), None

    error: OSError | None

    def write(self, data: Any) -> int:
        """Append bytes; returns their number."""
        if self.error is None:
            try:
                self.file.write(data)
                self.digest.update(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is flushed and synced once it is whole."""


def beside(path: Path, ending: str = ".sha256") -> Path:
    """The file that belongs to another one: its checksum, or with `.partial` what is not whole yet."""
    return path.with_name(path.name + ending)


def write_whole(path: Path, write: Callable[[Sink], None]) -> None:
    """Put what `write` writes in place of `path`, with its checksum beside it.

    Raises:
        OSError: it can't be written; what was there before is untouched, and nothing half written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = beside(path, ".partial")
    try:
        with partial.open("wb") as file:
            sink = Sink(file)
            write(sink)
            if sink.error is not None:
                raise sink.error
            file.flush()
            os.fsync(file.fileno())
        _place(partial, path, sink.digest.hexdigest())
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def share(source: Path, target: Path) -> None:
    """`target` becomes a second name of the file `source`, or a copy where the file system knows no second names.

    Raises:
        OSError: it can't be written; what was there before is untouched.
    """
    if target.exists() and os.path.samefile(source, target) and _sums(target):
        return
    partial = beside(target, ".partial")
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy2(source, partial)
            _sync(partial)
        sums = _sums(source)
        _place(partial, target, sums[0] if sums else checksum(source))
    finally:  # renaming a second name of the same file leaves both
        partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file and its checksum, if they are there."""
    path.unlink(missing_ok=True)
    beside(path).unlink(missing_ok=True)


def damage(path: Path) -> str | None:
    """What is wrong with a file that is not what its checksum says; None when all is well, or when it has none."""
    sums = _sums(path)
    if not sums or checksum(path) in sums:
        return None
    return f"its content is not what {beside(path).name} says"


def settle(folder: Path, ending: str) -> None:
    """Tidy up what a program left that was ended while it wrote: half files go, checksums take their places."""
    for partial in folder.glob(f"*{ending}.partial"):
        partial.unlink(missing_ok=True)
    for waiting in folder.glob(f"*{ending}.sha256.partial"):
        path = waiting.with_name(waiting.name.removesuffix(".sha256.partial"))
        if path.exists() and checksum(path) == _first_word(waiting):
            os.replace(waiting, beside(path))
        else:
            waiting.unlink()


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last, whatever happens to the machine."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _place(partial: Path, path: Path, digest: str) -> None:
    """Give a whole file its name, and its checksum the name that belongs to it."""
    waiting = beside(path, ".sha256.partial")
    try:
        waiting.write_text(f"{digest}  {path.name}\n", encoding="ascii")
        _sync(waiting)
        os.replace(partial, path)
        os.replace(waiting, beside(path))
    except OSError:
        waiting.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sums(path: Path) -> list[str]:
    """The checksums that are noted for a file: a new one that waits for its place, then the one beside it."""
    notes = (beside(path, ".sha256.partial"), beside(path))
    return [word for note in notes if (word := _first_word(note))]


def _first_word(path: Path) -> str:
    words = path.read_text(encoding="ascii", errors="replace").split() if path.exists() else []
    return words[0].lower() if words else ""
