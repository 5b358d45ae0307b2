"""How fast training goes, what it waits for, and how much memory it takes."""

import resource
import sys
import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

GIB = 2**30


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

    A module that says how many codes a clip has (`codes_per_clip`) gets codes per second as well.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._restart()

    def _restart(self) -> None:
        self.clips, self.waited, self.worked = 0, 0.0, 0.0
        self.mark: float | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        now = time.perf_counter()
        self.waited += now - self.mark if self.mark is not None else 0.0
        self.mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now = time.perf_counter()
        self.worked += now - self.mark if self.mark is not None else 0.0
        self.clips += clips_in(batch) * trainer.world_size
        self.mark = now
        if (trainer.fit_loop.epoch_loop.batch_idx + 1) % self.every == 0:
            self._log(trainer)

    def on_validation_start(self, *_: Any) -> None:
        self.mark = None

    def _log(self, trainer: Trainer) -> None:
        took = self.waited + self.worked
        module = trainer.lightning_module
        values = {"speed/clips_per_second": self.clips / took, "speed/waiting_for_data": self.waited / took}
        per_clip = getattr(module, "codes_per_clip", None)
        if isinstance(per_clip, int):
            values["speed/codes_per_second"] = self.clips * per_clip / took
        values["speed/memory_gib"] = peak_memory(module.device)
        for name, value in values.items():
            module.log(name, value, on_step=True, on_epoch=False, batch_size=1)
        mark = self.mark
        self._restart()
        self.mark = mark
