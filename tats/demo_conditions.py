"""What `make conditions` has made, on the page of the demo: videos by sentence, and by sound with the sound."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tats.media import read_frames
from tats.metrics.counts import Count
from tats.report import Clip, Page
from tats.sound import read_sound

SHOWN = 12  # videos of each kind
FPS, RATE = 16, 16000  # as they were made: a sound plays at its own speed only
ABOUT = {
    "text": "By sentence: nothing but the sentence below each video was given. Spread evenly over all, none picked.",
    "sound": "By sound: nothing but the clicks were given, 880 Hz for the left and right wall, 440 Hz for the top and "
    "bottom one. The button below a video turns its sound on.",
    "label": "By class, with guidance",
}


def show_conditions(page: Page, folder: Path) -> None:
    """A section with the recipes that have run in `folder`, or with the command that runs them."""
    page.section("Sentences and sounds")
    found = {name: folder / f"{name}.json" for name in ABOUT if (folder / f"{name}.json").is_file()}
    if not found:
        page.text(
            "Transformers on the same VQGAN take sentences and sounds as well. `make conditions` trains and judges "
            "them (about an hour on 2 cores); call `make demo` again afterwards, and their videos stand here."
        )
    for name, path in found.items():
        result = json.loads(path.read_text(encoding="utf-8"))
        if name in SHOWS:
            page.text(ABOUT[name])
            page.videos(SHOWS[name](folder))
        rows = [[cell if not isinstance(cell, list) else Count(*cell) for cell in row] for row in result["rows"]]
        page.table(["", *result["columns"]], rows, f"{ABOUT[name].split(':')[0]}: what the judge says")


def by_sentence(folder: Path) -> list[Clip]:
    """Some of the videos made from sentences, with their sentences."""
    folder = folder / "text_1"
    frames = np.load(next(folder.rglob("*_eval.npy")), mmap_mode="r")
    entries = evenly(videos_of(folder))
    return [Clip(np.asarray(frames[at]), entry["text"]) for at, entry in entries]


def by_sound(folder: Path) -> list[Clip]:
    """Some of the videos made from sounds, with their sound."""
    folder = folder / "sound_1"
    files = [folder / entry["file"] for _, entry in evenly(videos_of(folder))]
    return [Clip(read_frames(file), sound=(read_sound(file, RATE), RATE), fps=FPS) for file in files]


def videos_of(folder: Path) -> list[dict[str, Any]]:
    """The entries of a sampler's manifest."""
    videos: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["videos"]
    return videos


def evenly(entries: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """At most SHOWN of them, with their numbers."""
    chosen = np.linspace(0, len(entries) - 1, min(SHOWN, len(entries))).round().astype(int)
    return [(int(at), entries[at]) for at in chosen]


SHOWS = {"text": by_sentence, "sound": by_sound}
