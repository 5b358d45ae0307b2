"""Steps, batches and losses of a training run, in words that all of its watchers share, and its progress bar."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from tats.metrics.processes import current


def updates_per_step(module: LightningModule) -> int:
    """How often Lightning counts one step: once for each optimizer of a module that steps its own."""
    return int(getattr(module, "updates_per_step", 1 if module.automatic_optimization else 2))


def step_of(trainer: Trainer) -> int:
    """Steps done, each with one update of every optimizer."""
    return trainer.global_step // updates_per_step(trainer.lightning_module)


def batches_per_step(module: LightningModule) -> int:
    """How many batches make one step: `module.batches_per_step` where a module accumulates by itself."""
    return int(getattr(module, "batches_per_step", module.trainer.accumulate_grad_batches))


def complete(trainer: Trainer) -> bool:
    """True when no gradients wait for further batches."""
    module = trainer.lightning_module
    if module.automatic_optimization:
        return not trainer.fit_loop.epoch_loop._should_accumulate()
    return bool(getattr(module, "step_complete", True))


def over_processes(trainer: Trainer, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scalars as they go into the log: their means over all processes in steps that are logged, else as they are."""
    here = {name: value.detach() for name, value in values.items()}
    if trainer.world_size == 1 or not trainer._logger_connector.should_update_logs:
        return here
    means = current().sum(torch.stack([value.float().reshape(()) for value in here.values()])) / trainer.world_size
    return dict(zip(here, means.unbind()))


def first_loss(outputs: Any) -> torch.Tensor | None:
    """The loss in what `training_step` returned: a tensor, or the entry `loss` of a dict."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return loss.detach() if isinstance(loss, torch.Tensor) and loss.numel() == 1 else None


class Progress(ProgressBar):
    """One line over the whole run: steps, time gone and left, speed, losses. In a log file: a line twice a minute."""

    def __init__(self, refresh_rate: int, position: int = 0) -> None:
        super().__init__()
        self.refresh_rate, self.position = refresh_rate, position
        self.bar: tqdm | None = None

    def disable(self) -> None:
        self.refresh_rate = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.bar is not None:
            return
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        seconds = 0.5 if sys.stderr.isatty() else 30
        self.bar = tqdm(
            total=self._total(trainer),
            initial=done,
            unit="batch",
            position=self.position,
            disable=not self.refresh_rate,
            dynamic_ncols=True,
            mininterval=seconds,
            file=sys.stderr,
        )

    @staticmethod
    def _total(trainer: Trainer) -> int | None:
        per_epoch = trainer.num_training_batches
        limits = []
        if trainer.max_steps > 0:
            steps = trainer.max_steps // updates_per_step(trainer.lightning_module)
            limits.append(steps * batches_per_step(trainer.lightning_module))
        if trainer.max_epochs and trainer.max_epochs > 0 and math.isfinite(per_epoch):
            limits.append(trainer.max_epochs * int(per_epoch))
        return min(limits) if limits else None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self.bar is None or not self.refresh_rate or (done % self.refresh_rate and done != self.bar.total):
            return
        if time.time() - self.bar.last_print_t >= self.bar.mininterval or done == self.bar.total:
            self.bar.set_postfix(self._shown(trainer, outputs), refresh=False)
        self.bar.update(done - self.bar.n)

    @staticmethod
    def _shown(trainer: Trainer, outputs: Any) -> dict[str, Any]:
        loss = first_loss(outputs)
        values = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        if not values and loss is not None:
            values = {"loss": float(loss)}
        return {"epoch": trainer.current_epoch, **{name: f"{value:.4g}" for name, value in values.items()}}

    def on_train_end(self, *_: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def print(self, *args: Any, **kwargs: Any) -> None:
        tqdm.write(" ".join(map(str, args)), file=sys.stderr)
