"""The way out by signal: everything is saved at the next step, in all processes at the same one, and a code tells the
scheduler to start the run again.

Ctrl-C ends with 130. SIGTERM, which schedulers send before they take a machine away, and SIGUSR1, which SLURM sends
where a job asks for it (`--signal=USR1@120`), end with 99: Grid Engine and OAR start a job again that ends so, and
others can be told to (SLURM: `RequeueExit`; LSF: `REQUEUE_EXIT_VALUES`; Kubernetes starts again whatever fails). After
SIGUSR1 in a SLURM job the first process also asks for `scontrol requeue` itself.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from tats.callbacks import complete
from tats.launched import launched, say
from tats.resume import tests_are_due

REQUEUE = 99
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal asked to stop, and everything is saved. Not an Exception, so that nothing swallows it on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Agreement:
    """Makes all processes of a run decide alike: what one of them knows, all of them learn at the same place."""

    def __init__(self) -> None:
        self.group: dist.ProcessGroup | None = None

    def begin(self) -> None:
        """Call in all processes, once they have found each other."""
        if processes() > 1 and dist.get_backend() != "gloo":  # numbers on the CPU do not wait for a GPU
            self.group = dist.new_group(backend="gloo")

    def __call__(self, number: int) -> int:
        """The largest of the numbers that the processes bring to this call; all of them must come to it."""
        if processes() == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)


def processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class StopOnSignal(Callback):
    """Ends training at the next step after a signal, when everything is consistent; a second Ctrl-C at once.

    Tests that a signal comes into are left, and begin anew when the run goes on. `save` is called with the trainer and
    whether that is so.
    """

    def __init__(self, save: Callable[[Trainer, bool], None], agree: Agreement) -> None:
        self.save, self.agree = save, agree
        self.asked: int | None = None  # the signal that this process got
        self.agreed: int | None = None  # the signal that all processes stop for
        self.between_batches = False
        self.tests_due = False  # the run goes on where it was left, in the middle of tests
        self.limit: int | None = None  # the number of updates that Lightning stops at, while it is put off
        self.old: dict[int, Any] = {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.tests_due = tests_are_due(checkpoint)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.limit is not None:
            trainer.fit_loop.epoch_loop.max_steps, self.limit = self.limit, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.tests_due and trainer.max_steps > 0:  # at the last step Lightning would not begin, not even to test
            self.limit, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, trainer.max_steps + 1
        self.agree.begin()
        # Lightning's own handler talks to the other processes at once, wherever they are: two that get a signal in
        # different batches would wait for each other for ever
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self.old[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # launchers often send SIGTERM twice
        self.asked = number
        more = "; once more stops at once, without saving" if number == signal.SIGINT else ""
        print(f"\nstopping after this step{more}", file=sys.stderr, flush=True)

    def restore(self) -> None:
        """Gives the signals back to whoever had them before."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.old = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.between_batches = False
        if self.agreed is not None:
            self._stop(trainer, untested=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.between_batches = True
        self._ask(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.agreed is not None and not trainer.sanity_checking:
            self._stop(trainer, untested=True)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._ask(trainer)
            if self.agreed is not None:
                self._stop(trainer, untested=True)

    def _ask(self, trainer: Trainer) -> None:
        if self.agreed is None and complete(trainer):
            self.agreed = self.agree(self.asked or 0) or None

    def _stop(self, trainer: Trainer, untested: bool) -> None:
        self.save(trainer, untested)
        raise Stopped(self.agreed or signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A loader whose workers the signal ended fails while the next batch is awaited: nothing is half done then."""
        alone = processes() == 1  # other processes may be anywhere, and saving needs them all
        if self.asked is not None and self.between_batches and alone and isinstance(exception, RuntimeError):
            self.save(trainer, False)


def exit_code(number: int, trainer: Trainer) -> int:
    """What this process ends with after a signal. A process that Lightning started for the first one ends with 0: with
    any other code the first one is killed before it has left."""
    if trainer.local_rank > 0 and launched().by is None:
        return 0
    return 130 if number == signal.SIGINT else REQUEUE


def requeue(number: int, env: Mapping[str, str] = os.environ) -> None:
    """After SLURM's signal: asks SLURM to start the job again, and says what came of it. For one process to call."""
    job = env.get("SLURM_JOB_ID")
    if number != signal.SIGUSR1 or job is None:
        return
    if "SLURM_ARRAY_JOB_ID" in env and "SLURM_ARRAY_TASK_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"scontrol requeue {job}: {error}")
        return
    said = " ".join((done.stdout + done.stderr).split())
    say(f"scontrol requeue {job}: {said or ('done' if done.returncode == 0 else f'ended with {done.returncode}')}")
