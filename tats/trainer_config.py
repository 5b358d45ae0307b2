"""The flags of a training run: what the published Trainer took, and what became of it. No torch here."""

import re
import shlex
from dataclasses import dataclass
from typing import Any, ClassVar

from tats.flags import UserError, arg

PRECISIONS = {
    "16": "16-mixed",
    "32": "32-true",
    "64": "64-true",
    "bf16": "bf16-mixed",
    **{each: each for each in ("16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true")},
}
STRATEGIES = {  # what the published Trainer called strategy, accelerator or distributed backend -> its name today
    **{each: each for each in ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "deepspeed")},
    "ddp_find_unused_parameters_true": "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false": "ddp",
    "dp": "ddp",
    "ddp2": "ddp",
    "ddp_cpu": "ddp",
    "fsdp_native": "fsdp",
    "ddp_sharded": "fsdp",
    "ddp_fully_sharded": "fsdp",
}
ACCELERATORS = ["auto", "cpu", "gpu", "cuda", "mps", "tpu"]


@dataclass(frozen=True)
class TrainerConfig:
    """How long, on what and how to train."""

    default_root_dir: str | None = arg(None, "folder of the runs; each is a version_N inside (none: runs/<model>)")
    resume: str = arg("auto", "auto: go on with the newest run of the folder; never: a new run; or a checkpoint's path")
    resume_from_checkpoint: str | None = arg(None, "checkpoint to go on from, as --resume PATH")
    seed: int = arg(1234, "seed of everything random")
    max_steps: int = arg(-1, "optimizer steps (-1: no limit)")
    min_steps: int | None = arg(None, "fewest optimizer steps (none: no lower limit)")
    max_epochs: int | None = arg(None, "passes over the data (none: 1000 without --max_steps; -1: no limit)")
    min_epochs: int | None = arg(None, "fewest passes over the data (none: no lower limit)")
    max_time: str | None = arg(None, "longest duration, as DD:HH:MM:SS (none: no limit)")
    accumulate_grad_batches: int | None = arg(None, "batches per optimizer step (none: 1)")
    ema_decay: float = arg(0.0, "decay of a moving average of the weights, which samplers then take (0: none)")
    gradient_clip_val: float | None = arg(None, "largest gradient, for each optimizer (none: not clipped)")
    gradient_clip_algorithm: str | None = arg(None, "clip by the norm of all or by value", ["norm", "value"])
    precision: int | str = arg(32, "number format of training", [16, 32, 64, *list(PRECISIONS)[3:]])
    val_check_interval: int | float = arg(1.0, "test every so many batches (int) or parts of an epoch (float)")
    check_val_every_n_epoch: int | None = arg(1, "test in every n-th epoch; none counts batches over epochs")
    num_sanity_val_steps: int = arg(2, "test batches tried before training (-1: all)")
    limit_train_batches: int | float = arg(1.0, "training batches per epoch: a number (int) or a part (float)")
    limit_val_batches: int | float = arg(1.0, "test batches: a number (int) or a part (float)")
    limit_test_batches: int | float = arg(1.0, "as --limit_val_batches, for Trainer.test")
    limit_predict_batches: int | float = arg(1.0, "as --limit_val_batches, for Trainer.predict")
    overfit_batches: int | float = arg(0.0, "use the same few batches again and again")
    fast_dev_run: bool | int = arg(False, "try a few batches of everything, keep nothing")
    log_every_n_steps: int = arg(50, "steps between two lines of the log")
    flush_logs_every_n_steps: int = arg(100, "steps between two writes of metrics.csv")
    logger: bool = arg(True, "write TensorBoard events and metrics.csv")
    wandb: str | None = arg(None, "project of Weights & Biases that the log goes to as well (needs pip install wandb)")
    enable_checkpointing: bool = arg(True, "write checkpoints", aliases=("checkpoint_callback",))
    save_every_minutes: float | None = arg(10.0, "minutes between two last.ckpt, beside the fixed steps (none: off)")
    keep_last: int = arg(2, "newest checkpoints that stay to go on from: last.ckpt, and those it took the place of")
    keep_best: int = arg(3, "best checkpoints by the test loss that stay")
    keep_steps: int | None = arg(None, "newest checkpoints at fixed steps that stay (none: all)")
    weights_save_path: str | None = arg(None, "folder of the checkpoints (none: inside the run's folder)")
    enable_progress_bar: bool = arg(True, "show progress and the time left")
    progress_bar_refresh_rate: int | None = arg(None, "steps between two updates of the progress bar (none: 1; 0: off)")
    process_position: int = arg(0, "line of the progress bar, for several runs in one terminal")
    enable_model_summary: bool = arg(True, "say how many weights the model has")
    weights_summary: str | None = arg(
        "top", "top: one line for it; full: one for every part, too; none: no line", ["top", "full"]
    )
    gpus: int | str | None = arg(None, "GPUs: a number, -1 for all, or a list such as 0,2")
    device: str | None = arg(None, "cpu, cuda, ..., as --accelerator (none: a GPU when there is one)")
    accelerator: str | None = arg(None, f"kind of device ({', '.join(ACCELERATORS)})")
    devices: int | str = arg("auto", "devices per machine")
    num_processes: int | None = arg(None, "processes on CPUs (none: as --devices)")
    tpu_cores: int | str | None = arg(None, "TPU cores, as --accelerator tpu --devices N")
    num_nodes: int = arg(1, "machines")
    strategy: str | None = arg(
        None, "how processes share the work, such as ddp (none: auto)", aliases=("distributed_backend",)
    )
    use_distributed_sampler: bool = arg(True, "share the data over processes", aliases=("replace_sampler_ddp",))
    sync_batchnorm: bool = arg(False, "batch statistics over all processes")
    deterministic: bool | str = arg(False, "only deterministic operations; 'warn' names others")
    benchmark: bool | None = arg(None, "let cuDNN choose its algorithms by trying")
    detect_anomaly: bool = arg(False, "name the operation that made a NaN in the backward pass (slow)")
    profiler: str | None = arg(None, "time the parts of training", ["simple", "advanced", "pytorch", "xla"])
    reload_dataloaders_every_n_epochs: int = arg(0, "make the loaders anew (0: never)")
    reload_dataloaders_every_epoch: bool = arg(False, "as --reload_dataloaders_every_n_epochs 1")

    notes: ClassVar[dict[str, tuple[int | str, str]]] = {
        "amp_backend": (1, "there is one kind of mixed precision left; --precision chooses it"),
        "amp_level": (1, "levels belonged to NVIDIA's apex, which is gone; --precision chooses the format"),
        "auto_lr_find": ("?", "no longer part of the Trainer; the learning rate follows from its flag and the batch"),
        "auto_scale_batch_size": ("?", "no longer part of the Trainer; set --batch_size"),
        "auto_select_gpus": ("?", "free GPUs are taken in order; CUDA_VISIBLE_DEVICES chooses others"),
        "callbacks": ("*", "callbacks can't be given on the command line; left out"),
        "ipus": (1, "these devices are no longer supported; left out"),
        "log_gpu_memory": (1, "no longer part of the Trainer; nvidia-smi shows it"),
        "move_metrics_to_cpu": ("?", "no longer part of the Trainer; nothing is kept on the GPU"),
        "multiple_trainloader_mode": (1, "there is one loader; no effect"),
        "plugins": ("*", "plugins can't be given on the command line; left out"),
        "prepare_data_per_node": ("?", "no longer part of the Trainer; the data's index is made once per machine"),
        "stochastic_weight_avg": ("?", "no longer part of the Trainer; left out"),
        "terminate_on_nan": ("?", "always on: training stops at the first loss that is not a number"),
        "track_grad_norm": (1, "no longer part of the Trainer; --detect_anomaly finds the place of a NaN"),
    }

    def __post_init__(self) -> None:
        for name in ("accumulate_grad_batches", "num_nodes", "log_every_n_steps", "num_processes", "min_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        for name, least in (("keep_last", 1), ("keep_best", 0), ("keep_steps", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be at least {least}, got {value}")
        if self.max_steps < -1:
            raise UserError(f"--max_steps must be -1 (no limit) or a number of steps, got {self.max_steps}")
        for name in ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval"):
            value = getattr(self, name)
            if value < 0 or (isinstance(value, float) and value > 1 and name != "val_check_interval"):
                raise UserError(f"--{name} takes a number of batches such as 10 or a part such as 0.5, got {value}")
        if isinstance(self.val_check_interval, float) and not 0 < self.val_check_interval <= 1:
            raise UserError(
                f"--val_check_interval {self.val_check_interval}: a part of an epoch lies in (0, 1]; "
                f"for a number of batches write {max(1, int(self.val_check_interval))}"
            )
        if self.max_time is not None and not re.fullmatch(r"\d+(:\d\d){3}", self.max_time):
            raise UserError(f"--max_time takes DD:HH:MM:SS, such as 00:12:00:00 for half a day, got '{self.max_time}'")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"--ema_decay lies in [0, 1), 0.999 say; got {self.ema_decay}")
        if self.gradient_clip_val is not None and self.gradient_clip_val < 0:
            raise UserError(f"--gradient_clip_val must not be negative, got {self.gradient_clip_val}")

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step, at least 1."""
        return self.accumulate_grad_batches or 1

    @property
    def refresh_rate(self) -> int:
        """Steps between two updates of the progress bar; 0 when it is off."""
        if not self.enable_progress_bar:
            return 0
        return 1 if self.progress_bar_refresh_rate is None else self.progress_bar_refresh_rate


@dataclass(frozen=True)
class Machine:
    """Where to train, in the words of Lightning's Trainer, and what to say about the choice."""

    accelerator: str
    devices: int | str | list[int]
    strategy: str
    remarks: tuple[str, ...] = ()
    nodes: int = 1

    @property
    def per_node(self) -> int | None:
        """Processes on this machine; None when Lightning chooses."""
        if isinstance(self.devices, list):
            return len(self.devices)
        return self.devices if isinstance(self.devices, int) and self.devices > 0 else None


def machine(config: TrainerConfig, gpus_here: int) -> Machine:
    """The devices that the flags ask for, on a machine with `gpus_here` GPUs.

    Raises:
        UserError: an unknown kind of device or strategy, or more GPUs than there are.
    """
    from tats.launched import launched

    kind, strategy = config.device or config.accelerator, config.strategy
    devices: int | str | list[int] = config.devices
    remarks: list[str] = []
    if kind in STRATEGIES and kind not in ACCELERATORS:  # as in `--accelerator ddp`
        kind, strategy = ("cpu" if kind == "ddp_cpu" else None), strategy or kind
    kind = {"cuda": "gpu", None: "auto"}.get(kind, kind)
    if kind not in ACCELERATORS:
        raise UserError(f"--accelerator takes one of {', '.join(ACCELERATORS)}; got '{kind}'")
    if config.gpus not in (None, 0, "0", ""):
        kind, devices = "gpu", _gpu_list(config.gpus)
    elif config.gpus is not None:
        kind, devices = "cpu", 1
    elif config.tpu_cores is not None:
        kind, devices = "tpu", config.tpu_cores
    elif config.num_processes is not None:
        kind, devices = "cpu" if kind == "auto" and not gpus_here else kind, config.num_processes
    if isinstance(devices, str) and devices != "auto":
        devices = _gpu_list(devices)
    if kind == "gpu" and not gpus_here:
        remarks.append(f"{_asked(config)}: this machine has no GPU, so training runs on the CPU")
        kind, devices = "cpu", 1
    if kind == "gpu":
        _check_gpus(config, devices, gpus_here)
    name = strategy or "auto"
    if name not in STRATEGIES:
        raise UserError(f"--strategy takes one of {', '.join(STRATEGIES)}; got '{name}'")
    if STRATEGIES[name] != name:
        remarks.append(f"--strategy {name} is called {STRATEGIES[name]} today")
    started, nodes = launched(), config.num_nodes
    if started.by is not None and started.size > 1 and devices in ("auto", -1):  # as many as the launcher has started
        devices, nodes = started.local_size, started.machines if nodes == 1 else nodes
        kind = "cpu" if kind == "auto" and not gpus_here else kind
    if kind in ("auto", "cpu") and not gpus_here and devices == "auto":
        kind, devices = "cpu", 1
    return Machine(kind or "auto", devices, STRATEGIES[name], tuple(remarks), nodes)


def _asked(config: TrainerConfig) -> str:
    if config.gpus is not None:
        return f"--gpus {config.gpus}"
    return f"--device {config.device}" if config.device else f"--accelerator {config.accelerator}"


def _gpu_list(text: int | str) -> int | list[int]:
    if isinstance(text, int):
        return text
    try:
        numbers = [int(each) for each in text.strip("[]").split(",") if each.strip()]
    except ValueError:
        raise UserError(f"--gpus takes a number or a list such as 0,2; got '{text}'") from None
    return numbers if "," in text or "[" in text else numbers[0]


def _check_gpus(config: TrainerConfig, devices: Any, gpus_here: int) -> None:
    beyond = (
        max(devices) >= gpus_here if isinstance(devices, list) else isinstance(devices, int) and devices > gpus_here
    )
    if beyond:
        raise UserError(f"{_asked(config)}: this machine has {gpus_here} GPUs; ask for at most {gpus_here}")


def vqgan_rate(lr: float, batch_size: int, accumulate: int, processes: int) -> tuple[float, str]:
    """The VQGAN's learning rate and how it comes about: accumulate * processes/8 * batch_size/4 * lr."""
    rate = accumulate * (processes / 8) * (batch_size / 4) * lr
    return rate, (
        f"learning rate {rate:.3g} = {accumulate} (accumulated) * {processes}/8 (processes) "
        f"* {batch_size}/4 (batch size) * {lr:g} (--lr)"
    )


def effective_batch(batch_size: int, accumulate: int, processes: int) -> str:
    """One line: how many clips an optimizer step sees, and why."""
    return (
        f"effective batch {batch_size * accumulate * processes} = {batch_size} (batch size) "
        f"* {accumulate} (accumulated) * {processes} (processes)"
    )


def go_on_command(argv: list[str], checkpoint: str) -> str:
    """The command line that continues from `checkpoint`: the one that was given, its resume flags replaced."""
    kept: list[str] = []
    skip = False
    for token in argv:
        name = token.partition("=")[0].replace("-", "_")
        if name in ("__resume", "__resume_from_checkpoint"):
            skip = "=" not in token
        elif not skip or token.startswith("--"):
            kept.append(token)
            skip = False
        else:
            skip = False
    return shlex.join([*kept, "--resume", checkpoint])
