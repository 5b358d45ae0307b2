"""Training steps: the published way beside ours, time and memory.

    python benchmarks/training.py                   # results/training.json, training_vqgan.json; about ten minutes
    python benchmarks/training.py --only vqgan      # one of the two models
    python benchmarks/training.py --compile         # with compiled blocks as one more way
    python benchmarks/training.py --only layout     # order of the channels by norm: results/channels_last.json
    python benchmarks/training.py --size ci         # seconds: checks only that all ways agree

Transformer: forward and backward pass with the accuracies that are logged, without the optimizer. VQGAN: the steps of
both players, one clip of 16 frames of 64 x 64, critics and their features at work. Random weights and data. One thread
and processor time, because other programs share this machine; the order of the ways alternates. Peak memory is that of
a fresh process each, above what it holds before its first step. Nothing is timed before losses and gradients agree; a
first step of each way is thrown away, which for the transformer is that of the check.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.limits import Limits, measured_limits
from benchmarks.tables import store
from tats import flags
from tats.flags import arg

if TYPE_CHECKING:
    from benchmarks.training_ways import Way

Record = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Times training steps of both models."""

    size: str = arg("default", "default, or ci: tiny models, nothing is timed", ["default", "ci"])
    only: list[str] = arg(["transformer", "vqgan"], "what is measured", ["transformer", "vqgan", "layout"])
    sizes: list[str] = arg(["6 layers", "4 layers", "demo"], "transformers", ["6 layers", "4 layers", "demo"])
    rounds: int = arg(3, "timed rounds; of the largest transformer one less")
    compile: bool = arg(False, "compiled blocks, too")
    probe: str | None = arg(None, "print the peak memory of one way, as 'transformer/4 layers/bf16'")


def timed(ways: "dict[str, Way]", rounds: int, warm: bool = False) -> dict[str, list[float]]:
    """Seconds of processor time of every way, in turn, the order alternating. warm: after one step of each that is
    thrown away, where nothing has run them yet."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values() if warm else ():
        way()
    for round_ in range(rounds):
        for name, way in list(ways.items())[:: -1 if round_ % 2 else 1]:
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return times


def records(
    kind: str, size: str, times: dict[str, list[float]], far: dict[str, list[float]], peaks: dict[str, float]
) -> list[Record]:
    """What was found of every way, as plain values."""
    theirs, found = times["published"], []
    for way, values in times.items():
        middle = statistics.median(values)
        found.append(
            {
                "model": kind, "size": size, "way": way, "published": statistics.median(theirs), "ours": middle,
                "ours_least": min(values), "times_faster": statistics.median(theirs) / middle,
                "times_faster_by_least": min(theirs) / min(values), "peak_mib": peaks.get(way),
                "peak_ratio": peaks[way] / peaks["published"] if way in peaks else None,
                "loss_apart": far[way][0], "gradients_apart": far[way][1],
            }
        )  # fmt: skip
        print(kind, size, way, f"{middle:.3f} s, {found[-1]['times_faster']:.2f}x", flush=True)
    return found


def transformers(config: Config, limits: Limits | None, peaks: bool = True) -> list[Record]:
    """All sizes of the transformer; with limits, each step's share of what the matrix rate allows."""
    from benchmarks.training_ways import COMPILED, STEPS, check_transformer, operations, transformer

    names, found = (*STEPS, COMPILED) if config.compile else STEPS, []
    for size in config.sizes:
        gpt, ways = transformer(size, names)
        far = check_transformer(gpt, ways)
        times = timed(ways, max(config.rounds - (size == "6 layers"), 1))
        del gpt, ways
        memory = {way: peak("transformer", size, way) for way in names if way != COMPILED} if peaks else {}
        rows = records("transformer", size, times, far, memory)
        for row in rows if limits else ():
            rate = limits.matrix["bf16" if row["way"].startswith("bf16") else "fp32"] if limits else 0.0
            row["share_of_floor"] = operations(size) / rate / row["ours"]
        found += rows
    return found


def vqgans(config: Config, peaks: bool = True) -> list[Record]:
    """The VQGAN's step."""
    from benchmarks.training_ways import VQGAN_STEPS, check_vqgan, vqgan_step

    (size,) = ("16x64x64",)
    far = check_vqgan(size, ("fp32", "bf16"))
    far["bf16, shared"] = far["bf16"]
    times = timed({way: vqgan_step(size, way) for way in VQGAN_STEPS}, config.rounds, warm=True)
    memory = {way: peak("vqgan", size, way) for way in VQGAN_STEPS} if peaks else {}
    return records("vqgan", size, times, far, memory)


def layouts(config: Config) -> list[Record]:
    """Order of the channels in memory: each norm and number format with channels first and last."""
    from benchmarks.training_ways import LAYOUTS, check_vqgan, vqgan_step

    found = []
    for norm in ("batch", "group"):
        far = check_vqgan("16x64x64", LAYOUTS, norm)
        times = timed({way: vqgan_step("16x64x64", way, norm) for way in LAYOUTS}, config.rounds + 2, warm=True)
        for kind in ("fp32", "bf16"):
            first, last = (min(times[f"{kind}, channels {place}"]) for place in ("first", "last"))
            found.append(
                {
                    "norm": norm, "format": kind, "first": first, "last": last, "times_faster": first / last,
                    "apart": far[f"{kind}, channels last"],
                }
            )  # fmt: skip
            print(norm, kind, f"first {first:.3f} s, last {last:.3f} s", flush=True)
    return found


def peak(kind: str, size: str, way: str) -> float:
    """Peak memory of two steps in a fresh process, in MiB above what the process holds before them."""
    command = [sys.executable, __file__, "--probe", f"{kind}/{size}/{way}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(answer.stdout)


def probe(name: str) -> float:
    """The same, inside that process."""
    import ctypes

    from benchmarks.codebook import memory
    from benchmarks.training_ways import transformer, vqgan_step

    kind, size, way = name.split("/")

    def made(size: str) -> "Way":
        return vqgan_step(size, way) if kind == "vqgan" else transformer(size, (way,))[1][way]

    made("ci")()  # libraries are loaded
    step = made(size)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    step()
    return (memory("VmHWM") - before) / 1024


def keep(kind: str, found: list[Record], config: Config, limits: Limits, load: list[float]) -> None:
    """Store the results of one model and the table that documents show of them."""
    columns = ["size", "way", "seconds", "times faster", "share of floor", "peak, MiB", "of published", "gradients"]
    rows = [
        [
            r["size"],
            r["way"],
            r["ours"],
            round(r["times_faster"], 2),
            f"{r['share_of_floor']:.0%}" if "share_of_floor" in r else None,
            round(r["peak_mib"]) if r["peak_mib"] else None,
            round(r["peak_ratio"], 2) if r["peak_ratio"] else None,
            f"{r['gradients_apart']:.0e}",
        ]
        for r in found
    ]
    rounds = f"processor time, median of {config.rounds} rounds in turn"
    models = {
        "transformer": "Width 1024 (demo: 128) and 1024 codes a clip (demo: 256), 2 clips at 6 layers, 1 at 4, 16 of "
        f"the demo: forward and backward pass; one thread, {rounds} (6 layers: one less); floor: products and sums at "
        f"the rate of a large matrix product ({limits.told()})",
        "vqgan": f"n_hiddens 32, 1 clip, both critics at work: a step of both players; one thread, {rounds}",
    }
    note = (
        f"{models[kind]}; memory above what stands before the step, weights and optimizers, each in a fresh process; "
        f"gradients: relative distance from the published ones; load of the machine {load[0]:.1f} before and "
        f"{load[1]:.1f} after"
    )
    command = f"python benchmarks/training.py --only {kind}" + (" --compile" if config.compile else "")
    name = {"transformer": "training", "vqgan": "training_vqgan"}[kind]
    if kind == "vqgan":  # nothing is compared with the machine's limits
        columns, rows = [c for c in columns if c != "share of floor"], [[*row[:4], *row[5:]] for row in rows]
    store(name, columns, rows, command=command, note=note,
          details={kind: found, "limits": asdict(limits), "load": load})  # fmt: skip


def keep_layouts(found: list[Record], config: Config, load: list[float]) -> None:
    """Store which order of the channels is faster."""
    columns = ["--norm_type", "format", "channels first, s", "channels last, s", "times faster"]
    rows = [[r["norm"], r["format"], r["first"], r["last"], round(r["times_faster"], 2)] for r in found]
    note = (
        f"A training step of a VQGAN of n_hiddens 32 on one clip of 16x64x64, one thread, processor time, the "
        f"least of {config.rounds + 2} rounds in turn; load of the machine {load[0]:.1f} before and {load[1]:.1f} after"
    )
    command = "python benchmarks/training.py --only layout"
    store("channels_last", columns, rows, command=command, note=note, details={"layouts": found, "load": load})


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, store."""
    config = flags.parse(Config, argv)
    import torch

    torch.set_num_threads(1)
    if config.probe is not None:
        print(probe(config.probe))
        return
    if config.size == "ci":
        from benchmarks.training_ways import LAYOUTS, STEPS, check_transformer, check_vqgan, transformer

        print(check_transformer(*transformer("ci", STEPS)), check_vqgan("ci", LAYOUTS))
        return
    load = os.getloadavg()[0]
    if "layout" in config.only:
        keep_layouts(layouts(config), config, [load, os.getloadavg()[0]])
        return
    limits = measured_limits()
    if "transformer" in config.only:
        found = transformers(config, limits)
        if config.sizes == Config().sizes:
            keep("transformer", found, config, limits, [load, os.getloadavg()[0]])
    if "vqgan" in config.only:
        keep("vqgan", vqgans(config), config, limits, [load, os.getloadavg()[0]])


if __name__ == "__main__":
    flags.run(main)
