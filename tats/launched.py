"""How many processes the launcher of this one has started: torchrun, SLURM's srun, or none."""

import fcntl
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

INTERACTIVE = ("bash", "interactive")  # names of SLURM jobs whose tasks are started by hand


@dataclass(frozen=True)
class Launched:
    """This process among all that one command has started; `local_` are those on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    by: str | None = None  # torchrun, SLURM, or None: started by hand, or by a training run for itself

    @property
    def machines(self) -> int:
        """How many machines take part, each with equally many processes."""
        return max(1, self.size // self.local_size)


def launched(env: Mapping[str, str] | None = None) -> Launched:
    """What the environment says (None: that of this process)."""
    env = os.environ if env is None else env
    if "RANK" in env and "WORLD_SIZE" in env:
        rank, size = int(env["RANK"]), int(env["WORLD_SIZE"])
        return Launched(
            rank, size, int(env.get("LOCAL_RANK", rank)), int(env.get("LOCAL_WORLD_SIZE", size)), "torchrun"
        )
    if "SLURM_NTASKS" in env and "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in INTERACTIVE:
        rank, size = int(env["SLURM_PROCID"]), int(env["SLURM_NTASKS"])
        machines = int(env.get("SLURM_NNODES", "1"))
        return Launched(rank, size, int(env.get("SLURM_LOCALID", rank)), max(1, size // machines), "SLURM")
    return Launched(local_rank=int(env.get("LOCAL_RANK", "0")))


def locked(path: Path) -> TextIO:
    """A file that is locked until it is closed or this process ends, however it ends; waits for others that hold it."""
    file = path.open("a")
    fcntl.lockf(file, fcntl.LOCK_EX)
    return file


def first() -> bool:
    """True in the one process that speaks for all."""
    own = launched()
    if own.by is not None:
        return own.rank == 0
    return own.local_rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def say(line: str) -> None:
    """One line on standard error, from the first process only."""
    if first():
        print(line, file=sys.stderr, flush=True)
