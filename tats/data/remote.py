"""Files at an address (`s3://bucket/codes`, `https://...`, `memory://...`): brought once, and kept on this machine.

Any address that fsspec knows will do; some need a package of their own (s3: s3fs, gs: gcsfs). A file gets its name in
the cache when it is complete and its checksum is the expected one, so whoever finds it there can use it. Several
processes share the cache: one brings a file, the others wait for it.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.code_index import INDEX, read_index, sha256_of
from tats.data.left_out import say
from tats.data.room import check_disk
from tats.flags import UserError

PIECE = 1 << 20  # bytes that travel at once
TRIES, PAUSE = 3, 1.0  # how often a file is asked for, and seconds before it is asked for again
FAILED = (OSError, ValueError, RuntimeError, KeyError)  # what file systems of fsspec raise


@dataclass(frozen=True)
class Wanted:
    """A file below an address, its bytes (None: not known) and its SHA-256."""

    name: str
    size: int | None
    sha256: str


def is_address(path: str | None) -> bool:
    """Whether a path names a file system that is not this machine's, `protocol://...`."""
    return path is not None and "://" in path


def cache_folder(address: str, cache: str | None) -> Path:
    """Where files of an address are kept: below `cache`, else $XDG_CACHE_HOME/tats/remote or ~/.cache/tats/remote."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tats" / "remote"
    root = Path(cache).expanduser() if cache else base
    return root / hashlib.sha256(address.encode()).hexdigest()[:24]


def read_bytes(address: str) -> bytes:
    """A small file, whole.

    Raises:
        UserError: it cannot be read; the reason is named.
    """
    with _told(address), _opened(address) as file:
        return file.read()


def fetch(address: str, wanted: Sequence[Wanted], folder: Path) -> None:
    """Bring those of the files below `address` that are not in `folder`; all are there when this returns.

    Raises:
        UserError: a file cannot be read, or is not what its checksum says; or the disk has no room for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        missing = [each for each in wanted if not (folder / each.name).is_file()]
        if not missing:
            return
        check_disk(folder, sum(each.size or 0 for each in missing), f"{len(missing)} files of {address}", "--cache_dir")
        from tqdm import tqdm

        for each in tqdm(missing, desc=f"fetching {address}", unit=" files"):
            _bring(f"{address.rstrip('/')}/{each.name}", each, folder / each.name)


def fetch_codes(address: str, split: str, cache: str | None) -> Path:
    """The code shards of a split below an address, in a folder of this machine.

    The index is read anew each time, and shards lie below its checksum: codes that were replaced are other files. What
    has been damaged in the cache is fetched again.

    Raises:
        UserError: see `fetch`; or there is no index, or a damaged one.
    """
    place = f"{address.rstrip('/')}/{split}"
    content = read_bytes(f"{place}/{INDEX}")
    folder = cache_folder(place, cache) / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{INDEX}.{os.getpid()}.part"
    partial.write_bytes(content)
    os.replace(partial, folder / INDEX)
    index = read_index(folder)
    frame = int(np.prod(index.latent_shape[1:])) * index.dtype.itemsize
    lengths, wanted, first = index.lengths, [], 0
    for number, shard in enumerate(index.shards):
        end = first + shard["clips"]
        frames = sum(lengths[first:end]) if lengths else shard["clips"] * index.latent_shape[0]
        wanted.append(Wanted(shard["file"], frames * frame, shard["sha256"]))
        for key, facts in index.beside.items():
            sums = facts.get("sha256")
            if isinstance(sums, list) and number < len(sums):  # a list that is too short is refused by its reader
                wanted.append(Wanted(f"{key}_{number:05d}.bin", None, str(sums[number])))
        first = end
    for each in wanted:
        path = folder / each.name
        if path.is_file() and sha256_of(path) != each.sha256:
            say(f"{path} is damaged: it is fetched again")
            path.unlink(missing_ok=True)
    fetch(place, wanted, folder)
    return folder


def _bring(address: str, wanted: Wanted, path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _told(address):
            digest = _copy(address, partial)
        if digest != wanted.sha256:
            raise UserError(f"{address} is not the file its index describes (SHA-256 {digest[:12]} instead of {wanted.sha256[:12]}): put the codes there again")  # fmt: skip  # noqa: E501
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _copy(address: str, partial: Path) -> str:
    """Bytes of an address into a file; returns their SHA-256. A line that breaks is tried again, from the start."""
    for attempt in range(TRIES):
        digest = hashlib.sha256()
        try:
            with _opened(address) as source, partial.open("wb") as file:
                while piece := source.read(PIECE):
                    file.write(piece)
                    digest.update(piece)
                file.flush()
                os.fsync(file.fileno())
            return digest.hexdigest()
        except FileNotFoundError:
            raise
        except OSError:
            if attempt == TRIES - 1:
                raise
            time.sleep(PAUSE * 2**attempt)
    raise OSError(None, "no try is left")


def _opened(address: str) -> Any:
    import fsspec

    return fsspec.open(address, "rb")


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """What goes wrong at an address, as a `UserError`."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"{address}: {error}. Install that package, or give a local folder") from None
    except FileNotFoundError:
        raise UserError(f"{address}: no such file") from None
    except FAILED as error:
        raise UserError(f"{address} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, over all that use this cache."""
    try:
        import fcntl
    except ImportError:  # Windows: processes may bring a file twice; either is whole
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
