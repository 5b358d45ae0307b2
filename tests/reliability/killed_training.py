"""Training runs that are killed again and again end as if they had never been: every tensor of their checkpoint, both
optimizers included, bit for bit, and a log without a step twice or a step missing.

    python tests/reliability/killed_training.py             # twenty kills of each trainer
    python tests/reliability/killed_training.py --kills 3   # three of each

Runs end after a random share of the processor time that a whole one takes: by SIGKILL, by SIGKILL while a checkpoint is
being written, and by SIGTERM, in turn; in one process and in two. They shuffle, read with workers, stand in the middle
of an epoch nearly always, and write a checkpoint after every step. Prints a line per run, and exits with 1 where
something differs. One process loads everything once and forks the runs.
"""

import argparse
import csv
import math
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from killed_samplers import start  # noqa: E402
from records import Record  # noqa: E402

REQUEUE = 99  # what a run ends with that SIGTERM has stopped
WAYS = ("kill", "kill while writing", "stop")  # how a run ends before its time, in turn
LATEST = 900  # seconds of waiting for the moment of a kill, or for processes to stop
HANGS = 3600  # seconds after which a run is taken to hang
TICK = os.sysconf("SC_CLK_TCK")
COMMON = {
    "batch_size": 2,
    "num_workers": 2,
    "max_steps": 12,
    "save_every_minutes": 0,
    "log_every_n_steps": 1,
    "ema_decay": 0.9,
    "lr_schedule": "cosine",
    "device": "cpu",
    "enable_progress_bar": False,
    "deterministic": True,
}
VQGAN = {
    "resolution": 16,
    "sequence_length": 4,
    "n_hiddens": 2,
    "downsample": (2, 8, 8),
    "n_codes": 16,
    "embedding_dim": 4,
    "norm_type": "batch",
    "disc_channels": 2,
    "disc_layers": 1,
    "vq_start_step": 5,
    "codebook_start": "kmeans",
    "discriminator_iter_start": 4,
    "perceptual_weight": 0,
    "log_videos_every": 0,
}
TRANSFORMER = {
    "vtokens": True,
    "unconditional": True,
    "sequence_length": 2,
    "spatial_length": 2,
    "block_size": 0,
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 16,
    "pkeep": 0.8,
    "accumulate_grad_batches": 2,
    "warmup_steps": 3,
}
TRAINERS: dict[str, dict[str, Any]] = {"train_vqgan.py": VQGAN, "train_transformer.py": TRANSFORMER}


def words(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line."""
    line: list[str] = []
    for name, value in settings.items():
        if value is False:
            line.append(f"--no_{name}")
        else:
            values = [] if value is True else value if isinstance(value, tuple) else [value]
            line += [f"--{name}", *map(str, values)]
    return line


def save_data(folder: Path) -> dict[str, Path]:
    """Seven tiny videos to train on and three to test with, as pixels and as codes; the data of each trainer."""
    import h5py
    import numpy as np

    draw = np.random.default_rng(0)
    with h5py.File(folder / "videos.h5", "w") as videos, h5py.File(folder / "codes.h5", "w") as codes:
        for split, count in (("train", 7), ("test", 3)):
            for file, frames, shape, most in ((videos, 6, (16, 16, 3), 256), (codes, 3, (2, 2), 32)):
                data = draw.integers(most, size=(count * frames, *shape))
                file[f"{split}_data"] = data.astype(np.uint8 if most == 256 else np.int64)
                file[f"{split}_idx"] = np.arange(count) * frames
    return {"train_vqgan.py": folder / "videos.h5", "train_transformer.py": folder / "codes.h5"}


@dataclass
class Outcome:
    """What became of the runs of one trainer."""

    script: str
    processes: int = 1
    kills: int = 0
    writing: int = 0  # of these: while a checkpoint was being written
    stops: int = 0  # of these: by SIGTERM
    ends: int = 0  # runs that came to their end, and were compared
    tensors: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.script if self.processes == 1 else f"{self.script}, {self.processes} processes"


def processor_time(child: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@dataclass
class Plan:
    """When a run ends: after `enough` seconds of processor time of its first process (None: by itself). `how`: `kill`;
    `kill while writing`, as soon afterwards as a checkpoint is half written; `stop`, by SIGTERM, which the last process
    gets a while before the others."""

    enough: float | None = None
    how: str = "kill"


def run(command: list[str], folder: Path, plan: Plan, processes: int = 1) -> tuple[str, float]:
    """Train to the end, or end the run as planned. Returns `ended`, `failed`, `hung`, `killed`, `killed while
    writing` or `stopped`, and the processor time of the first process."""
    log, took, began, clock = folder.with_suffix(".log"), 0.0, time.monotonic(), time.time()
    children = start_all([*command, "--default_root_dir", str(folder)], log, processes)
    codes: list[int] = []
    while len(codes) < processes:
        waited = [os.waitpid(child, os.WNOHANG) for child in children]
        codes += [os.waitstatus_to_exitcode(status) for child, status in waited if child]
        children = [child for child, (ended, _) in zip(children, waited) if not ended]
        took = max(took, processor_time(children[0]) if children else 0.0)
        ready = {"kill": True, "kill while writing": half_written(folder), "stop": trains(folder, clock)}[plan.how]
        ready = ready or time.monotonic() - began > LATEST
        if plan.enough is not None and took >= plan.enough and ready and len(children) == processes:
            writing = half_written(folder)
            codes = end(children, plan.how)
            if plan.how == "stop":
                return ("stopped" if set(codes) <= {REQUEUE, 0, -signal.SIGTERM} else "failed"), took
            return ("killed while writing" if writing else "killed"), took
        if any(codes) or time.monotonic() - began > HANGS:
            end(children, "kill")
            print(log.read_text())
            return ("failed" if any(codes) else "hung"), took
        time.sleep(0.0002)
    return "ended", took


def start_all(command: list[str], log: Path, processes: int) -> list[int]:
    """Start a script in one process, or in several as torchrun does; their numbers."""
    if processes == 1:
        return [start(command[0], command[1:], log)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(processes):
        own = {**shared, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "1"}
        os.environ.update({name: str(value) for name, value in own.items()})
        children.append(start(command[0], command[1:], log.with_suffix(f".{rank}.log") if rank else log))
        for name in own:
            del os.environ[name]
    return children


def end(children: list[int], how: str) -> list[int]:
    """End processes, and wait for them, but not for ever; their exit codes."""
    for child in reversed(children):
        os.kill(child, signal.SIGTERM if how == "stop" else signal.SIGKILL)
        time.sleep(0.1 if how == "stop" else 0)
    codes, began = [], time.monotonic()
    for child in children:
        while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() - began > LATEST:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        codes.append(os.waitstatus_to_exitcode(status[1]))
    return codes


def trains(folder: Path, since: float) -> bool:
    """Whether a run has done a step since a time, and therefore listens to signals."""
    return any(path.stat().st_mtime > since for path in folder.glob("version_*/checkpoints/last.ckpt"))


def half_written(folder: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    return any(folder.glob("version_*/checkpoints/*.partial"))


def trial(
    script: str, data: Path, kills: int, seed: int, processes: int = 1, ways: tuple[str, ...] = WAYS,
    until: float = math.inf,
) -> Outcome:  # fmt: skip
    """Kill a run again and again, and compare what it ends with to a run that was left alone. `until`: the time on the
    monotonic clock after which nothing is killed any more, but once."""
    outcome = Outcome(script, processes)
    with tempfile.TemporaryDirectory() as name:
        whole, folder = Path(name) / "whole", Path(name) / "killed"
        settings = {**COMMON, **TRAINERS[script], "data_path": data}
        settings["val_check_interval"] = 3 if processes == 1 else 2  # an epoch has 4 or 2 batches
        command = [script, *words(settings)]
        how, took = run(command, whole, Plan(), processes)
        if how != "ended":
            outcome.wrong.append("the run that was left alone failed")
            return outcome
        draw, again = random.Random(seed), 0
        while outcome.kills < kills and again < 4 * kills and (not outcome.kills or time.monotonic() < until):
            wanted = ways[outcome.kills % len(ways)]
            how, _ = run(command, folder, Plan(draw.uniform(0.1, 0.9) * took, wanted), processes)
            print(f"{outcome}: {how} at step {step_of(folder)}", flush=True)
            outcome.kills += how not in ("ended", "failed", "hung")
            outcome.writing += how == "killed while writing"
            outcome.stops += how == "stopped"
            again += 1
            if how in ("failed", "hung"):
                outcome.wrong.append(f"a run that goes on {how}")
                return outcome
            if how == "ended" and outcome.kills < kills:
                compare(outcome, whole, folder)
                folder = Path(name) / f"killed{again}"
        how, _ = run(command, folder, Plan(), processes)
        if how != "ended":
            outcome.wrong.append("the last run failed")
        compare(outcome, whole, folder)
    return outcome


def newest(folder: Path) -> Path:
    """The folder of the newest run."""
    return max(folder.glob("version_*"), key=lambda path: int(path.name.removeprefix("version_")))


def step_of(folder: Path) -> int:
    """How far the newest run has come: the step of its checkpoint, 0 without one."""
    from tats.checkpoints import read_step

    return max(read_step(newest(folder) / "checkpoints" / "last.ckpt"), 0) if any(folder.glob("version_*")) else 0


def compare(outcome: Outcome, whole: Path, killed: Path) -> None:
    """Note what differs between the checkpoints and logs of two runs."""
    import torch

    runs = newest(whole), newest(killed)
    stored = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs]
    for each in stored:
        each.pop("log")  # sizes of files that hold times
    values = [dict(leaves(each)) for each in stored]
    wrong = sorted(name for name in {*values[0], *values[1]} if not same(*(each.get(name) for each in values)))
    names = [sorted(path.name for path in (run / "checkpoints").glob("*.ckpt")) for run in runs]
    wrong += [] if names[0] == names[1] else [f"checkpoints {names[1]} in place of {names[0]}"]
    rows = [log_of(run) for run in runs]
    wrong += [] if rows[0] == rows[1] else ["metrics.csv"]
    events = [events_of(run) for run in runs]
    wrong += [f"events {tag}" for tag in sorted({*events[0], *events[1]}) if events[0].get(tag) != events[1].get(tag)]
    twice = [tag for tag, steps in events[1].items() if tag != "epoch" and len(set(steps)) < len(steps)]
    wrong += [f"{tag} twice at one step" for tag in twice]
    outcome.ends += 1
    outcome.tensors = sum(isinstance(value, torch.Tensor) for value in values[0].values())
    outcome.wrong += wrong
    print(f"{outcome}: {'differs: ' + ', '.join(wrong[:6]) if wrong else f'{outcome.tensors} tensors equal'}")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists, with the way to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from leaves(each, f"{name}/{number}")
    else:
        yield name, value


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, tensors bit for bit."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def log_of(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what was measured in seconds and bytes."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if "speed/" not in key} for row in csv.DictReader(file)]
    return [row for row in rows if any(value for key, value in row.items() if key not in ("step", "epoch"))]


def events_of(run: Path) -> dict[str, list[int]]:
    """The steps of every curve, picture and video in TensorBoard's files, in the order in which they were written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[int]] = {}
    for path in sorted(run.glob("events.out.tfevents.*")):  # names begin with the time
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def load() -> None:
    """Import everything that runs need, before the first of them is forked."""
    import torch

    torch.set_num_threads(1)
    import tensorboard.backend.event_processing.event_file_loader  # noqa: F401
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    from tats import metrics_callback, training  # noqa: F401
    from tats.data import module  # noqa: F401
    from tats.gpt import train as gpt_train  # noqa: F401
    from tats.vqgan import train as vqgan_train  # noqa: F401


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="nothing is killed after so many of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="in two processes one of the trainers only, stopped once")
    parser.add_argument("--store", metavar="COMMAND", help="keep the counts for the documentation, as made by COMMAND")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the counts into a file, as JSON")
    return parser.parse_args()


def main() -> int:
    """Both trainers; returns the exit code."""
    args = arguments()
    load()
    both = list(TRAINERS)
    trials = [(script, 1, args.kills, WAYS) for script in both]
    trials += [("train_transformer.py", 2, 1, ("stop",))] if args.quick else [(s, 2, args.kills, WAYS) for s in both]
    outcomes, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        data = save_data(Path(name))
        for number, (script, processes, kills, ways) in enumerate(trials):
            until = begin + 60 * args.minutes * (number + 1) / len(trials)  # each trainer gets its share
            outcomes.append(trial(script, data[script], kills, args.seed, processes, ways, until))
    record = Record()
    for each in outcomes:
        record.add({"kills": each.kills, "ends compared": each.ends}, [f"{each}: {wrong}" for wrong in each.wrong])
    record.write(args.record)
    if args.store or args.kills >= 20:
        store(outcomes, args.store or f"python {Path(*Path(__file__).parts[-3:])}")
    return int(bool(record.wrong))


def store(outcomes: list[Outcome], command: str) -> None:
    """Keep the counts for the documentation."""
    from benchmarks import tables

    columns = ["trainer", "ended before its time", "while a checkpoint was written", "by SIGTERM", "ends compared"]
    columns += ["tensors compared", "differences"]
    rows = [
        [str(each), each.kills, each.writing, each.stops, each.ends, each.tensors * each.ends, len(each.wrong)]
        for each in outcomes
    ]
    note = f"Runs of {COMMON['max_steps']} steps, ended and resumed, beside one that was left alone."
    wrong = {str(each): each.wrong for each in outcomes}
    tables.store("reliability_training", columns, rows, command=command, note=note, details={"differences": wrong})


if __name__ == "__main__":
    sys.exit(main())
