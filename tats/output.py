"""What samplers write below --save: codes as they come, a manifest, and the names of videos and arrays.

    codes.npz              codes int32 [N, t, h, w], seeds, labels (-1: none), index (which video of the run), in order
    codes_00012.npz        the same for a batch, while a run is under way; of a run with videos of several lengths, for
                           each length
    codes_00012.journal    the codes of a batch of long videos while they are made (`tats.codes_file`)
    manifest.json          flags, checkpoints, versions; one entry per video; scores; steps of the model (decoding)

A run that is called again finds what is there and makes the rest; other settings in the same folder are refused.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tats.codes_file import Journal, Row, Video, read_codes, write_codes
from tats.flags import UserError
from tats.gpt.steps import Steps
from tats.launched import launched
from tats.plain import read_json

FORMAT = 1


class Codes(Mapping[int, np.ndarray]):
    """The codes int32 [t, h, w] of videos, by the index of the video, read from their files when they are asked for."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[index].read()

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Store:
    """The codes of a run, on disk after every batch; those of long videos after every latent frame.

    folder: --save. settings: plain values that the codes depend on; they must agree with those of what is there. about:
    more plain values for the manifest (all flags, versions). entries: more for the manifest's entry of each video, by
    name: functions of the video.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        about: Mapping[str, Any],
        entries: Mapping[str, Callable[[Video], Any]] | None = None,
    ):
        self.folder, self.entries = Path(folder), dict(entries or {})
        self.settings = json.loads(json.dumps(dict(settings)))  # as they come back from the file
        self.about = dict(about)
        self.videos: dict[int, Video] = {}
        self.codes = Codes()
        self.scores: dict[str, Any] | None = None  # of an earlier call
        self.scored = 0  # how many videos they are of
        self.steps = Steps()  # of the model, of this call
        self.decoding: dict[str, Any] | None = None  # what they were in the call that made the last codes
        self.locks: list[TextIO] = []  # that this process holds while several share the run (`tats.shared_work`)
        self.manifest_at = 0  # when the manifest was written that was there at first
        self._compare()
        self.refresh()

    def refresh(self) -> None:
        """See what is there, also of other processes that write into the same folder."""
        self.codes.rows.clear()
        for path in sorted(self.folder.glob("codes*.npz")):
            try:
                self._add_rows(read_codes(path))
            except UserError:
                if path.exists():
                    raise
                self.refresh()  # another process has just put it into codes.npz
                return

    def missing(self, wanted: Sequence[Video]) -> list[Video]:
        """Those of a run that are not there yet."""
        return [video for video in wanted if video.index not in self.codes]

    def add(self, videos: Sequence[Video], codes: np.ndarray) -> None:
        """Keep the codes [B, t, h, w] of some videos; they are on disk when this returns."""
        with self.begin(videos, (codes.shape[2], codes.shape[3])) as journal:
            for frame in codes.swapaxes(0, 1):
                journal.append(frame)
        self.settle(journal)

    def begin(self, videos: Sequence[Video], shape: tuple[int, int]) -> Journal:
        """The journal of a new batch, with latent frames of `shape` (rows, columns)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "manifest.json").exists():
            self.write_manifest([])
        return Journal.create(self.folder / f"codes_{videos[0].index:05d}.journal", videos, shape)

    def begun(self) -> list[Path]:
        """The journals of batches that were not finished, in order."""
        return sorted(self.folder.glob("codes_*.journal"))

    def settle(self, journal: Journal) -> None:
        """A batch is complete: its codes become a file like the others."""
        path = journal.path.with_suffix(".npz")
        write_codes(path, journal.videos, journal.rows(), self.settings.get("schedule"))
        self._add_rows(read_codes(path))
        journal.path.unlink()

    def finish(self, wanted: Sequence[Video], scores: Mapping[str, Any] | None = None, **named: Any) -> None:
        """One file of codes instead of one per batch, and the manifest with an entry per video.

        named: more for the entries, as `entries` (its file, say). Without new scores those of an
        earlier call stay, as long as they are of these very videos.
        """
        if shards := sorted(self.folder.glob("codes_*.npz")):
            kept = self._merge()
            for path in [*shards, *self.begun()]:
                if path not in kept:
                    path.unlink()
        entries = []
        for video in wanted:
            entry = {"index": video.index, "seed": video.seed, "label": video.label, "class": video.name}
            entries.append(entry | {name: of(video) for name, of in {**self.entries, **named}.items()})
        self.write_manifest(entries, self.scores if scores is None and self.scored == len(entries) else scores)

    def _merge(self) -> list[Path]:
        """Write one file of codes; where videos are of several lengths, one per length, named after its first video."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index in sorted(self.codes):
            by_shape.setdefault(self.codes.rows[index].shape, []).append(index)
        kept = []
        for order in by_shape.values():
            path = self.folder / (f"codes_{order[0]:05d}.npz" if len(by_shape) > 1 else "codes.npz")
            rows = [self.codes.rows[index] for index in order]
            write_codes(path, [self.videos[index] for index in order], rows, self.settings.get("schedule"))
            self._add_rows(read_codes(path))
            kept.append(path)
        return kept

    def write_manifest(self, entries: list[dict], scores: Mapping[str, Any] | None = None) -> None:
        """Write manifest.json, whole or not at all."""
        about = {"format": FORMAT, "settings": self.settings, **self.about, "videos": entries}
        if self.steps.codes:
            self.decoding = {"way": self.settings.get("decode"), **self.steps.summary}
        if self.decoding is not None:
            about["decoding"] = self.decoding
        if scores is not None:
            about["scores"] = dict(scores)
        part = self.folder / f"manifest.json.part{launched().rank or ''}"
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.folder / "manifest.json")

    def _compare(self) -> None:
        """Refuse a folder whose videos were made in another way."""
        path = self.folder / "manifest.json"
        codes = any(self.folder.glob("codes*.npz")) or self.begun()  # before the manifest, which others write first
        if not path.exists():
            if codes:
                raise UserError(f"{self.folder} holds codes without a manifest.json: give another --save")
            return
        self.manifest_at = path.stat().st_mtime_ns
        try:
            manifest = read_json(path)
            before, self.scores, self.scored = manifest["settings"], manifest.get("scores"), len(manifest["videos"])
            self.decoding = manifest.get("decoding")
            if not isinstance(before, dict):
                raise TypeError("settings are names with values")
        except (UserError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged: delete it with the codes beside it, or give another --save") from None
        once = {"cfg_scale": 1.0, "decode": "raster"}  # what runs did before there was a choice
        before = {name: value for name, value in once.items() if name in self.settings} | before
        changed = [
            f"{name} {before.get(name)!r} then, {self.settings.get(name)!r} now"
            for name in sorted({*before, *self.settings})
            if before.get(name) != self.settings.get(name)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds videos made with other settings ({'; '.join(changed)}): "
                f"give another --save, or the settings of before"
            )

    def _add_rows(self, found: Mapping[int, tuple[Video, Row]]) -> None:
        for index, (video, row) in found.items():
            self.videos[index], self.codes.rows[index] = video, row


def spread(n: int, first_seed: int, labels: Sequence[int] | None, names: Sequence[str] | None = None) -> list[Video]:
    """`n` videos with seeds that count on, and classes by turns: each has as many as the others, or one more."""
    videos = []
    for index in range(n):
        label = None if labels is None else labels[index % len(labels)]
        name = None if label is None else names[label] if names else str(label)
        videos.append(Video(index, first_seed + index, label, name))
    return videos


def run_name(top_k: int | None, top_p: float | None, run: int, prefix: str = "") -> str:
    """The published name of a run: `topp0.92_topk2048_run0`."""
    return f"{prefix}topp{1.0 if top_p is None else top_p:.2f}_topk{top_k or 0}_run{run}"


def video_name(video: Video, kind: str = "generation") -> str:
    """The published name of a video, without suffix. kind: what it is, `generation`, `groundtruth` or `source`."""
    between = "" if video.name is None else f"{video.name}_".replace("/", "_")
    return f"{kind}_{between}{video.index}"


def versions() -> dict[str, str]:
    """What made it: the versions of this package and of what the numbers depend on."""
    import torch

    import tats

    return {
        "tats": tats.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
