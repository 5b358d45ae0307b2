"""Trainer flags -> a Lightning Trainer: run folders, resuming, checkpoints, logs, and the way out by Ctrl-C.

A run is one folder `DIR/version_N` (DIR is --default_root_dir):

    config.yaml              the settings; `--config` starts such a run again
    checkpoints/last.ckpt    everything needed to go on; always the newest
    checkpoints/last-step=*  what it took the place of, should it get damaged
    checkpoints/best-*.ckpt  the best by the test loss
    checkpoints/epoch=*      one at every fixed number of steps
    checkpoints/*.sha256     their checksums
    metrics.csv, events.*    the log, as a table and for TensorBoard

A run that is resumed ends as if it had never stopped: everything that it goes on with is in its checkpoints (weights,
optimizers, averages, schedules, counters, the best so far, what the model itself adds, the place in the data, how far
the log had come), they are written between two steps, and what a step draws depends on the seed and its number alone.
A loader has to say where it is (`state_dict`, `load_state_dict`), or it begins the order of the epoch anew.
"""

import dataclasses
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tats import flags
from tats.callbacks import Progress, step_of, updates_per_step
from tats.checkpoints import Checkpoints, WholeFiles
from tats.effective import Effective
from tats.ema import Ema
from tats.flags import UserError
from tats.launched import first, say
from tats.logs import build_loggers
from tats.not_a_number import NumbersOnly
from tats.resume import Randomness
from tats.run_folder import Run, find_run, only_here
from tats.self_test import before_training
from tats.stopping import Agreement, StopOnSignal, Stopped, exit_code, requeue
from tats.throughput import Throughput
from tats.trainer_config import PRECISIONS, Machine, TrainerConfig, go_on_command, machine
from tats.wandb_log import wandb_loggers

__all__ = ["TRANSFORMER_CADENCE", "VQGAN_CADENCE", "Cadence", "TrainerConfig", "begin", "fit", "processes"]


@dataclasses.dataclass(frozen=True)
class Cadence:
    """When checkpoints are written: best by `monitor`; every so many steps, with the value `shown` in their names."""

    monitor: str
    shown: str
    every: tuple[int, ...]


VQGAN_CADENCE = Cadence("val/recon_loss", "train/recon_loss", (3000, 10000))
TRANSFORMER_CADENCE = Cadence("val/loss", "train/loss", (10000, 50000))


def begin(config: TrainerConfig) -> None:
    """Call before anything random is made, the weights of the model above all: sets every seed, and says what the
    flags became on this machine."""
    for remark in machine(config, torch.cuda.device_count()).remarks:
        say(remark)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its news are said here, in our steps and words
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    seed_everything(config.seed, verbose=False)


def fit(
    module: LightningModule,
    train_loader: Iterable[Any],
    val_loader: Iterable[Any] | None,
    config: TrainerConfig,
    *,
    name: str,
    cadence: Cadence,
    settings: Any = None,
    command: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Trains `module`, made after `begin(config)`, as `config` says, and returns the run's folder.

    `name` is the folder below `runs/` when --default_root_dir is not given. `settings`, the whole config of the script,
    is saved beside the run and must agree when a run is resumed by itself. `training_step` returns its loss. A module
    that steps its optimizers itself says with `updates_per_step` how many (else 2), with `batches_per_step` how many
    batches it accumulates and with `step_complete` that no gradients wait; clipping is then its own business too.
    `command` replaces the line that Ctrl-C prints. `callbacks` watch the run beside those that are always there.

    Raises:
        UserError: flags that contradict each other or the machine, a checkpoint that can't be used, a loss that is NaN.
        SystemExit: 130 after Ctrl-C, 99 after SIGTERM and SIGUSR1; `last.ckpt` is then written and the way to go on
            printed (see `tats.stopping`).
    """
    place = machine(config, torch.cuda.device_count())
    run = find_run(config, name, settings)
    agree = Agreement()
    numbers = NumbersOnly(1 if place.accelerator == "cpu" else 50, None if config.fast_dev_run else run.folder)
    keeper = Checkpoints(run, config, cadence.monitor, cadence.shown, cadence.every, numbers.check, agree)
    keeping = config.enable_checkpointing and not config.fast_dev_run
    stop = StopOnSignal(keeper.stop if keeping else lambda trainer, untested: None, agree)
    effective = Effective(getattr(train_loader, "batch_size", None))
    averaging = [Ema(config.ema_decay)] if config.ema_decay else []
    watchers = [Randomness(config.seed), effective, numbers, *averaging, Throughput(config.log_every_n_steps), stop]
    watchers += [*callbacks, *([keeper] if keeping else [])]
    check_intervals(config, train_loader)
    if config.enable_model_summary and config.weights_summary is not None:
        for line in sizes(module, full=config.weights_summary == "full"):
            say(line)
    if config.overfit_batches:
        train_loader = FirstBatches(train_loader, config.overfit_batches)
    with ExitStack() as held:
        watchers += [] if config.fast_dev_run else [Folder(run, settings, held)]
        trainer = build_trainer(module, config, place, run, watchers, keeper.files)
        held.callback(stop.restore)
        try:
            trainer.fit(module, train_loader, val_loader, ckpt_path=run.resume, weights_only=True)
        except (Stopped, RuntimeError, SystemExit) as error:
            if run.resume is not None and "loading state_dict" in str(error):
                raise UserError(f"{run.resume} is of another model: {' '.join(str(error).split())[:300]}") from None
            number = stop.agreed or stop.asked
            if number is None:
                raise
            raise SystemExit(leave(number, keeper.last if keeping else None, trainer, command)) from None
    if not config.fast_dev_run:
        say(f"trained up to step {step_of(trainer)}: {run.folder}")
    return run.folder


def sizes(module: LightningModule, full: bool = False) -> list[str]:
    """One line: the models of `module`, their weights in millions, how many of them are trained. `full`: a line for
    each of their parts that has weights of its own as well."""
    models = {name: _weights(part) for name, part in module.named_children() if _weights(part)}
    total, trained = sum(models.values()), sum(p.numel() for p in module.parameters() if p.requires_grad)
    share = "all of them trained" if trained == total else f"{trained / 1e6:.2f} million of them trained"
    listed = " + ".join(f"{name} {count / 1e6:.2f}" for name, count in models.items())
    lines = [f"model: {listed} million weights, {share}"]
    if full:
        parts = [(name, list(part.parameters(recurse=False))) for name, part in module.named_modules()]
        lines += [f"  {name}: {sum(p.numel() for p in own):,} weights" for name, own in parts if own]
    return lines


def _weights(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def leave(number: int, last: Path | None, trainer: Trainer, command: str | None) -> int:
    """Says how to go on after a signal; the exit code that belongs to it."""
    if last is not None and last.exists():
        go_on = command or go_on_command([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]], str(last))
        say(f"stopped at step {step_of(trainer)}; everything is in {last}\ngo on with: {go_on}")
    else:
        say("stopped; nothing was saved, because checkpoints are off")
    if trainer.is_global_zero:
        requeue(number)
    return exit_code(number, trainer)


def processes(config: TrainerConfig) -> int:
    """How many training processes the flags ask for on this machine, over all nodes; at least 1."""
    place = machine(config, torch.cuda.device_count())
    per_node = place.per_node or max(1, torch.cuda.device_count() if place.accelerator != "cpu" else 1)
    return per_node * place.nodes


def precision(config: TrainerConfig, place: Machine) -> str:
    """Lightning's word for the number format. Half precision is not for CPUs; bf16 takes its place there."""
    word = PRECISIONS[str(config.precision)]
    if word == "16-mixed" and place.accelerator == "cpu":
        say(f"--precision {config.precision} needs a GPU; on the CPU bf16 takes its place")
        return "bf16-mixed"
    return word


class FirstBatches:
    """The first batches of a loader, a number (int) or a part (float) of them, again and again in the same order."""

    def __init__(self, loader: Any, amount: int | float) -> None:
        total = len(loader) if hasattr(loader, "__len__") else None
        if isinstance(amount, float):
            if total is None:
                raise UserError(
                    f"--overfit_batches {amount}: the length of the data is unknown; give a number of batches"
                )
            amount = max(1, int(total * amount))
        self.batches = list(itertools.islice(loader, amount))
        self.done = 0  # of the present round
        self.first = 0  # where the next round begins

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        first, self.first = self.first, 0
        for number in range(first, len(self.batches)):
            self.done = number + 1
            yield self.batches[number]

    def state_dict(self) -> dict[str, int]:
        """How many batches of this round are done."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind them."""
        self.first = state["done"] % len(self.batches)


def strategy_for(module: LightningModule, config: TrainerConfig, place: Machine, watchers: list[Callback]) -> Any:
    """How the processes share the work, as Lightning's Trainer takes it."""
    if place.strategy == "fsdp":
        from tats.sharded import strategy_of

        return strategy_of(module, watchers)
    players = 1 if module.automatic_optimization else updates_per_step(module)
    if players > 1 and place.strategy in ("auto", "ddp") and processes(config) > 1:
        return "ddp_find_unused_parameters_true"  # each player leaves the other's parameters without gradients
    return place.strategy


def loggers(config: TrainerConfig, run: Run) -> list[Logger]:
    """What the log is written to: the run's folder, and Weights & Biases where --wandb names a project."""
    own = build_loggers(run.folder, run.log, config.flush_logs_every_n_steps)
    return [*own, *wandb_loggers(None if config.fast_dev_run else config.wandb, run.folder)]


def build_trainer(
    module: LightningModule,
    config: TrainerConfig,
    place: Machine,
    run: Run,
    watchers: list[Callback],
    files: WholeFiles,
) -> Trainer:
    """The Trainer. Lightning counts every update of every optimizer, so steps are multiplied here and nowhere else."""
    updates = updates_per_step(module)
    own = not module.automatic_optimization  # then Lightning refuses to clip and to accumulate
    if config.refresh_rate:
        watchers = [*watchers, Progress(config.refresh_rate, config.process_position)]
    every_epoch = 1 if config.reload_dataloaders_every_epoch else config.reload_dataloaders_every_n_epochs
    number_format = precision(config, place)
    before_training(module, number_format, place.accelerator)
    try:
        return Trainer(
            accelerator=place.accelerator,
            devices=place.devices,
            strategy=strategy_for(module, config, place, watchers),
            num_nodes=place.nodes,
            precision=number_format,  # type: ignore[arg-type]
            logger=loggers(config, run) if config.logger else False,
            callbacks=watchers,
            plugins=[files],
            default_root_dir=run.folder,
            max_steps=config.max_steps * updates if config.max_steps > 0 else config.max_steps,
            min_steps=config.min_steps * updates if config.min_steps else None,
            max_epochs=config.max_epochs,
            min_epochs=config.min_epochs,
            max_time=config.max_time,
            accumulate_grad_batches=1 if own else config.accumulate,
            gradient_clip_val=None if own else config.gradient_clip_val,
            gradient_clip_algorithm=None if own else config.gradient_clip_algorithm,
            val_check_interval=config.val_check_interval,
            check_val_every_n_epoch=config.check_val_every_n_epoch,
            num_sanity_val_steps=config.num_sanity_val_steps,
            limit_train_batches=config.limit_train_batches,
            limit_val_batches=config.limit_val_batches,
            limit_test_batches=config.limit_test_batches,
            limit_predict_batches=config.limit_predict_batches,
            fast_dev_run=config.fast_dev_run,
            log_every_n_steps=config.log_every_n_steps,
            enable_checkpointing=config.enable_checkpointing and not config.fast_dev_run,
            enable_progress_bar=bool(config.refresh_rate),
            enable_model_summary=False,  # `sizes` says it, whatever the precision
            use_distributed_sampler=config.use_distributed_sampler,
            deterministic=config.deterministic,  # type: ignore[arg-type]
            benchmark=config.benchmark,
            detect_anomaly=config.detect_anomaly,
            profiler=config.profiler,
            reload_dataloaders_every_n_epochs=every_epoch,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"the Trainer can't work with these flags: {error}") from None


class Folder(Callback):
    """Makes the run's folder once all processes have chosen it, claims it, and keeps the settings there."""

    def __init__(self, run: Run, settings: Any, held: ExitStack) -> None:
        self.run, self.settings, self.held = run, settings, held
        self.claimed = run.folder.is_dir() and first()
        if self.claimed:  # before anything in it is touched
            held.enter_context(only_here(run.folder))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        try:
            self.run.checkpoints.mkdir(parents=True, exist_ok=True)
            if not self.claimed:
                self.held.enter_context(only_here(self.run.folder))
            if self.settings is not None:
                flags.save_yaml(self.settings, self.run.folder / "config.yaml")
        except OSError as error:
            raise UserError(f"can't write in {self.run.folder}: {error.strerror}; what is there is untouched") from None


def check_intervals(config: TrainerConfig, loader: Any) -> None:
    """A test every so many batches must come within an epoch, or it would never come."""
    interval, batches = config.val_check_interval, len(loader) if hasattr(loader, "__len__") else None
    if batches is None or isinstance(interval, float) or config.check_val_every_n_epoch is None or config.fast_dev_run:
        return
    batches = -(-batches // processes(config))  # the loader knows nothing of processes that have not begun
    limit = config.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if interval > batches and config.limit_val_batches:
        raise UserError(
            f"--val_check_interval {interval}: an epoch has only {batches} batches; take at most {batches}, a part of "
            "an epoch such as 1.0, or --check_val_every_n_epoch none to count batches over epochs"
        )
