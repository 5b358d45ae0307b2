"""One sampler's run shared by several processes, each started with the same command by torchrun or srun.

Nothing is sent between them: every process makes the videos of its share, which the seeds decide, and keeps them in the
common folder as they come. Whoever finds all of them there puts them together. So a process that dies takes nothing
with it but what it was making, and the same command, with any number of processes, makes the rest.

    manifest.share_2.lock    locked by the process with number 2 until its share is done, or it is dead
    manifest.lock            locked by the one that looks whether all is there, and puts it together
"""

import json
import sys
from collections.abc import Sequence
from typing import TypeVar

from tats.codes_file import Journal, Video
from tats.launched import launched, locked
from tats.output import Store

T = TypeVar("T")


def share(items: Sequence[T]) -> list[T]:
    """Those of this process: every n-th of n processes."""
    own = launched()
    return list(items[own.rank :: own.size])


def begin(store: Store) -> None:
    """Say that this process works on its share; call `ends_run` when that is done."""
    own = launched()
    if own.size > 1:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.locks.append(locked(store.folder / f"manifest.share_{own.rank}.lock"))


def begun(store: Store, videos: Sequence[Video]) -> tuple[list[Journal], set[int]]:
    """The journals of this process, open, and the videos that are in anybody's.

    A journal belongs to the process whose share its first video is, also when another number of processes began it; to
    the first process when the video is of no share. Those of others may be under way and are not opened.
    """
    shares = {video.index: place % launched().size for place, video in enumerate(videos)}
    mine: list[Journal] = []
    there: set[int] = set()
    for path in store.begun():
        indices = [video.index for video in Journal.head(path).videos]
        there |= set(indices)
        if shares.get(indices[0], 0) == launched().rank:
            mine.append(Journal.open(path))
    return mine, there


def ends_run(store: Store, videos: Sequence[Video]) -> bool:
    """Whether this process is the one that puts everything together; the others say how far they are and are done."""
    own = launched()
    if own.size == 1:
        return True
    release(store)
    store.locks.append(locked(store.folder / "manifest.lock"))
    if ended(store, videos):
        say_own(f"its share is done, and {store.folder} is complete")
        release(store)
        return False
    store.refresh()
    missing = len(store.missing(videos))
    if missing:
        say_own(
            f"its share is done; {len(videos) - missing} of {len(videos)} videos are in {store.folder}. The last "
            "process puts them together; if one has died, the same command makes the rest"
        )
        release(store)
        return False
    for rank in range(own.size):  # those that still write films of theirs
        store.locks.append(locked(store.folder / f"manifest.share_{rank}.lock"))
    return True


def release(store: Store) -> None:
    """Let others go on."""
    while store.locks:
        store.locks.pop().close()


def ended(store: Store, videos: Sequence[Video]) -> bool:
    """Whether another process has put the run together since this one opened the folder."""
    path = store.folder / "manifest.json"
    if not path.exists() or path.stat().st_mtime_ns == store.manifest_at:
        return False
    return len(json.loads(path.read_text(encoding="utf-8"))["videos"]) == len(videos)


def clear(store: Store) -> None:
    """The run is complete: the locks are not needed any more."""
    release(store)
    for path in store.folder.glob("manifest*.lock"):
        path.unlink()


def say_own(line: str) -> None:
    """One line on standard error, of this process alone."""
    own = launched()
    print(f"process {own.rank + 1} of {own.size}: {line}", file=sys.stderr, flush=True)
