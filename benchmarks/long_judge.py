"""Judges the long videos of benchmarks/long.py and stores what it finds as tables."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.lanes import typed
from benchmarks.long_recipe import CONTEXTS, SIZES, LongConfig, listed, stages
from benchmarks.tables import store
from tats import checkpoint
from tats.data.shapes import CLASSES, draw_truth, render
from tats.metrics.counts import Count
from tats.metrics.oracle import MOTION, Judgement, Scores, judge
from tats.metrics.oracle_windows import over_time, windows_of
from tats.video import from_frames, to_frames
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import decode_stream, encode_stream

COMMAND = "python benchmarks/long.py"
LAST, LAW = 16, 100  # frames at the end in which the object, and those in which speed and law are judged
CURVE = 64  # frames of a window of the curves
REAL = 24  # films of the dataset beside the videos that were made
TOGETHER = 12  # films that go through the VQGAN at once
ENDS = 16  # frames of the clips whose codes are held against those of the film
MADE = [*(f"context{n}" for n in CONTEXTS), "hierarchical"]
NAMES = {
    "real": "real films",
    "reconstructed": "the same through the VQGAN",
    **{f"context{n}": f"sliding window, context {n}" for n in CONTEXTS},
    "hierarchical": "hierarchical",
}
COLUMNS = {
    "right_object": "right object",
    "legal_speed": "legal speed",
    "motion": "9 of 10 steps agree",
    "turns": "turns at walls only",
    "law": "speed and law",
}


def keeps_law(scores: Scores) -> bool:
    """A legal speed that is kept; steps that go on with it or turn at a wall, and no turn or teleport elsewhere."""
    moves = scores.motion >= MOTION and scores.teleports == 0 and scores.turns_at_walls
    return moves and scores.legal_speed and scores.keeps_speed


def shares(judgements: Sequence[Judgement]) -> dict[str, Count]:
    """How many videos hold the right object at their end, and how many keep speed and law shortly before it."""
    frames, n = len(judgements[0].right), len(judgements)
    ends = [judgement.part(frames - LAST, frames) for judgement in judgements]
    laws = [judgement.part(max(frames - LAW, 0), frames) for judgement in judgements]
    hits = {
        "right_object": sum(end.right_object for end in ends),
        "legal_speed": sum(law.legal_speed and law.keeps_speed for law in laws),
        "motion": sum(law.motion >= MOTION for law in laws),
        "turns": sum(law.turns_at_walls for law in laws),
        "law": sum(map(keeps_law, laws)),
    }
    return {name: Count(hit, n) for name, hit in hits.items()}


def curve(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Right object, speed of the start and validity in windows of CURVE frames, as shares, with the mean motion."""
    windows = [windows_of(judgement, CURVE) for judgement in judgements]
    found = []
    for place, counts in enumerate(over_time(windows)):
        parts = [video[place] for video in windows]
        row = {name: round(counts[name].share, 3) for name in ("right_object", "speed_of_start", "valid")}
        motion = round(float(np.mean([part.motion for part in parts])), 3)
        found.append({"first": parts[0].first, "motion": motion, **row})
    return found


def made(config: LongConfig, name: str) -> tuple[NDArray[np.uint8], list[str]]:
    """The videos of one sampler, uint8 [N, T, H, W, 3], and their classes."""
    folder = Path(config.out) / name
    arrays = sorted(folder.rglob("*_eval.npy"))
    manifest = next(folder.rglob("manifest.json"))
    videos = json.loads(manifest.read_text(encoding="utf-8"))["videos"]
    return np.load(arrays[0], mmap_mode="r"), [video["class"] for video in videos]


@torch.inference_mode()
def through(vqgan: VQGAN, films: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Films of one length, each uint8 [T, H, W, 3], encoded and decoded as a stream: uint8 [N, T, H, W, 3]."""
    found = []
    for start in range(0, len(films), TOGETHER):
        video = from_frames(torch.from_numpy(np.stack(films[start : start + TOGETHER])))  # [n, 3, T, H, W]
        pieces = decode_stream(vqgan, encode_stream(vqgan, video.split(16, dim=2)))
        found.append(torch.cat([to_frames(piece) for piece in pieces], 1))
    return torch.cat(found).numpy()


@torch.inference_mode()
def ends_of_clips(vqgan: VQGAN, films: Sequence[NDArray[np.uint8]]) -> list[Count]:
    """Codes of a clip that differ from those of the film it is cut from, by latent frame of the clip."""
    found = []
    for film in films:
        video = from_frames(torch.from_numpy(film[: 16 * ENDS])[None])
        inside = vqgan.encode(video)[0]  # [t, h, w]
        step = vqgan.config.downsample[0]
        for start in range(ENDS, video.shape[2] - 2 * ENDS + 1, ENDS):
            alone = vqgan.encode(video[:, :, start : start + ENDS])[0]
            found.append((alone != inside[start // step : (start + ENDS) // step]).flatten(1).sum(1))  # [t]
    total = torch.stack(found)  # [clips, t]
    each = vqgan.latent_shape[1] * vqgan.latent_shape[2]
    return [Count(int(row.sum()), len(row) * each) for row in total.unbind(1)]


def judge_all(videos: Iterable[NDArray[np.uint8]], labels: Sequence[str]) -> list[Judgement]:
    """Judge videos against their classes, in as many processes as there are cores."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(judge, np.asarray(video), *label.split("_"))
            for video, label in zip(videos, labels, strict=True)
        ]
        return [each.result() for each in waiting]


def judge_and_store(config: LongConfig, ledger: Any) -> None:
    """Judge everything, store the tables."""
    size = SIZES[config.size]
    vqgan = checkpoint.load_vqgan(config.vqgan)
    truths = [draw_truth(9, n, split="test", frames=size.frames, label=n % len(CLASSES))
              for n in range(min(REAL, size.videos))]  # fmt: skip
    films = [render(truth, vqgan.config.resolution) for truth in truths]
    judged: dict[str, list[Judgement]] = {}
    for name, seen in (("real", films), ("reconstructed", through(vqgan, films))):
        judged[name] = judge_all(seen, [f"{truth.colour}_{truth.shape}" for truth in truths])
    for name in MADE:
        judged[name] = judge_all(*made(config, name))
    found = {name: shares(judgements) for name, judgements in judged.items()}
    curves = {name: curve(judgements) for name, judgements in judged.items()}
    ends = ends_of_clips(vqgan, films[:12])
    counts = {name: {key: [c.hits, c.total] for key, c in row.items()} for name, row in found.items()}
    report = {"shares": counts, "curves": curves, "commands": [typed(step) for step in listed(config)]}
    target = Path(config.out) / "long.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, row in found.items():
        print(NAMES[name], "|", ", ".join(f"{COLUMNS[key]} {count}" for key, count in row.items()))
    if config.size == "full":
        store_tables(config, ledger, found, ends, report)


def before(config: LongConfig) -> str:
    """What the transformer of the demo took, in words; nothing where it is not known."""
    steps = next((folder / "steps.json" for folder in Path(config.gpt).parents if folder.name == "demo"), None)
    if steps is None or not steps.exists():
        return ""
    taken = json.loads(steps.read_text(encoding="utf-8"))["gpt"]["seconds"] / 60
    return f"; the demo's transformer, from whose weights they start, had taken {taken:.1f}"


def store_tables(config: LongConfig, ledger: Any, found: Any, ends: list[Count], report: dict[str, Any]) -> None:
    """benchmarks/results/long.json, long_times.json and long_ends.json."""
    size, minutes = SIZES[config.size], ledger.minutes(stages(config))
    frames, per = size.frames, size.frames * size.videos / 1000
    rows = [[NAMES[name], *(str(row[key]) for key in COLUMNS)] for name, row in found.items()]
    note = (
        f"{size.videos} videos of {frames} frames each, seeds 0 to {size.videos - 1}, all classes alike; brackets are "
        f"95 % Wilson intervals. Right object: in every frame from {frames - LAST} on; all else over the last {LAW} "
        f"frames. Speed and law: a legal speed that is kept, 9 of 10 steps that agree, no turn and no teleport in "
        f"mid-air. Films, codes, training, context 3 and the hierarchy took {sum(minutes[:-1]):.1f} minutes, the "
        f"other contexts {minutes[-1]:.1f} more{before(config)}"
    )
    store("long", ["", *COLUMNS.values()], rows, command=COMMAND, note=note, details=report)
    entries = ledger.entries
    taken = [
        [NAMES[name], *(round(getattr(entries[name], key) / per, 2) for key in ("seconds", "cpu_seconds")),
         round(entries[name].peak_mib)]
        for name in MADE
    ]  # fmt: skip
    note = (
        f"{size.videos} videos at once, loading and writing included, two samplers side by side on half of the cores "
        f"each; the peak is that of the whole process, and an array of all frames is "
        f"{size.videos * frames * 3 * 32**2 / 2**20:.0f} MiB on disk"
    )
    columns = ["way", "seconds per 1000 frames", "processor seconds per 1000 frames", "peak memory, MiB"]
    steps = {name: {"seconds": e.seconds, "cpu_seconds": e.cpu_seconds} for name, e in entries.items()}
    store("long_times", columns, taken, command=COMMAND, note=note, details={"steps": steps, "minutes": minutes})
    note = f"Clips of {ENDS} frames out of longer films: the encoder sees the padding at the ends of a clip"
    table = [[place + 1, round(100 * count.share, 1)] for place, count in enumerate(ends)]
    store("long_ends", ["latent frame of the clip", "codes that differ, %"], table, command=COMMAND, note=note)
