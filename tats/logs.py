"""What a training run writes down: metrics.csv and TensorBoard events, both going on where a resumed run begins.

A checkpoint holds how far the log had come (`position`). A run that goes on from it cuts off what came after, and
writes it again: no step stands twice in the log, and none is missing.
"""

import contextlib
import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyExperiment, rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tats.launched import say

EVENTS = "events.out.tfevents.*"


class MetricsTable(Logger):
    """metrics.csv: a row per logged step; columns appear as values do, `step` and `epoch` first.

    `keep`: how many of the rows that are there stay; None: all. `flush_every`: steps between two writes. Rows that
    can't be written, on a full disk, wait in memory and are tried again.
    """

    def __init__(self, folder: Path, keep: int | None = None, flush_every: int = 100):
        super().__init__()
        self.folder, self.keep, self.flush_every = folder, keep, flush_every
        self.columns = ["step", "epoch"]
        self.waiting: list[dict[str, Any]] = []
        self.begun, self.told = False, False
        self.rows, self.written = 0, 0  # rows in the file, and the step of the last one

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "metrics.csv"

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Settings are kept in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.waiting.append({"step": step or 0, **{name: float(value) for name, value in metrics.items()}})
        if self.waiting[-1]["step"] - self.written >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows that wait; the file is made anew only when it gets new columns."""
        try:
            self._save()
        except OSError as error:
            if not self.told:
                say(f"can't write {self.path}: {error.strerror}; its rows wait, and training goes on")
            self.told = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.waiting:
            self.save()

    def _save(self) -> None:
        if not self.begun:
            self._begin()
        new = [name for row in self.waiting for name in row if name not in self.columns]
        if new or not self.path.exists():
            columns = [*self.columns, *dict.fromkeys(new)]
            self._write(columns, [*self._read(), *self.waiting])
            self.columns = columns
        elif self.waiting:
            self._append()
        self.rows += len(self.waiting)
        self.written = self.waiting[-1]["step"] if self.waiting else self.written
        self.waiting = []

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        kept = rows if self.keep is None else rows[: self.keep]
        if rows:
            self.columns = list(rows[0])
            self._write(self.columns, kept)
        self.rows, self.written, self.begun = len(kept), int(kept[-1]["step"]) if kept else 0, True

    def _append(self) -> None:
        """Adds the rows that wait; takes a part of them back that a full disk left."""
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerows(self.waiting)
        except OSError:
            os.truncate(self.path, size)
            raise

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]

    def _write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        partial = self.path.with_suffix(".partial")
        try:
            with partial.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(rows)
            os.replace(partial, self.path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


class Events(TensorBoardLogger):
    """TensorBoard events, one file per start of the program. `keep`: bytes that stay of each file that is there, and
    files that it does not name go; None: all stay. On a full disk the events end, and training goes on."""

    def __init__(self, folder: Path, keep: Mapping[str, int] | None = None):
        super().__init__(folder.parent, name="", version=folder.name)
        self.folder, self.keep, self.ended = folder, keep, False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """TensorBoard's writer, or one that does nothing."""
        if self.ended:
            return DummyExperiment()
        if self.keep is not None:
            cut_events(self.folder, self.keep)
            self.keep = None
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        try:
            super().log_metrics(dict(metrics), step)
        except OSError as error:
            self.end(error)

    @rank_zero_only
    def save(self) -> None:
        try:
            super().save()
            self.experiment.flush()
        except OSError as error:
            self.end(error)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            super().finalize(status)
        except OSError as error:
            self.end(error)

    def end(self, error: OSError) -> None:
        """Write no more events, because of an error."""
        if not self.ended:
            say(f"can't write TensorBoard's events in {self.folder}: {error.strerror}; training goes on without them")
        self.ended = True


def cut_events(folder: Path, keep: Mapping[str, int]) -> None:
    """Leave of every file of events as many bytes as `keep` says by its name, and none of the others."""
    for path in folder.glob(EVENTS):
        if path.name not in keep:
            path.unlink()
        elif path.stat().st_size > keep[path.name]:
            os.truncate(path, keep[path.name])


def position(folder: Path, loggers: list[Logger]) -> dict[str, Any] | None:
    """How far the log in `folder` has come, all of it on disk: rows of the table and bytes of every file of events.
    None without a log."""
    for logger in loggers:
        logger.save()
    table = next((logger for logger in loggers if isinstance(logger, MetricsTable)), None)
    if table is None:
        return None
    paths = sorted(folder.glob(EVENTS))
    with contextlib.suppress(OSError):  # a disk that fails now fails the checkpoint next, which says so
        for path in (*paths, *([table.path] if table.path.exists() else [])):
            with path.open("rb") as file:
                os.fsync(file.fileno())
    return {"rows": table.rows, "events": {path.name: path.stat().st_size for path in paths}}


def build_loggers(folder: Path, log: Mapping[str, Any] | None, flush_every: int) -> list[Logger]:
    """TensorBoard events and the table, in `folder`; both forget what came after the position `log` (None: nothing)."""
    known = log or {}
    return [Events(folder, known.get("events")), MetricsTable(folder, known.get("rows"), flush_every)]
