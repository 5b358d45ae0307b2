"""Checks the Triton kernels on this GPU, then times them beside their rivals, and stores what it found.

    python kernels/bench.py              # writes benchmarks/results/gpu_NAME.json, NAME that of the GPU
    python kernels/bench.py --out DIR
    python kernels/bench.py --ci         # no GPU: tiny sizes in Triton's interpreter; stores only with --out

Needs torch and triton only, and no network. First the rate at which this GPU copies and multiplies. What is checked
then: outputs and gradients against the definition in float64, in every number format; a kernel may be twice as far from
it as the definition in the tested format is. What fails is not timed. Times are medians of calls between CUDA events,
each way in turn, the second-level cache cleared before each. Last the models: a step of the engine, a window shown at
once, a training step, whole clips (`benchmarks/gpu_models.py`). After --seconds what is left is not measured, and a
kernel that was not measured counts as not passed; rivals that have to be compiled are left out when half of that is
over.
"""

import argparse
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tats.kernels.bench_cases import Case, Ways, cases, tiny_cases
from tats.kernels.dispatch import IMPLEMENTATIONS

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 30  # timed calls of each way
COMPILED = ("FlexAttention", "torch.compile")
INTERPRETER = "Triton's interpreter"  # what stands for the GPU's name with --ci
ERRORS = (RuntimeError, ValueError, TypeError, ImportError, AttributeError)  # of compilers, of rivals and of old torch


class Clock:
    """Milliseconds of a call on one device."""

    def __init__(self, device: str):
        self.device = device
        # larger than any second-level cache
        self.flush = torch.empty(64 * 2**20 if device == "cuda" else 1, dtype=torch.int32, device=device)

    def __call__(self, way: Callable[[], Any]) -> float:
        self.flush.zero_()
        if self.device != "cuda":
            began = time.perf_counter()
            way()
            return 1000 * (time.perf_counter() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        way()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


class Deadline:
    """How much of the allowed time is left."""

    def __init__(self, seconds: float):
        self.began, self.seconds = time.monotonic(), seconds

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of the time has passed."""
        return time.monotonic() - self.began > share * self.seconds


def limits(clock: Clock) -> dict[str, float]:
    """Bytes copied per second (read and written), operations per second of a matrix product in bf16 and float32."""
    side, numbers = (8192, 2**29) if clock.device == "cuda" else (64, 2**12)
    read, written = torch.rand(2, numbers, device=clock.device)
    found = {"copied": 2 * 4 * numbers / best(clock, partial(written.copy_, read))}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = torch.randn(2, side, side, device=clock.device, dtype=dtype)
        found[name] = 2 * side**3 / best(clock, partial(torch.matmul, a, b))
    return found


def best(clock: Clock, way: Callable[[], Any]) -> float:
    """Seconds of the fastest of ten calls."""
    return min(clock(way) for _ in range(10)) / 1000


def timed(ways: Ways, clock: Clock, deadline: Deadline, rounds: int | None) -> dict[str, float]:
    """Milliseconds of every way: medians of calls in turn, after three that do not count.

    rounds: None measures each way once and compiles nothing.
    """
    ready = {}
    for name, way in ways.items():
        if name in COMPILED and rounds is None:
            continue
        if name in COMPILED and deadline.over(0.5):
            print(f"left out: {name}: half of the time is over", flush=True)
        elif name == "fused" or runs(name, way):
            ready[name] = way
    times: dict[str, list[float]] = {name: [] for name in ready}
    warm = 0 if rounds is None else 3
    for round_ in range((rounds or 1) + warm):
        if round_ > 8 and deadline.over():
            break
        for name, way in ready.items():
            taken = clock(way)
            if round_ >= warm:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def runs(name: str, way: Callable[[], Any]) -> bool:
    """True where a rival compiles and runs here and has the memory; else it is named and left out."""
    try:
        way()
    except ERRORS as error:
        print(f"left out: {name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return False
    return True


def extra_memory(way: Callable[[], Any], device: str) -> float | None:
    """MiB that a call needs beyond what is held before it; None where nobody counts."""
    if device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(case: Case, clock: Clock, deadline: Deadline, rounds: int | None = ROUNDS) -> dict[str, Any]:
    """One case: checked, then timed.  What fails is told in words and does not end the run."""
    row: dict[str, Any] = {"op": case.op, "width": case.width, "size": case.size}
    row |= {"passed": False, "won": False, "ms": {}, "why": ""}
    if deadline.over():
        return {**row, "why": "no time was left"}
    torch.manual_seed(0)
    try:
        share, ways = case.make(clock.device)
        row["share_of_allowance"] = share
        row["passed"] = share <= 1
        if row["passed"]:
            row["ms"] = timed(ways, clock, deadline, rounds)
            row["won"] = min(row["ms"], key=row["ms"].__getitem__) == "fused"
            row["mib"] = extra_memory(ways["fused"], clock.device)
        else:
            row["why"] = f"{share:.3g} times as far from the exact result as is allowed"
    except ERRORS as error:
        row |= {"passed": False, "won": False, "why": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        if clock.device == "cuda":
            torch.cuda.empty_cache()
    return row


def goals_of(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the kernels' rows say of the goals of `benchmarks/goals.py`."""
    found = []
    for row in rows:
        ms = row["ms"]
        if row["op"] == "attention" and "257" in row["size"] and "fused" in ms:
            for goal, rival in (
                ("attention over SDPA", "SDPA, dense mask"),
                ("attention over FlexAttention", COMPILED[0]),
            ):
                found.append({"goal": goal, "value": ms[rival] / ms["fused"] if rival in ms else None})
        if row["op"] == "nearest_code" and row["size"].startswith("65536") and "fused" in ms:
            found += [
                {"goal": "nearest code", "value": ms["fused"]},
                {"goal": "nearest code, memory", "value": row["mib"]},
            ]
    return found


def keep(gpu: str, rates: dict[str, float], rows: list[dict[str, Any]], goals: list[dict[str, Any]], out: Path) -> Path:
    """Store everything where `kernels.which` and the documentation's tables read it."""
    from benchmarks.tables import store

    columns = ["op", "size", "check", *IMPLEMENTATIONS, "best rival", "fused, times faster"]
    told = f"copies {rates['copied'] / 1e12:.2f} TB/s, multiplies {rates['bf16'] / 1e12:.0f} Tflop/s in bf16"
    return store(
        "gpu_" + re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_"),
        columns,
        [table_row(row) for row in rows],
        command="make bench-gpu",
        note=f"Milliseconds, medians of calls in turn, second-level cache cleared before each; this GPU {told}",
        details={"gpu": gpu, "limits": rates, "kernels": rows, "goals": goals},
        folder=out,
    )


def table_row(row: dict[str, Any]) -> list[Any]:
    """A case as a row of the table."""
    ms = dict(row["ms"])
    rivals = {name: value for name, value in ms.items() if name not in IMPLEMENTATIONS}
    first = min(rivals, key=rivals.__getitem__, default=None)
    told = None if first is None else f"{rivals[first]:.4g} ({first})"
    ratio = min(value for name, value in ms.items() if name != "fused") / ms["fused"] if ms else None
    check = "passed" if row["passed"] else "not passed"
    return [row["op"], row["size"], check, *(ms.get(name) for name in IMPLEMENTATIONS), told, ratio]


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the result; without it benchmarks/results, with --ci none")
    parser.add_argument("--seconds", type=float, default=400, help="begin nothing after that many")
    parser.add_argument("--ci", action="store_true", help="tiny sizes in Triton's interpreter, for tests")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Checks and times everything; returns the exit code, 1 where a kernel did not pass."""
    args = arguments(argv)
    if args.ci:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    elif not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked or measured, nothing was written")
        return 0
    from benchmarks import gpu_models

    device, deadline = "cpu" if args.ci else "cuda", Deadline(math.inf if args.ci else args.seconds)
    gpu, clock = INTERPRETER if args.ci else torch.cuda.get_device_name(), Clock(device)
    rates, rows = limits(clock), []
    print(f"{gpu}: " + ", ".join(f"{name} {rate:.4g} per second" for name, rate in rates.items()), flush=True)
    for case in tiny_cases() if args.ci else cases():
        row = measure(case, clock, deadline, None if args.ci else ROUNDS)
        rows.append(row)
        told = ", ".join(f"{name} {ms:.4g} ms" for name, ms in row["ms"].items()) or row["why"]
        print(f"{case.op}, {case.size}: {'passed' if row['passed'] else 'NOT passed'}; {told}", flush=True)
    steps = gpu_models.recorded(clock, deadline.over, tiny=args.ci)
    for row in steps:
        print(f"{row['op']}, {row['size']}: {row['ms'] or row['why']}", flush=True)
    rows += steps
    goals = goals_of(rows) + gpu_models.goals(clock, rates, deadline.over, steps, tiny=args.ci)
    for goal in goals:
        print(f"{goal['goal']}: {goal['value']}", flush=True)
    out = args.out or (None if args.ci else ROOT / "benchmarks" / "results")
    if out is not None:
        print(f"wrote {keep(gpu, rates, rows, goals, out)}")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
