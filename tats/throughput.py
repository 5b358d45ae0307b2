"""How fast training goes, what it waits for, and how much memory it takes."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

GIB = 2**30
FETCH = ".train_dataloader_next"  # how the name ends under which Lightning times the wait for a batch


def clips_in(batch: Any) -> int:
    """Clips of a batch: the first size of its first tensor."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    values = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else []
    return next((clips_in(value) for value in values if clips_in(value)), 0)


def peak_memory(device: torch.device) -> float:
    """GiB that this process has taken at most so far: of the GPU where it works on one, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB


class Throughput(Callback):
    """Logs clips per second, which share of the time training waits for data, and the peak of memory in GiB; the time
    of tests is left out. Clips are those of all processes, the other values are the first one's.

    Waiting is the time until the loader hands over a batch, and nothing else: writing a checkpoint or a log, or what
    other watchers do, is work. A module that says how many codes a clip has (`codes_per_clip`) gets codes per second
    as well. clock: seconds, from any moment on.
    """

    def __init__(self, every: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.every, self.clock = every, clock
        self.clips, self.waited, self.spent = 0, 0.0, 0.0
        self.mark: float | None = None  # until when time is counted in `spent`; None while it is not
        self.asked: float | None = None  # when the batch was asked for that has not come

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen to what Lightning tells its profiler of every wait for a batch."""
        profiler: Any = vars(trainer)["profiler"]  # no attribute by its type
        start, stop = profiler.start, profiler.stop

        def started(action: str) -> None:
            start(action)
            if action.endswith(FETCH):
                self.asked = self.clock()

        def stopped(action: str) -> None:
            if action.endswith(FETCH) and self.asked is not None:
                self.waited += self.clock() - self.asked
                self.asked = None
            stop(action)

        profiler.start, profiler.stop = started, stopped

    def on_train_start(self, *_: Any) -> None:
        self.mark = self.clock()

    def on_validation_start(self, *_: Any) -> None:
        self._count()
        self.mark = None

    def on_validation_end(self, *_: Any) -> None:
        self.mark = self.clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.clips += clips_in(batch) * trainer.world_size
        if (trainer.fit_loop.epoch_loop.batch_idx + 1) % self.every == 0:
            self._log(trainer)

    def _count(self) -> None:
        """Add the time since the mark."""
        now = self.clock()
        self.spent += now - self.mark if self.mark is not None else 0.0
        self.mark = now

    def _log(self, trainer: Trainer) -> None:
        self._count()
        module = trainer.lightning_module
        values = {
            "speed/clips_per_second": self.clips / self.spent,
            "speed/waiting_for_data": min(self.waited / self.spent, 1.0),
        }
        per_clip = getattr(module, "codes_per_clip", None)
        if isinstance(per_clip, int):
            values["speed/codes_per_second"] = self.clips * per_clip / self.spent
        values["speed/memory_gib"] = peak_memory(module.device)
        for name, value in values.items():
            module.log(name, value, on_step=True, on_epoch=False, batch_size=1)
        self.clips, self.waited, self.spent = 0, 0.0, 0.0
