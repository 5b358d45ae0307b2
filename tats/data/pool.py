"""Many files, several processes: work that is done once per file, with a bar, whatever becomes of a single process."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from tats.flags import UserError

FEW = 64  # below this, starting processes costs more than it saves
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def processors() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that start inside the block multiply matrices with one thread each.

    As many processes as cores with as many threads each spend their time waiting for each other: small products of
    numpy became a thousand times slower on a busy machine. What the user has set stays.
    """
    missing = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, "1"))
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def each(
    jobs: Sequence[Any], work: Callable[[Any], Any], workers: int | None, desc: str, few: int = FEW
) -> Iterator[Any]:
    """What `work(job)` returns, in the order of `jobs`, by `workers` processes (None: one per core).

    `work` is a function of a module (or a `functools.partial` of one) and returns what went wrong instead of raising.
    Up to `few` jobs are done in this process.

    Raises:
        UserError: a process died; the jobs that it may have died of are named.
    """
    from tqdm import tqdm

    workers = min(workers or processors(), len(jobs))
    with tqdm(total=len(jobs), desc=desc, unit=" files", delay=0.5) as bar:
        if workers <= 1 or len(jobs) <= few:
            for job in jobs:
                yield work(job)
                bar.update()
            return
        done = 0
        pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        with one_thread_each(), pool:
            try:
                for result in pool.map(work, jobs):
                    done += 1
                    yield result
                    bar.update()
            except concurrent.futures.process.BrokenProcessPool as error:
                near = ", ".join(str(job) for job in jobs[done : done + 2 * workers])
                raise UserError(
                    f"{desc}: a process died, at one of: {near}. Too little memory, or a file that crashes the "
                    f"decoder: --num_workers 1 goes through them one by one. What is done is kept."
                ) from error
