"""Has anything become slower? Measures again, for a short time, and compares ratios with the stored ones.

    python benchmarks/check.py                       # or: make bench-check; about four minutes
    python benchmarks/check.py --only codebook vqgan

Seconds differ from machine to machine and hour to hour, so what is compared is how many times faster ours is than the
published way beside it: one process, one thread, processor time, ways in turn, least times of both. Exit code 1 and a
table when a ratio fell by more than its margin. What seems to have fallen is measured once more with twice the rounds,
and the better of both counts: two bad moments in a row are rare, a regression stays.

Margins: sampling and data loading move bytes, and share the memory's bandwidth, the caches and the page cache with
whatever else runs; least times of the same code lay up to a fifth apart, so a quarter may be missing. Products of large
matrices and convolutions stay in the caches of their core, and repeat within a tenth: 15 % may be missing. A change
that costs less than its margin is found by the benchmark itself, on a quiet machine.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import Stored, first
from benchmarks.sampling_ways import ENGINES
from benchmarks.tables import RESULTS, grid, machine
from tats import flags
from tats.flags import arg

Ratios = dict[str, float]  # what -> how many times faster than the published way, by least times
STEPS = (("demo", 4, 240), ("default", 4, 960))  # model, videos, position
VECTORS, SIDE, TRAINED = 4096, 64, "4 layers"
LOADED = {  # ours -> the published way of the same
    "mpeg4: ours": "mpeg4: published",
    "h264: ours": "h264: published",
    "prepared frames: ours": "prepared frames: published",
    "codes: shards": "codes: HDF5, published form",
}


@dataclass(frozen=True)
class Area:
    """Something that is measured: what was stored, how to measure it again, and the share that noise may take."""

    margin: float
    stored: Callable[[Stored], Ratios]
    measure: Callable[[int], Ratios]
    """Rounds -> the same ratios now."""


@dataclass(frozen=True)
class Compared:
    """One ratio, then and now."""

    what: str
    stored: float
    now: float
    margin: float

    @property
    def fell(self) -> bool:
        """Whether it fell by more than noise explains."""
        return self.now < self.stored * (1 - self.margin)


def of_steps(rows: Sequence[Mapping[str, Any]]) -> Ratios:
    """The engine's ratios among records of `benchmarks/sampling.py`, at the places that are compared."""
    found = {}
    for model, batch, position in STEPS:
        row = first(rows, model=model, batch=batch, position=position)
        for way, times in (row or {"seconds": {}})["seconds"].items():
            if way in ENGINES:
                found[f"a code, {model} model, {batch} videos, {way}"] = times["times_faster_by_least"]
    return found


def steps_now(rounds: int) -> Ratios:
    """Steps of both models."""
    from benchmarks.sampling_ways import check, compare, engines_of, make_model, step_ways, summary

    rows = []
    for model, batch, position in STEPS:
        gpt = make_model(model)
        ways = step_ways(gpt, batch, position, engines_of(gpt, batch))
        check(ways)
        rows.append({"model": model, "batch": batch, "position": position, "seconds": summary(compare(ways, rounds))})
    return of_steps(rows)


def of_codebook(rows: Sequence[Mapping[str, Any]]) -> Ratios:
    """The ratio of `benchmarks/codebook.py` at one size."""
    row = first(rows, vectors=VECTORS)
    return {} if row is None else {f"codebook, {VECTORS} vectors": row["ratio_of_minima"]}


def codebook_now(rounds: int) -> Ratios:
    """A training step of the codebook."""
    from benchmarks.codebook import Config, compare

    return of_codebook([compare(VECTORS, Config(rounds=rounds), peaks=False)])


def of_training(rows: Sequence[Mapping[str, Any]]) -> Ratios:
    """The ratios of the transformer in `benchmarks/training.py` at one size."""
    found = {row["way"]: row["times_faster_by_least"] for row in rows if row["size"] == TRAINED}
    return {f"training step, {TRAINED}, {way}": found[way] for way in ("fp32", "bf16") if way in found}


def training_now(rounds: int) -> Ratios:
    """A training step of a transformer of a few layers."""
    import torch

    from benchmarks.training import Config, transformers

    with torch.enable_grad():
        return of_training(transformers(Config(sizes=[TRAINED], rounds=max(rounds - 1, 1)), None, peaks=False))


def of_vqgan(rows: Sequence[Mapping[str, Any]]) -> Ratios:
    """The ratios of `benchmarks/vqgan.py` at the small size."""
    return {
        f"VQGAN, {row['what']}, {row['way']}": row["times_faster_by_least"]
        for row in rows
        if row["side"] == SIDE and row["way"] != "published"
    }


def vqgan_now(rounds: int) -> Ratios:
    """Encoding and decoding of small pictures."""
    from benchmarks.limits import Limits
    from benchmarks.vqgan import Config, measure

    anything = Limits(1.0, {"fp32": 1.0, "bf16": 1.0})  # shares of a floor are not compared
    return of_vqgan(measure(Config(sides=(SIDE,), rounds=rounds), anything))


def of_loader(rates: Mapping[str, Sequence[float]]) -> Ratios:
    """The ratios of `benchmarks/loader.py` by the best rounds."""
    known = {ours: theirs for ours, theirs in LOADED.items() if ours in rates and theirs in rates}
    return {f"clips, {ours}": max(rates[ours]) / max(rates[theirs]) for ours, theirs in known.items()}


def loader_now(rounds: int) -> Ratios:
    """Clips from all kinds of files."""
    from benchmarks.loader import measure

    return of_loader({name: rates[1:] for name, rates in measure(rounds, 12).items()})


AREAS = {
    "sampling": Area(0.25, lambda stored: of_steps(stored.details("sampling").get("steps", ())), steps_now),
    "training": Area(0.15, lambda stored: of_training(stored.details("training").get("transformer", ())), training_now),
    "codebook": Area(0.15, lambda stored: of_codebook(stored.details("codebook").get("results", ())), codebook_now),
    "vqgan": Area(0.15, lambda stored: of_vqgan(stored.details("vqgan").get("ways", ())), vqgan_now),
    "loader": Area(0.25, lambda stored: of_loader(stored.details("loader").get("rates", {})), loader_now),
}


@dataclass(frozen=True)
class Config:
    """Measures again and compares ratios with the stored ones."""

    only: list[str] = arg(list(AREAS), "what is compared", [*AREAS])
    rounds: int = arg(3, "timed rounds after one that is thrown away; twice as many where a ratio seems to have fallen")
    results: str = arg(str(RESULTS), "folder of the stored results")


def compare_area(area: Area, stored: Stored, rounds: int) -> list[Compared]:
    """All ratios of an area that were stored; empty where none were. One whose way is gone counts as fallen."""
    before = area.stored(stored)
    if not before:
        return []
    now = area.measure(rounds)
    found = [Compared(what, ratio, now.get(what, 0.0), area.margin) for what, ratio in before.items()]
    if not any(each.fell for each in found):
        return found
    again = area.measure(2 * rounds)
    best = {what: max(now.get(what, 0.0), again.get(what, 0.0)) for what in before}
    return [Compared(what, ratio, best[what], area.margin) for what, ratio in before.items()]


def report(found: Sequence[Compared]) -> list[str]:
    """The lines of the table."""
    rows = [
        [
            each.what,
            f"{each.stored:.2f}x",
            f"{each.now:.2f}x",
            f"{each.now / each.stored - 1:+.0%}",
            f"-{each.margin:.0%}",
            "FELL" if each.fell else "good",
        ]
        for each in found
    ]
    return grid(["times faster than published", "stored", "now", "change", "allowed", ""], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare everything; returns the exit code."""
    config = flags.parse(Config, argv)
    import torch

    torch.set_num_threads(1)
    stored, here, found = Stored(Path(config.results)), machine()["processor"], []
    for name in config.only:
        with torch.no_grad():
            compared = compare_area(AREAS[name], stored, config.rounds)
        if not compared:
            print(f"{name}: nothing is stored to compare with; run: python benchmarks/{name}.py")
        elif (there := stored.machine(name)["processor"]) != here:
            print(f"note: {name} was stored on {there}; ratios of {here} may differ without anything having changed")
        found += compared
    print("\n".join(report(found)))
    fallen = [each.what for each in found if each.fell]
    print(f"{len(fallen)} of {len(found)} ratios fell" + (": " + "; ".join(fallen) if fallen else ""))
    return 1 if fallen else 0


if __name__ == "__main__":
    flags.run(main)
