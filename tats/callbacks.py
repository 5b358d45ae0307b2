"""What watches a training run: checkpoints, the way out by signal, progress."""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
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


class Checkpoints(Checkpoint):
    """Writes `last.ckpt`, the best by a test value, and one at every `every`-th step, all through the trainer.

    `folder` holds them; `monitor` is the test value (smaller is better) and `keep` how many of the best stay; `every`
    are intervals in steps, whose files stay for good and carry the training value `shown`; `minutes` is the longest
    time between two `last.ckpt`. `guard` may raise before anything is written.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        shown: str,
        every: tuple[int, ...],
        keep: int = 3,
        minutes: float | None = 10.0,
        guard: Callable[[Trainer], None] = lambda trainer: None,
    ) -> None:
        self.folder, self.monitor, self.shown, self.every = folder, monitor, shown, every
        self.keep, self.minutes, self.guard = keep, minutes, guard
        self.best: list[tuple[float, str]] = []  # value and file name, best first
        self.saved_at = -1
        self.clock = time.monotonic()

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "last.ckpt"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["step"] = step_of(trainer)  # Lightning's own count has every update of every optimizer

    def state_dict(self) -> dict[str, Any]:
        return {"best": [list(each) for each in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = [(value, name) for value, name in state_dict["best"] if (self.folder / name).exists()]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not complete(trainer):
            return
        step = step_of(trainer)
        due = [interval for interval in self.every if step and step % interval == 0 and step != self.saved_at]
        for interval in due:
            mark = "" if interval == min(self.every) else f"-{interval}"
            self.save(
                trainer, f"epoch={trainer.current_epoch}-step={step}{mark}{self._value(trainer, self.shown)}.ckpt"
            )
        finished = trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps
        if not due and (finished or self._time_is_up(trainer)):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or not math.isfinite(value):
            self.save(trainer)
            return
        if len(self.best) == self.keep and float(value) >= self.best[-1][0]:
            self.save(trainer)
            return
        name = f"best-epoch={trainer.current_epoch}-step={step_of(trainer)}{self._value(trainer, self.monitor)}.ckpt"
        old = [each for each in self.best if each[1] != name]
        self.best = sorted([*old, (float(value), name)])[: self.keep]
        self.save(trainer, name)
        for _, beaten in [each for each in old if each not in self.best]:
            if trainer.is_global_zero:
                (self.folder / beaten).unlink(missing_ok=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved_at != step_of(trainer):
            self.save(trainer)

    def save(self, trainer: Trainer, name: str | None = None) -> None:
        """Writes `last.ckpt`; with a `name` first a file of that name, whose data `last.ckpt` then shares."""
        self.guard(trainer)
        if name is None:
            trainer.save_checkpoint(self.last, weights_only=False)
        else:
            trainer.save_checkpoint(self.folder / name, weights_only=False)
            if trainer.is_global_zero:
                share(self.folder / name, self.last)
        self.saved_at, self.clock = step_of(trainer), time.monotonic()

    def _time_is_up(self, trainer: Trainer) -> bool:
        if self.minutes is None:
            return False
        up = time.monotonic() - self.clock > self.minutes * 60
        if trainer.world_size == 1:
            return up
        asked = trainer.fit_loop.epoch_loop.batch_idx % 10 == 0  # processes agree at a few batches only
        return asked and bool(trainer.strategy.broadcast(up))

    @staticmethod
    def _value(trainer: Trainer, key: str) -> str:
        value = trainer.callback_metrics.get(key)
        return "" if value is None else f"-{key.replace('/', '_')}={float(value):.4f}"


def share(source: Path, target: Path) -> None:
    """`target` becomes a second name of the file `source`, or a copy where the file system knows no second names."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)


class Stopped(BaseException):
    """A signal asked to stop, and everything is saved. Not an Exception, so that nothing swallows it on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end training after the current batch, when everything is consistent; a second one at once."""

    def __init__(self, save: Callable[[Trainer], None]) -> None:
        self.save = save
        self.asked: int | None = None
        self.between_batches = False
        self.old: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.old[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
        print("\nstopping after this batch; once more stops at once, without saving", file=sys.stderr)

    def restore(self) -> None:
        """Gives the signals back to whoever had them before."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.old = {}

    def on_train_batch_start(self, *_: Any) -> None:
        self.between_batches = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.between_batches = True
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        asked = self.asked is not None
        if trainer.world_size > 1:
            if trainer.fit_loop.epoch_loop.batch_idx % 10:  # processes agree at a few batches only
                return
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            self.save(trainer)
            raise Stopped(self.asked or signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A loader whose workers the signal ended fails while the next batch is awaited: nothing is half done then."""
        if self.asked is not None and self.between_batches and isinstance(exception, RuntimeError):
            self.save(trainer)


class Progress(ProgressBar):
    """One line over the whole run: steps, time gone and left, speed, losses. In a log file: a line twice a minute."""

    def __init__(self, refresh_rate: int, position: int = 0) -> None:
        super().__init__()
        self.refresh_rate, self.position = refresh_rate, position
        self.bar: tqdm | None = None

    def disable(self) -> None:
        self.refresh_rate = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
