"""What samplers write below --save: codes as they come, a manifest, and the names of videos and arrays.

    codes.npz        codes int32 [N, t, h, w], seeds, labels (-1: none), index (which video of the run), in order
    codes_00012.npz  the same for a batch, while a run is under way
    manifest.json    flags, checkpoints, versions; one entry per video; scores

A run that is called again finds what is there and makes the rest; other settings in the same folder are refused.
"""

import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tats.flags import UserError

FORMAT = 1


@dataclass(frozen=True)
class Video:
    """One video of a run: which it is, its seed, its class (None without) and the name of that."""

    index: int
    seed: int
    label: int | None = None
    name: str | None = None


class Store:
    """The codes of a run, on disk after every batch.

    folder: --save. settings: plain values that the codes depend on; they must agree with those of what is there. about:
    more plain values for the manifest (all flags, versions).
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], about: Mapping[str, Any]):
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(dict(settings)))  # as they come back from the file
        self.about = dict(about)
        self.videos: dict[int, Video] = {}
        self.codes: dict[int, np.ndarray] = {}
        self.scores: dict[str, Any] | None = None  # of an earlier call
        self.scored = 0  # how many videos they are of
        self._compare()
        for path in sorted(self.folder.glob("codes*.npz")):
            self._read(path)

    def missing(self, wanted: Sequence[Video]) -> list[Video]:
        """Those of a run that are not there yet."""
        return [video for video in wanted if video.index not in self.codes]

    def add(self, videos: Sequence[Video], codes: np.ndarray) -> None:
        """Keep the codes [B, t, h, w] of some videos; they are on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "manifest.json").exists():
            self.write_manifest([])
        for video, each in zip(videos, codes.astype(np.int32)):
            self.videos[video.index], self.codes[video.index] = video, each
        self._write(self.folder / f"codes_{videos[0].index:05d}.npz", [video.index for video in videos])

    def finish(self, wanted: Sequence[Video], scores: Mapping[str, Any] | None = None, **named: Any) -> None:
        """One file of codes instead of one per batch, and the manifest with an entry per video.

        named: more for the entries, each a function of the video (its file, say). Without new scores those of an
        earlier call stay, as long as they are of these very videos.
        """
        shards = sorted(self.folder.glob("codes_*.npz"))
        if shards:
            self._write(self.folder / "codes.npz", sorted(self.codes))
            for path in shards:
                path.unlink()
        entries = []
        for video in wanted:
            entry = {"index": video.index, "seed": video.seed, "label": video.label, "class": video.name}
            entries.append(entry | {name: of(video) for name, of in named.items()})
        self.write_manifest(entries, self.scores if scores is None and self.scored == len(entries) else scores)

    def write_manifest(self, entries: list[dict], scores: Mapping[str, Any] | None = None) -> None:
        """Write manifest.json, whole or not at all."""
        about = {"format": FORMAT, "settings": self.settings, **self.about, "videos": entries}
        if scores is not None:
            about["scores"] = dict(scores)
        part = self.folder / "manifest.json.part"
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.folder / "manifest.json")

    def _compare(self) -> None:
        """Refuse a folder whose videos were made in another way."""
        path = self.folder / "manifest.json"
        if not path.exists():
            if any(self.folder.glob("codes*.npz")):
                raise UserError(f"{self.folder} holds codes without a manifest.json: give another --save")
            return
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            before, self.scores, self.scored = manifest["settings"], manifest.get("scores"), len(manifest["videos"])
        except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
            raise UserError(f"{path} is damaged: delete it with the codes beside it, or give another --save") from None
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

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = zip(file["index"].tolist(), file["seeds"].tolist(), file["labels"].tolist(), file["codes"])
                for index, seed, label, codes in rows:
                    self.videos[index] = Video(index, seed, label if label >= 0 else None)
                    self.codes[index] = codes
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            raise UserError(f"{path} is damaged: delete it, and what it held is made again") from None

    def _write(self, path: Path, indices: Sequence[int]) -> None:
        part = path.with_suffix(".part")
        labels = [self.videos[i].label for i in indices]
        with part.open("wb") as file:
            np.savez(
                file,
                codes=np.stack([self.codes[i] for i in indices]),
                seeds=np.array([self.videos[i].seed for i in indices], np.int64),
                labels=np.array([-1 if label is None else label for label in labels], np.int64),
                index=np.array(indices, np.int64),
            )
        os.replace(part, path)


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


def video_name(video: Video) -> str:
    """The published name of a video, with the suffix of ours."""
    between = "" if video.name is None else f"{video.name}_"
    return f"generation_{between}{video.index}.mp4"


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
