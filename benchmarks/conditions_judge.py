"""Judges what the recipes of benchmarks/conditions.py have made and stores what it finds as tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.conditions_recipe import FRAMES, SCALES, SIZES, ConditionsConfig, stages
from benchmarks.lanes import Ledger, Step, typed
from benchmarks.tables import store
from tats import checkpoint
from tats.data.shapes import SOUND_RATE, Reflection
from tats.media import read_frames
from tats.metrics.counts import Count
from tats.metrics.oracle import judge, judge_many, look, summary
from tats.metrics.oracle_sound import Click, clicks_heard, clicks_of, compare, total, turns_seen
from tats.metrics.oracle_text import as_said, read_caption, said_counts
from tats.metrics.spread import spread
from tats.sound import read_sound
from tats.video import from_frames, to_frames
from tats.vqgan.model import VQGAN

COMMAND = "python benchmarks/conditions.py --only {}"
TOGETHER = 60  # clips that go through the VQGAN at once
FPS = 16
REAL, AGAIN = "test videos", "the same through the VQGAN"
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class World:
    """The test videos: frames uint8 [N, T, H, W, 3], the same through the VQGAN, their names and their truth."""

    frames: Frames
    again: Frames
    names: list[str]
    truth: list[dict[str, Any]]
    vqgan: VQGAN

    @property
    def clicks(self) -> list[list[Click]]:
        """What the sound of each video has by its truth."""
        return [clicks_of(Reflection(**each) for each in one["reflections"]) for one in self.truth]


@torch.inference_mode()
def world(config: ConditionsConfig) -> World:
    """Read the test videos and reconstruct them."""
    folder = Path(config.out) / "data" / "test"
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    vqgan = checkpoint.load_vqgan(config.vqgan)
    frames = np.stack([read_frames(folder / name) for name in truth])
    parts = torch.from_numpy(frames).split(TOGETHER)
    again = torch.cat([to_frames(vqgan.decode(vqgan.encode(from_frames(part)))) for part in parts])
    return World(frames, again.numpy(), list(truth), list(truth.values()), vqgan)


@torch.inference_mode()
def made(config: ConditionsConfig, vqgan: VQGAN, name: str) -> tuple[Frames, list[dict[str, Any]]]:
    """What a sampler has made: frames uint8 [N, T, H, W, 3], and the entries of its manifest."""
    folder = Path(config.out) / name
    with np.load(folder / "codes.npz", allow_pickle=False) as file:
        codes = torch.from_numpy(file["codes"]).long()
    frames = torch.cat([to_frames(vqgan.decode(part)) for part in codes.split(TOGETHER)])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return frames.numpy(), manifest["videos"]


def bits(config: ConditionsConfig, name: str) -> list[float]:
    """Bits per code of a model behind the true conditions and behind those of other videos."""
    result = json.loads((Path(config.out) / f"{name}_nll" / "nll.json").read_text(encoding="utf-8"))
    return [float(result["bits_per_code"]), float(result["shuffled"]["bits_per_code"])]


Row = dict[str, Any]
"""A row of a table: column -> `Count`, number, or None where it does not apply."""


def text_rows(config: ConditionsConfig, seen: World) -> dict[str, Row]:
    """Does a video show what its sentence says?"""
    captions = [one["caption"] for one in seen.truth]
    found = {REAL: _said(seen.frames, captions), AGAIN: _said(seen.again, captions)}
    models = [("text", scale, f"guidance {scale:g}") for scale in SCALES["text"]]
    for model, scale, title in (*models, ("control", 1.0, "trained on the captions of other videos")):
        frames, entries = made(config, seen.vqgan, f"{model}_{scale:g}")
        found[title] = _said(frames, [entry["text"] for entry in entries])
    found["guidance 1"] |= _bits(config, "text")
    return found


def _said(frames: Frames, captions: Sequence[str]) -> Row:
    judged = [as_said(judge(video), read_caption(caption)) for video, caption in zip(frames, captions, strict=True)]
    return dict(said_counts(judged))


def sound_rows(config: ConditionsConfig, seen: World) -> dict[str, Row]:
    """Does a video turn where its sound clicks, and is the sound in its file?"""
    folder = Path(config.out)
    files = [folder / "data" / "test" / name for name in seen.names]
    rows = {
        REAL: _turned(seen.frames, seen.clicks) | {"heard": _heard(files, seen.clicks)},
        AGAIN: _turned(seen.again, seen.clicks),
    }
    for scale in SCALES["sound"]:
        name = f"sound_{scale:g}"
        frames, entries = made(config, seen.vqgan, name)
        clicks = [seen.clicks[seen.names.index(entry["sound"]["file"])] for entry in entries]
        written = [folder / name / entry["file"] for entry in entries]
        rows[f"guidance {scale:g}"] = _turned(frames, clicks) | {"heard": _heard(written, clicks)}
        rows[f"guidance {scale:g}, sounds of other videos"] = _turned(frames, clicks[1:] + clicks[:1])
    rows["guidance 1"] |= _bits(config, "sound")
    return rows


def _turned(frames: Frames, clicks: Sequence[Sequence[Click]]) -> Row:
    held = [
        compare(heard, turns_seen(look(video).position), FRAMES) for video, heard in zip(frames, clicks, strict=True)
    ]
    both = total(held)
    return {"answered": both.answered, "turns_without": both.turns_without}


def _heard(files: Sequence[Path], clicks: Sequence[Sequence[Click]]) -> Count:
    """Files whose sound has the clicks that it should have, and no others."""
    found = [
        clicks_heard(read_sound(path, SOUND_RATE), SOUND_RATE, FPS) == list(own) for path, own in zip(files, clicks)
    ]
    return Count(sum(found), len(found))


def label_rows(config: ConditionsConfig, seen: World) -> dict[str, Row]:
    """Do videos show their class, and are they as different from each other as those of the data?"""
    drawn = json.loads((Path(config.out) / "data" / "train" / "truth.json").read_text(encoding="utf-8")).values()
    names = [one["label"] for one in seen.truth]
    judged = {REAL: judge_many(seen.frames, names), AGAIN: judge_many(seen.again, names)}
    for scale in SCALES["label"]:
        frames, entries = made(config, seen.vqgan, f"label_{scale:g}")
        judged[f"guidance {scale:g}"] = judge_many(frames, [entry["class"] for entry in entries])
    apart = spread(judged, [(one["start"], one["velocity"]) for one in drawn])
    rows: dict[str, Row] = {}
    for who, judgements in judged.items():
        counts = summary(judgements)
        rows[who] = {name: counts[name] for name in ("right_object", "valid")}
        rows[who] |= {name: distances.get(who) for name, distances in apart.items()}
    rows["guidance 1"] |= _bits(config, "label")
    return rows


def _bits(config: ConditionsConfig, name: str) -> Row:
    true, others = bits(config, name)
    return {"bits": true, "bits_others": others}


BITS = {"bits": "bits per code", "bits_others": "behind the condition of another video"}
TABLES: dict[str, dict[str, str]] = {
    "text": {"colour": "colour", "shape": "shape", "speed": "speed", "direction": "direction",
             "everything": "all four", **BITS},
    "sound": {"answered": "clicks with a turn", "turns_without": "turns without a click",
              "heard": "clicks heard in the file", **BITS},
    "label": {"right_object": "right object", "valid": "valid", "direction": "spread of directions",
              "speed": "of speeds", "place": "of places", **BITS},
}  # fmt: skip
ROWS = {"text": text_rows, "sound": sound_rows, "label": label_rows}
NOTES = {
    "text": "{videos} videos each, from the sentences of the test videos, seeds 0 to {last}; brackets are 95 % Wilson "
    "intervals",
    "sound": "{videos} videos each, from the sounds of the test videos; a click is answered by a turn at most 2 frames "
    "away, at the wall that it names; brackets are 95 % Wilson intervals",
    "label": "{videos} videos each, 20 of every class, seeds 0 to {last}; brackets are 95 % Wilson intervals; spread: "
    "total variation distance to the training videos, of what has the right object (0: the same shares)",
}


def judge_and_store(config: ConditionsConfig, ledger: Ledger) -> None:
    """Judge the recipes that are asked for; write <out>/<recipe>.json, and the tables of the full size."""
    torch.set_grad_enabled(False)
    seen = world(config)
    for recipe in config.recipes:
        columns, rows = TABLES[recipe], ROWS[recipe](config, seen)
        minutes = sum(ledger.minutes(stages(config, recipe)))
        result = {
            "columns": list(columns.values()),
            "rows": [[who, *(plain(row.get(name)) for name in columns)] for who, row in rows.items()],
            "minutes": round(minutes, 1),
            "commands": [typed(step) for step in of_recipe(config, recipe)],
        }
        target = Path(config.out) / f"{recipe}.json"
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for who, row in rows.items():
            print(f"{recipe} | {who} |", ", ".join(f"{columns[key]} {row[key]}" for key in columns if key in row))
        if config.size == "full":
            videos = SIZES[config.size].videos
            note = NOTES[recipe].format(videos=videos, last=videos - 1)
            note += f". Data, codes, training, sampling and bits took {minutes:.1f} minutes"
            cells = [
                [cell if not isinstance(cell, list) else str(Count(*cell)) for cell in row] for row in result["rows"]
            ]
            store(f"conditions_{recipe}", ["", *columns.values()], cells, command=COMMAND.format(recipe), note=note,
                  details=result)  # fmt: skip


def plain(value: Any) -> Any:
    """A cell as JSON: a count as [hits, of how many]."""
    return [value.hits, value.total] if isinstance(value, Count) else value


def of_recipe(config: ConditionsConfig, recipe: str) -> list[Step]:
    """The steps of one recipe."""
    return [step for stage in stages(config, recipe) for lane in stage for step in lane]
