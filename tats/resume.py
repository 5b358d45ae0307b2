"""Where a training run stands between two steps, and random numbers that do not depend on how it came there.

Lightning stores its counters in the middle of whatever it is doing, and guesses when it goes on what that was. Here
they are always stored as they are between two steps: everything that belongs to the steps before is done, logged and
tested (or the tests begin anew), and nothing of the next one has begun.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


@dataclass(frozen=True)
class Place:
    """A run between two steps.

    epoch: epochs that are over. batches: of the present epoch that are done; not more than `total`, of all epochs.
    last: whether they are all of this epoch. rows: number that the next row of the log gets from Lightning. loaders:
    what the loaders say of their place.
    """

    epoch: int
    batches: int
    total: int
    last: bool
    rows: int
    loaders: list[Any]

    @classmethod
    def after_batch(cls, trainer: Trainer) -> "Place":
        """The place that a run is at once everything that follows the present batch is done."""
        loop = trainer.fit_loop.epoch_loop
        loader = trainer.fit_loop._combined_loader
        return cls(
            epoch=trainer.current_epoch,
            batches=loop.batch_progress.current.ready,
            total=loop.batch_progress.total.ready,
            last=loop._num_ready_batches_reached(),
            rows=loop._batches_that_stepped + 1,
            loaders=loader._state_dicts() if loader is not None else [],
        )

    def write(self, checkpoint: dict[str, Any], untested: bool) -> None:
        """Put this place into a checkpoint. `untested`: the tests that are due here have not been finished."""
        over = self.last and not untested  # the next epoch is to begin
        fit = checkpoint["loops"]["fit_loop"]
        fit["state_dict"] = {"combined_loader": self.loaders} if self.loaders else {}
        begun = self.epoch + 1
        for counts in fit["epoch_progress"].values():
            counts.update(ready=begun, started=begun, processed=begun - (not over), completed=begun - (not over))
        progress = fit["epoch_loop.batch_progress"]
        progress["is_last_batch"] = self.last and untested
        for name, done in (("total", self.total), ("current", 0 if over else self.batches)):
            progress[name].update(ready=done, started=done, processed=done, completed=done)
        fit["epoch_loop.state_dict"]["_batches_that_stepped"] = self.rows - untested
        tests = fit["epoch_loop.val_loop.batch_progress"]
        tests["is_last_batch"] = False
        for name in ("total", "current"):  # one test begun and not finished: that is how Lightning tests again
            tests[name].update(ready=int(untested), started=int(untested), processed=0, completed=0)
        steps = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for counts in (fit["epoch_loop.scheduler_progress"], steps["step"], steps["zero_grad"]) if over else ():
            counts["current"].update(dict.fromkeys(counts["current"], 0))
        checkpoint["epoch"] = begun if over else self.epoch
        checkpoint["rows"] = self.rows


def tests_are_due(checkpoint: dict[str, Any]) -> bool:
    """Whether a run was left in the middle of tests, which begin anew when it goes on."""
    tests = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
    return bool(tests["ready"] > tests["processed"])


class Randomness(Callback):
    """What a step draws from torch, numpy and Python depends on (seed, number of the batch, process) alone: neither on
    what was drawn before, nor on tests in between, nor on whether the run was stopped before it."""

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.epoch = int(checkpoint["epoch"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("epoch", self.epoch, trainer)  # loaders may draw their order when they are set up

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("epoch", trainer.current_epoch, trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._begin("batch", trainer.fit_loop.epoch_loop.total_batch_idx, trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("test", trainer.fit_loop.epoch_loop.total_batch_idx, trainer)

    def _begin(self, what: str, number: int, trainer: Trainer) -> None:
        key = repr((self.seed, what, number, trainer.global_rank)).encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
