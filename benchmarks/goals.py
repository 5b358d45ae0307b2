"""What the speed of this project is measured against, and the tables that say how near it is.

`GOALS` are numbers: `least` is what first attempts reached (less is a regression), `goal` what is aimed at. Each knows
where its measurement stands in `benchmarks/results/`. From them `python benchmarks/tables.py` makes two tables:
`speed_summary` for the README, `speed_goals` for docs/speed.md. A goal whose result is not stored is not measured.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measured import (
    Measure,
    Stored,
    clip,
    codebook,
    codebook_memory,
    flatness,
    growth,
    near_floor,
    number,
    on_gpu,
    rate,
    record,
    step,
    streamed,
    value_of,
    window,
)

HALF = ("fp16", "bf16")
EIGHT = ("int8", "int8, 8-bit cache")


@dataclass(frozen=True)
class Goal:
    """One number that is aimed at."""

    name: str
    what: str
    goal: float | None  # None: measured, but nothing is aimed at
    measure: Measure
    least: float | None = None
    unit: str = "x"
    less: bool = False  # less is better
    shown: bool = False  # in the README's table

    def reached(self, value: float) -> bool:
        """Whether a measurement is as good as the goal; without a goal, always."""
        if self.goal is None:
            return True
        return value <= self.goal if self.less else value >= self.goal

    def verdict(self, value: float | None) -> str | None:
        """In words: reached, or by how much it is missed, in per cent of the goal."""
        if value is None:
            return "not measured"
        if self.goal is None:
            return None
        if self.reached(value):
            return "reached"
        far = abs(value - self.goal) / (self.goal or 1.0)
        worse = self.least is not None and (value > self.least if self.less else value < self.least)
        return f"missed by {far:.0%}" + (", less than first attempts" if worse else "")

    def aim(self) -> str | None:
        """The goal in words."""
        return None if self.goal is None else f"at {'most' if self.less else 'least'} {self.told(self.goal)}"

    def told(self, value: float | None) -> str | None:
        """A number of this goal with its unit."""
        return None if value is None else number(value, self.unit)


GOALS = (
    Goal("C1", "one code, float32, 1 video", 2.3, step(("fp32",), 1), 2.0, shown=True),
    Goal("C1", "one code, float32, 4 videos", 6.0, step(("fp32",), 4), 5.2, shown=True),
    Goal("C2", "one code, 16 bits, 1 video", 6.0, step(HALF, 1), 5.5, shown=True),
    Goal("C2", "one code, 16 bits, 4 videos", 9.0, step(HALF, 4), 7.6, shown=True),
    Goal("C2", "one code, 16 bits, 1 video: share of the floor", 0.85, near_floor(HALF, 1), unit="%"),
    Goal("C2", "one code, 16 bits, 4 videos: share of the floor", 0.85, near_floor(HALF, 4), unit="%"),
    Goal("C3", "one code, 8 bits, 1 video", 9.0, step(EIGHT, 1), 7.1, shown=True),
    Goal("C3", "one code, 8 bits, 4 videos", 14.0, step(EIGHT, 4), 9.5, shown=True),
    Goal("C4", "a step at position 960 over one at position 1, 16 bits, 1 video", 1.25, growth(HALF), 1.41, less=True),
    Goal("C5", "a latent frame of a sliding window, 16 bits, 1 video", 6.0, window(HALF, 1), 3.3, shown=True),
    Goal("C5", "a latent frame of a sliding window, 16 bits, 4 videos", 9.0, window(HALF, 4), 5.0, shown=True),
    Goal(
        "C6",
        "transformer, training step, float32",
        1.3,
        record("training", "transformer", way="fp32"),
        1.23,
        shown=True,
    ),
    Goal("C6", "transformer, training step, bf16", 2.6, record("training", "transformer", way="bf16"), 2.3, shown=True),
    Goal(
        "C6",
        "transformer, training step: peak memory, bf16",
        0.4,
        value_of("training", "transformer", "peak_ratio", way="bf16"),
        0.52,
        less=True,
    ),
    Goal("C7", "codebook, training step, 16384 vectors and codes", 4.0, codebook, 3.5, shown=True),
    Goal("C7", "codebook, training step: memory above the inputs", 64, codebook_memory, 80, "MiB", less=True),
    Goal("C8", "VQGAN, encode, bf16", None, record("vqgan", "ways", what="encode", way="bf16", side=128), shown=True),
    Goal(
        "C8",
        "VQGAN, decode, float32",
        1.05,
        record("vqgan", "ways", what="decode", way="fp32", side=128),
        1.0,
        shown=True,
    ),
    Goal(
        "C8", "VQGAN, decode, bf16", 2.2, record("vqgan", "ways", what="decode", way="bf16", side=128), 1.85, shown=True
    ),
    Goal(
        "C9",
        "long decode, layer by layer: time over that of decoding at once",
        1.1,
        streamed("ratio_of_medians"),
        less=True,
    ),
    Goal(
        "C9", "long decode: difference from decoding at once", 1e-6, streamed("relative_difference"), unit="", less=True
    ),
    Goal("C9", "long decode: memory of the longest video over that of the shortest", 1.25, flatness, less=True),
    Goal(
        "C10",
        "VQGAN, training step, bf16, as published",
        2.2,
        record("training_vqgan", "vqgan", way="bf16"),
        1.9,
        shown=True,
    ),
    Goal(
        "C10",
        "VQGAN, training step, bf16, one shared forward",
        2.8,
        record("training_vqgan", "vqgan", way="bf16, shared"),
        2.4,
    ),
    Goal(
        "C11",
        "clips from 320x240 mpeg4, per core",
        100,
        rate("mpeg4: ours", "mpeg4: published"),
        92,
        "clips/s",
        shown=True,
    ),
    Goal(
        "C11",
        "clips from prepared frames, per core",
        5000,
        rate("prepared frames: ours", "prepared frames: published"),
        1100,
        "clips/s",
        shown=True,
    ),
    Goal(
        "C11",
        "clips of codes, per core",
        100_000,
        rate("codes: shards", "codes: HDF5, published form"),
        15_000,
        "clips/s",
        shown=True,
    ),
    Goal(
        "C12",
        "decoding several codes at once, same distribution: times faster than 16 bits",
        2.0,
        value_of("decoding", "ways", "times_faster", way="jacobi"),
    ),
    Goal(
        "C12",
        "decoding rows as a diagonal wave, approximate: times faster than 16 bits",
        6.0,
        value_of("decoding", "ways", "times_faster", way="diagonal"),
    ),
    Goal("C13", "a short clip, from command to file", 40, clip, unit="s", less=True, shown=True),
)


GPU_GOALS = (
    Goal("G1", "one code at position 512, bf16, 1 video: share of the floor", 0.5, on_gpu("decode, bf16, 1"), unit="%"),
    Goal(
        "G1", "one code at position 512, bf16, 8 videos: share of the floor", 0.6, on_gpu("decode, bf16, 8"), unit="%"
    ),
    Goal(
        "G1",
        "one code at position 512, bf16, 64 videos: share of the floor",
        0.75,
        on_gpu("decode, bf16, 64"),
        unit="%",
    ),
    Goal("G1", "one code, 8 bits over bf16, 1 video", 1.2, on_gpu("decode, int8, 1")),
    Goal("G1", "one code, 8 bits over bf16, 8 videos", 1.3, on_gpu("decode, int8, 8")),
    Goal("G1", "one code, 8 bits over bf16, 64 videos", 1.8, on_gpu("decode, int8, 64")),
    Goal("G2", "768 known codes at once, 1 video", 1.2, on_gpu("prefill"), unit="ms", less=True),
    Goal("G3", "transformer, training: share of the matrix rate", 0.55, on_gpu("training"), unit="%"),
    Goal(
        "G4", "attention with anchors, with backward, over SDPA with a dense mask", 1.5, on_gpu("attention over SDPA")
    ),
    Goal(
        "G4", "attention with anchors, with backward, over FlexAttention", 1.0, on_gpu("attention over FlexAttention")
    ),
    Goal(
        "G5",
        "nearest code, 65536 vectors, 16384 codes of 256 numbers",
        2.5,
        on_gpu("nearest code"),
        unit="ms",
        less=True,
    ),
    Goal("G5", "nearest code: memory", 128, on_gpu("nearest code, memory"), unit="MiB", less=True),
    Goal("G6", "VQGAN, training, 16x128x128", 90, on_gpu("VQGAN training"), unit="clips/s"),
    Goal("G7", "decoding: waits for the host per code", 0, on_gpu("decode, waits"), unit="", less=True),
    Goal("G7", "decoding: bytes allocated per code after capture", 0, on_gpu("decode, allocated"), unit="", less=True),
    Goal("G8", "16 frames, 1 video", 0.3, on_gpu("16 frames"), unit="s", less=True),
    Goal("G8", "1024 frames, 1 video", 20, on_gpu("1024 frames"), unit="s", less=True),
)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str) -> str:
    """A table with a note below, as Markdown; ends with a line break."""
    from benchmarks.tables import grid

    return "\n".join([*grid(columns, rows), "", note, ""])


def summary(stored: Stored) -> str:
    """What the README shows: one line for each of the measured goals that count most."""
    rows = []
    for goal in GOALS:
        found = goal.measure(stored) if goal.shown else None
        if found is None:
            continue
        share = None if found.share is None else f"{found.share:.0%}"
        told = [found.published, found.ours, found.times_faster, share]
        rows.append([goal.what, *told, goal.aim(), goal.verdict(found.value)])
    columns = ["what", "published", "ours", "times faster", "share of the floor", "goal", ""]
    return table(
        columns,
        rows,
        "One thread and processor time on a CPU (command to file: the wall's clock); the published way is written anew "
        "in `benchmarks/` and checked against ours before anything is timed. One code: default size, at position 960 "
        "of 1024. Floor: what must be read or computed at the rates measured in the same run. How many "
        "times faster ours is also depends on how dear fresh memory is on a machine: "
        "[measuring it](docs/speed.md#measuring-it). Which command measured each line, on what machine and when: "
        "[docs/speed.md](docs/speed.md).",
    )


def progress(stored: Stored) -> str:
    """What docs/speed.md shows: every goal, what was measured, whether it is reached."""
    rows = []
    for goal in (*GOALS, *GPU_GOALS):
        found = goal.measure(stored)
        value = None if found is None else found.value
        rows.append([goal.name, goal.what, goal.told(goal.least), goal.aim(), goal.told(value), goal.verdict(value)])
    note = (
        "C: on a CPU, against the published way on the same machine; G: on one H200. First attempts: throw-away "
        "prototypes that came before this code."
    )
    return table(["", "what", "first attempts", "goal", "measured", "reached?"], rows, note)


MADE = {"speed_summary": summary, "speed_goals": progress}


def made(name: str, results: Path) -> str | None:
    """The table of that name that is made from several results; None where there is no such table."""
    return MADE[name](Stored(results)) if name in MADE else None
