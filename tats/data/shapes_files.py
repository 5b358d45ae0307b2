"""The embedded dataset as files, in the layout of a user's own.

DIR/{train,test}/<class>/<id>.mp4     H.264 yuv444p, above 45 dB (in fact 60) against what was drawn; AAC sound
DIR/{train,test}/captions.json        file -> text, files as <class>/<id>.mp4
DIR/{train,test}/truth.json           file -> everything that was drawn
DIR/shapes.json                       the settings; a second call with the same ones writes only what is missing
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tats.data.pool import one_thread_each, processors
from tats.data.shapes import SOUND_RATE, SPLITS, Truth, clicks, draw_truth, render
from tats.data.shapes_config import ShapesConfig
from tats.flags import UserError, new_folder
from tats.media import VideoWriter

CRF = 0  # lossless but for the change to YUV: above 60 dB, for hardly more bytes than 50 dB would take
OPTIONS = {"preset": "veryfast", "g": "16"}  # a key frame every 16 frames: quick random clips
CHUNK = 16  # videos that a process writes at a time
FEW = 64  # below this, starting processes costs more than it saves


def make(config: ShapesConfig) -> None:
    """Write the dataset below `config.out`, or complete what an interrupted call has left there."""
    from tqdm import tqdm

    out = Path(config.out)
    _claim(out, config)
    truths = {split: _truths(config, split) for split in SPLITS}
    jobs = [(truth, out / split / name) for split in SPLITS for name, truth in truths[split].items()]
    missing = [job for job in jobs if not job[1].exists()]
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=f"writing {out}", unit="video") as progress:
        for done in _write_all(config, missing):
            progress.update(done)
    for split in SPLITS:
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "captions.json", {name: truth.caption for name, truth in truths[split].items()})
        _write_json(folder / "truth.json", {name: describe(truth, config) for name, truth in truths[split].items()})


def describe(truth: Truth, config: ShapesConfig) -> dict[str, Any]:
    """Everything that was drawn, as plain values; places are centres of the bounding square in picture sides."""
    return {
        "label": truth.label,
        "caption": truth.caption,
        **{name: getattr(truth, name) for name in ("index", "colour", "shape", "speed", "start", "velocity", "frames")},
        "resolution": config.resolution,
        "fps": config.fps,
        "seed": config.seed,
        "reflections": [dataclasses.asdict(reflection) for reflection in truth.reflections],
        "positions": truth.positions.round(9).tolist(),
    }


def _truths(config: ShapesConfig, split: str) -> dict[str, Truth]:
    """File name within the split -> truth."""
    count = config.n_train if split == "train" else config.n_test
    truths = [draw_truth(config.seed, index, split=split, frames=config.frames) for index in range(count)]
    return {f"{truth.label}/{truth.index:06d}.mp4": truth for truth in truths}


def _claim(out: Path, config: ShapesConfig) -> None:
    """Make `out` this dataset's folder, or find that it is; another dataset's folder is refused."""
    settings = dataclasses.asdict(config)
    del settings["out"], settings["num_workers"]
    path = out / "shapes.json"
    if path.exists():
        there = json.loads(path.read_text())
        other = [name for name in settings if there.get(name) != settings[name]]
        if other:
            kept = ", ".join(f"--{name} {there.get(name)} (now {settings[name]})" for name in other)
            raise UserError(f"{out} holds a dataset made with {kept}. Delete the folder or give another --out.")
        return
    if out.is_file() or any((out / split).exists() for split in SPLITS):
        raise UserError(f"{out} holds files that `tats shapes` has not written. Give another --out.")
    new_folder(out, "--out")
    _write_json(path, settings)


def _write_all(config: ShapesConfig, jobs: list[tuple[Truth, Path]]) -> Iterator[int]:
    """Write videos, in several processes where there are many; yields how many have been finished since the last."""
    for folder in {path.parent for _, path in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    chunks = [jobs[first : first + CHUNK] for first in range(0, len(jobs), CHUNK)]
    write = partial(_write_chunk, config)
    workers = min(config.num_workers or processors(), len(chunks))
    if workers <= 1 or len(jobs) < FEW:
        yield from map(write, chunks)
        return
    with one_thread_each(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, chunks)


def _write_chunk(config: ShapesConfig, jobs: list[tuple[Truth, Path]]) -> int:
    for truth, path in jobs:
        sound = (clicks(truth, config.fps), SOUND_RATE) if config.sound else None
        with VideoWriter(path, config.fps, sound=sound, crf=CRF, pix_fmt="yuv444p", options=OPTIONS) as file:
            file.write(render(truth, config.resolution))
    return len(jobs)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Under a temporary name first, so that the file is whole or absent."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=None if len(content) > 20 else 1) + "\n")
    os.replace(part, path)
