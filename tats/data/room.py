"""Room that hours of work will need: on the disk, in shared memory, and for open files. Looked at before they begin."""

import shutil
from pathlib import Path

from tats.data.left_out import say
from tats.data.pool import processors
from tats.flags import UserError

SHARED = Path("/dev/shm")
AHEAD, TENSORS, PIPES = 2, 8, 8  # per loading process: batches on their way, tensors of a batch, pipes and locks
OPEN = 256  # files that a program has open beside those: data, logs, libraries


def check_disk(folder: str | Path, needed: float, what: str, flag: str = "--out") -> None:
    """Check that `needed` bytes are free where `folder` lies or will lie; `what` names what takes them.

    Raises:
        UserError: they are not, with both numbers.
    """
    place = Path(folder).expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{flag} {folder}: {what} take about {in_words(needed)}, and {in_words(free)} are free on that disk. Make "
            f"room, or name a folder on another disk"
        )


def check_workers(workers: int, batch: float) -> None:
    """Check that `workers` loading processes have what they need, for batches of `batch` bytes.

    Raises:
        UserError: too little shared memory, or too few open files allowed.
    """
    workers = min(workers, processors())
    check_shared(batch * (AHEAD * workers + 1), workers)
    if workers:
        check_handles(OPEN + workers * (AHEAD * TENSORS + PIPES), f"--num_workers {workers}")


def check_shared(needed: float, workers: int) -> None:
    """Check that batches on their way from `workers` processes, `needed` bytes in all, fit into shared memory.

    Raises:
        UserError: they do not: workers would die with a bus error in the middle of a run.
    """
    if not workers or not SHARED.is_dir():
        return
    free = shutil.disk_usage(SHARED).free
    if needed > free:
        raise UserError(
            f"--num_workers {workers}: batches on their way take about {in_words(needed)} of shared memory, and "
            f"{SHARED} has {in_words(free)} free. Take fewer workers or a smaller --batch_size, or give it more (in a "
            f"container: --shm-size or --ipc=host); --num_workers 0 needs none"
        )


def check_handles(needed: int, what: str) -> None:
    """Make sure that `needed` files can be open at once; the limit is raised as far as this user may raise it.

    Raises:
        UserError: even that is too little.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
    if most < needed:
        raise UserError(
            f"{what} need about {needed} open files, and this user may have {hard} (ulimit -Hn): raise that limit, or "
            f"take fewer workers"
        )
    say(f"{what}: limit of open files raised from {soft} to {most}")


def in_words(size: float) -> str:
    """Bytes as a person says them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
