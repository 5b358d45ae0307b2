"""What a training run writes down: metrics.csv and TensorBoard events, both going on where a resumed run begins."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only


class MetricsTable(Logger):
    """metrics.csv: a row per logged step; columns appear as values do, `step` and `epoch` first.

    `first_step`: the step that a resumed run begins with. Rows of it and of later steps are dropped, because they come
    again; what was tested right at that step stays. `flush_every`: steps between two writes.
    """

    def __init__(self, folder: Path, first_step: int = 0, flush_every: int = 100):
        super().__init__()
        self.folder, self.first_step, self.flush_every = folder, first_step, flush_every
        self.columns = ["step", "epoch"]
        self.waiting: list[dict[str, Any]] = []
        self.begun, self.written = False, first_step

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
        if not self.begun:
            self._begin()
        new = [name for row in self.waiting for name in row if name not in self.columns]
        if new:
            old = self._rows()
            self.columns += dict.fromkeys(new)
            self._write(old)
        elif not self.path.exists():
            self._write([])
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerows(self.waiting)
        self.written = self.waiting[-1]["step"] if self.waiting else self.written
        self.waiting = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.waiting:
            self.save()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._rows()
        if rows:
            self.columns = list(rows[0])
            self._write([row for row in rows if int(row["step"]) < self.first_step + _tested(row)])
        elif self.path.exists():
            self.path.unlink()
        self.begun = True

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self.columns)
            table.writeheader()
            table.writerows(rows)
        os.replace(partial, self.path)


def _tested(row: Mapping[str, str]) -> bool:
    return any(value for key, value in row.items() if key.startswith("val/"))


def build_loggers(folder: Path, first_step: int, flush_every: int) -> list[Logger]:
    """TensorBoard events and the table, in `folder`; both forget what they know of `first_step` and later, unless 0."""
    events = TensorBoardLogger(folder.parent, name="", version=folder.name, purge_step=first_step or None)
    return [events, MetricsTable(folder, first_step, flush_every)]
