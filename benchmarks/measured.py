"""Numbers in the stored results, found for those who compare: the goals, and the check for regressions.

Every reader takes `Stored` and returns what it found there, or None where that was not measured.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A measurement: the number that a goal is compared with, and what a table shows beside it."""

    value: float
    published: str | None = None  # what the published way takes, with its unit
    ours: str | None = None
    times_faster: float | None = None
    share: float | None = None  # of the floor: 1 is as fast as memory or arithmetic allows


class Stored:
    """The stored results, each read when it is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, Result] = {}

    def result(self, name: str) -> Result:
        """A stored result; empty where a benchmark has stored nothing."""
        if name not in self._read:
            path = self.folder / f"{name}.json"
            self._read[name] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return self._read[name]

    def details(self, name: str) -> Result:
        """Everything that a benchmark has stored beside its table; empty where it has stored nothing."""
        found: Result = self.result(name).get("details", {})
        return found

    def machine(self, name: str) -> Result:
        """What it was measured on."""
        found: Result = self.result(name).get("machine", {})
        return found

    def row(self, name: str, key: str, **fields: Any) -> Result | None:
        """The first entry of a list of records that has these values."""
        return first(self.details(name).get(key, ()), **fields)

    def gpu(self, **fields: Any) -> Result | None:
        """The first row of the kernels' results on any GPU that has these values."""
        for path in sorted(self.folder.glob("gpu_*.json")):
            if (row := first(self.details(path.stem).get("goals", ()), **fields)) is not None:
                return row
        return None


def first(rows: Iterable[Result], **fields: Any) -> Result | None:
    """The first record with these values."""
    return next((row for row in rows if all(row.get(name) == value for name, value in fields.items())), None)


Measure = Callable[[Stored], Found | None]


def number(value: float, unit: str) -> str:
    """A number with its unit, three digits of it."""
    if unit == "%":
        return f"{value:.0%}"
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}x" if unit == "x" else f"{digits} {unit}".strip()


def seconds(value: float) -> str:
    """Seconds in the unit that reads best."""
    return number(value, "s") if value >= 1 else number(value * 1000, "ms")


def pair(published: float, ours: float, ratio: float | None = None, share: float | None = None) -> Found:
    """Two times in seconds and how many times faster ours is."""
    ratio = published / ours if ratio is None else ratio
    return Found(ratio, seconds(published), seconds(ours), round(ratio, 2), share)


def step(ways: tuple[str, ...], batch: int, model: str = "default", position: int = 960) -> Measure:
    """One code by the fastest of these ways of the engine."""

    def measure(stored: Stored) -> Found | None:
        row = stored.row("sampling", "steps", model=model, batch=batch, position=position)
        known = [way for way in ways if row is not None and way in row["seconds"]]
        if row is None or not known:
            return None
        way = max(known, key=lambda way: row["seconds"][way]["times_faster"])
        ours, theirs = row["seconds"][way], row["seconds"]["published"]
        return pair(theirs["median"], ours["median"], ours["times_faster"], ours.get("share_of_floor"))

    return measure


def near_floor(ways: tuple[str, ...], batch: int) -> Measure:
    """The share of the floor that one code of these ways reaches."""

    def measure(stored: Stored) -> Found | None:
        found = step(ways, batch)(stored)
        return None if found is None or found.share is None else Found(found.share)

    return measure


def growth(ways: tuple[str, ...]) -> Measure:
    """How much longer a step takes at the end of a window than at its beginning, one video."""

    def measure(stored: Stored) -> Found | None:
        rows = [stored.row("sampling", "steps", model="default", batch=1, position=at) for at in (960, 1)]
        found = [
            late["seconds"][way]["median"] / early["seconds"][way]["median"]
            for late, early in [rows]
            if late is not None and early is not None
            for way in ways
            if way in late["seconds"] and way in early["seconds"]
        ]
        return Found(min(found)) if found else None

    return measure


def window(ways: tuple[str, ...], batch: int) -> Measure:
    """One latent frame of a sliding window by the fastest of these ways."""

    def measure(stored: Stored) -> Found | None:
        row = stored.row("sampling_window", "windows", batch=batch)
        known = [row["seconds"][way] for way in ways if row is not None and way in row["seconds"]]
        if row is None or not known:
            return None
        ours = max(known, key=lambda times: times["times_faster"])
        return pair(row["seconds"]["published"]["window"], ours["window"], ours["times_faster"])

    return measure


def codebook(stored: Stored) -> Found | None:
    """A training step of the codebook at its largest size."""
    row = stored.row("codebook", "results", vectors=16384)
    if row is None:
        return None
    times = row["seconds"]
    return pair(times["published"]["median"], times["ours"]["median"], row["ratio_of_medians"])


def codebook_memory(stored: Stored) -> Found | None:
    """Its peak of memory above the inputs."""
    row = stored.row("codebook", "results", vectors=16384)
    if row is None:
        return None
    peaks = row["peak_mib"]
    ratio = round(peaks["published"] / peaks["ours"], 1)
    return Found(peaks["ours"], number(peaks["published"], "MiB"), number(peaks["ours"], "MiB"), ratio)


def record(name: str, key: str, **fields: Any) -> Measure:
    """A record with `published` and `ours` in seconds, `times_faster`, and perhaps `share_of_floor`."""

    def measure(stored: Stored) -> Found | None:
        row = stored.row(name, key, **fields)
        if row is None:
            return None
        return pair(row["published"], row["ours"], row["times_faster"], row.get("share_of_floor"))

    return measure


def value_of(name: str, key: str, field: str, **fields: Any) -> Measure:
    """One number of a record."""

    def measure(stored: Stored) -> Found | None:
        row = stored.row(name, key, **fields)
        return None if row is None or row.get(field) is None else Found(float(row[field]))

    return measure


def streamed(field: str) -> Measure:
    """The worse of both VQGANs when a long video is decoded piece by piece."""

    def measure(stored: Stored) -> Found | None:
        rows = [row for row in stored.details("stream").get("results", ()) if row["way"] == "decode"]
        return Found(max(row[field] for row in rows)) if rows else None

    return measure


def flatness(stored: Stored) -> Found | None:
    """Memory of decoding the longest video piece by piece, as a multiple of that of the shortest."""
    peaks = stored.details("stream_memory").get("mib", {}).get("decode_stream", {})
    by_length = sorted((int(length), mib) for length, mib in peaks.items())
    return Found(by_length[-1][1] / by_length[0][1]) if len(by_length) > 1 else None


def rate(ours: str, published: str | None = None) -> Measure:
    """Clips per processor second."""

    def measure(stored: Stored) -> Found | None:
        rates = stored.details("loader").get("rates", {})
        if ours not in rates:
            return None
        middle = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
        told = number(middle[ours], "clips/s")
        if published not in middle:
            return Found(middle[ours], None, told)
        ratio = round(middle[ours] / middle[published], 2)
        return Found(middle[ours], number(middle[published], "clips/s"), told, ratio)

    return measure


def clip(stored: Stored) -> Found | None:
    """Seconds from command to file for a short clip, in the fastest format."""
    runs = stored.details("clip").get("runs", {})
    walls = {way: sorted(one["wall"] for one in found)[len(found) // 2] for way, found in runs.items()}
    ours = [wall for way, wall in walls.items() if way.startswith("short ") and way != "short published"]
    if not ours or "short published" not in walls:
        return None
    theirs = walls["short published"]
    return Found(min(ours), seconds(theirs), seconds(min(ours)), round(theirs / min(ours), 2))


def on_gpu(name: str, field: str = "value") -> Measure:
    """What `make bench-gpu` has stored for a goal."""

    def measure(stored: Stored) -> Found | None:
        row = stored.gpu(goal=name)
        return None if row is None or row.get(field) is None else Found(float(row[field]))

    return measure
