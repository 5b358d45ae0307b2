"""Checkpoints of a training run: which are written when, which stay, and how none of them is ever lost."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from tats import whole_files
from tats.callbacks import complete, step_of
from tats.flags import UserError
from tats.launched import say
from tats.logs import position
from tats.resume import Place
from tats.run_folder import Run, read_progress
from tats.trainer_config import TrainerConfig

RETRY = 1  # minutes until a checkpoint is tried again that could not be written


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are either whole or absent, with their checksums. What can't be written is kept in `failed`:
    raising it in one process would leave the others waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        self.failed = None
        try:
            whole_files.write_whole(Path(path), lambda sink: torch.save(checkpoint, cast(IO[bytes], sink)))
        except OSError as error:
            self.failed = error


class Checkpoints(Checkpoint):
    """Writes `last.ckpt`, the best by a test value, and one at every `every`-th step, all between two steps, when
    everything of the steps before is done, logged and tested.

    `monitor` is the test value (smaller is better); `every` are intervals in steps, whose files carry the training
    value `shown`. Of the files that `last.ckpt` takes the place of, the newest stay as `last-step=N.ckpt`: --keep_last
    files with `last.ckpt`; of the best --keep_best, and of those at fixed steps --keep_steps. One file has many names
    where it serves many ends. `guard` may raise before anything is written. `agree` turns a number of this process
    into the largest of all.
    """

    def __init__(
        self,
        run: Run,
        config: TrainerConfig,
        monitor: str,
        shown: str,
        every: tuple[int, ...],
        guard: Callable[[Trainer], None],
        agree: Callable[[int], int],
    ) -> None:
        self.run, self.config, self.folder = run, config, run.checkpoints
        self.monitor, self.shown, self.every = monitor, shown, every
        self.guard, self.agree = guard, agree
        self.files = WholeFiles()
        self.best: list[tuple[float, str]] = []  # value and file name, best first
        self.due = False  # `last.ckpt` is to be written when this step is over
        self.names: list[str] = []  # what else that file is to be called
        self.beaten: list[str] = []  # files that it makes superfluous
        self.place: Place | None = None  # where the run stands once this step is over
        self.whole = False  # no gradients wait for further batches
        self.untested = False  # in the middle of tests, which begin anew when the run goes on
        self.log_before: dict[str, Any] | None = None  # where the log stood when the present tests began
        self.saved_at = self.stored_at = -1  # step of the latest save, and of `last.ckpt`
        self.rows: int | None = None  # number of the next row of the log, after going on
        self.clock = time.monotonic()

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "last.ckpt"

    # ---- what a checkpoint holds of this

    def state_dict(self) -> dict[str, Any]:
        place = None if self.place is None else asdict(self.place)
        best = [list(each) for each in self.best]
        return {"best": best, "names": list(self.names), "beaten": list(self.beaten), "place": place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        names = state_dict.get("names", [])
        if self.run.resume is not None and self.run.resume.parent == self.folder:
            self.names, self.beaten = names, state_dict.get("beaten", [])
        place = state_dict.get("place")
        self.place = None if place is None else Place(**place)
        self.best = [
            (value, name) for value, name in state_dict["best"] if name in self.names or (self.folder / name).exists()
        ]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.place is None:
            raise ValueError("a checkpoint can be written once a step is done, not before")
        checkpoint["step"] = step_of(trainer)  # Lightning's own count has every update of every optimizer
        self.place.write(checkpoint, self.untested)
        if trainer.is_global_zero:
            before = self.log_before if self.untested else None  # what tests have shown is shown again
            checkpoint["log"] = before or position(self.run.folder, trainer.loggers)
        else:
            checkpoint["log"] = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.rows = checkpoint.get("rows")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish what a run was doing that was killed in the middle of writing."""
        if trainer.is_global_zero and self.folder.is_dir():
            whole_files.settle(self.folder, ".ckpt")
            if self.run.resume is not None:
                self._name(self.run.resume)
            self.stored_at = read_step(self.last)
        self.names, self.beaten = [], []
        self.saved_at = self.run.step if self.run.resume is not None else -1

    # ---- when one is written

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.rows is not None:  # Lightning has counted the step again where tests are due
            trainer.fit_loop.epoch_loop._batches_that_stepped, self.rows = self.rows, None
        if self.due or self.names:
            self.save(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.whole = complete(trainer)
        if not self.whole:
            return
        self.place = Place.after_batch(trainer)
        step = step_of(trainer)
        for interval in self.every:
            if step and step % interval == 0 and step != self.saved_at:
                mark = "" if interval == min(self.every) else f"-{interval}"
                self.want(f"epoch={trainer.current_epoch}-step={step}{mark}{self._value(trainer, self.shown)}.ckpt")
        minutes = self.config.save_every_minutes
        if minutes is not None and self.agree(int(time.monotonic() - self.clock > minutes * 60)):
            self.due = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            self.log_before = position(self.run.folder, trainer.loggers)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.log_before = None
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.due, most = True, self.config.keep_best
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or not math.isfinite(value) or not most:
            return
        if len(self.best) == most and float(value) >= self.best[-1][0]:
            return
        name = f"best-epoch={trainer.current_epoch}-step={step_of(trainer)}{self._value(trainer, self.monitor)}.ckpt"
        old = [each for each in self.best if each[1] != name]
        self.best = sorted([*old, (float(value), name)])[:most]
        self.want(name, [beaten for _, beaten in old if beaten not in [kept for _, kept in self.best]])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.place is not None and (self.saved_at != step_of(trainer) or self.due or self.names):
            self.save(trainer, must=True)

    def want(self, name: str, beaten: list[str] | None = None) -> None:
        """Keep the model as it is after this step under a name, and then forget the files that it beats."""
        self.names.append(name)
        self.beaten += beaten or []

    def stop(self, trainer: Trainer, untested: bool) -> None:
        """Write everything before the run is left; `untested`: in the middle of tests."""
        self.untested = untested
        self.save(trainer, must=True)

    # ---- writing

    def save(self, trainer: Trainer, must: bool = False) -> None:
        """Writes `last.ckpt` and gives it its other names. A step that is not complete, because tests came in the
        middle of its batches, only gets the other names: `last.ckpt` is exact.

        Raises:
            UserError: it can't be written, and `must`; otherwise this is said, and tried again later.
        """
        self.guard(trainer)
        whole = self.whole or must
        target = self.last if whole else self.folder / self.names[0] if self.names else None
        if target is None:
            return
        if whole and trainer.is_global_zero:
            self._keep_last(step_of(trainer))
        trainer.save_checkpoint(target, weights_only=False)
        if self._failed(target, must):
            return
        if trainer.is_global_zero:
            self._name(target)
        self.names, self.beaten, self.due = [], [], self.due and not whole
        self.clock = time.monotonic()
        if whole:
            self.saved_at = self.stored_at = step_of(trainer)

    def _failed(self, path: Path, must: bool) -> bool:
        """Whether the first process could not write a file; all processes hear of it."""
        error = self.files.failed
        if not self.agree(int(error is not None)):
            return False
        why = f": {error.strerror}" if error is not None else ""
        if must:
            raise UserError(f"can't write {path}{why}; earlier checkpoints are untouched")
        say(f"can't write {path}{why}; earlier checkpoints are untouched, training goes on and tries again")
        self.best = [each for each in self.best if each[1] not in self.names]
        self.names, self.beaten, self.due = [], [], False
        wait = max((self.config.save_every_minutes or 0) - RETRY, 0)
        self.clock = time.monotonic() - wait * 60
        return True

    def _keep_last(self, step: int) -> None:
        """Keep what `last.ckpt` is now as `last-step=N.ckpt`, and of these as many as are wanted."""
        if self.config.keep_last > 1 and self.stored_at not in (-1, step) and self.last.exists():
            try:
                whole_files.share(self.last, self.folder / f"last-step={self.stored_at}.ckpt")
            except OSError as error:
                say(f"can't keep the checkpoint of step {self.stored_at}: {error.strerror}")

    def _name(self, path: Path) -> None:
        """Give a new checkpoint its other names, then remove what is not to be kept any longer."""
        try:
            for name in self.names:
                if self.folder / name != path:
                    whole_files.share(path, self.folder / name)
        except OSError as error:
            say(f"can't keep {path} under another name: {error.strerror}")
            return
        for name in self.beaten:
            whole_files.remove(self.folder / name)
        self._thin("last-step=*.ckpt", self.config.keep_last - 1)
        if self.config.keep_steps is not None:
            self._thin("epoch=*.ckpt", self.config.keep_steps)

    def _thin(self, pattern: str, most: int) -> None:
        """Leave the newest files of a pattern."""
        paths = sorted(self.folder.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        for path in paths[most:]:
            whole_files.remove(path)

    @staticmethod
    def _value(trainer: Trainer, key: str) -> str:
        value = trainer.callback_metrics.get(key)
        return "" if value is None else f"-{key.replace('/', '_')}={float(value):.4f}"


def read_step(path: Path) -> int:
    """The step of a checkpoint, -1 where there is none that can be read."""
    if not path.exists():
        return -1
    try:
        return read_progress(path).step
    except UserError:
        return -1
