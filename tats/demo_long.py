"""The long videos of the demo: judged window by window, shown beside their curves and those of real ones."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats import over_time
from tats.data.shapes import draw_truth, render
from tats.demo_config import RESOLUTION
from tats.evaluate import write_json
from tats.long_videos import LongVideo, long_videos
from tats.metrics.windows import stream
from tats.report import Clip, Page
from tats.report_time import show_over_time
from tats.vqgan.model import VQGAN

REAL = 4  # real long videos, whose curves stand beside the others
FIRST_REAL = 1_000_000  # number of the first of them: the dataset of the demo has none so far out
AT_END = ("right_object", "speed_of_start", "legal_speed", "valid")


def judge_long(folder: Path, vqgan: VQGAN) -> tuple[dict[str, Any], list[Clip | None]]:
    """What `tats over_time` says of the long videos in `folder` and of real ones of the same classes, which is written
    beside them; and the videos as they are to be shown."""
    found = long_videos(folder, vqgan)
    frames = [np.concatenate([piece.numpy() for piece in stream(video.pieces())]) for video in found]
    made = [LongVideo(video.name, video.label, None, partial(_once, each)) for video, each in zip(found, frames)]
    labels = [str(video.label) for video in found]
    real = [
        LongVideo(f"real {number}", label, None, partial(_drawn, FIRST_REAL + number, label, len(frames[0])))
        for number, label in zip(range(REAL), labels * REAL)
    ]
    with torch.inference_mode():
        result = over_time.finite(over_time.measure(made, real))
    write_json(result, folder / over_time.FILE)
    clips: list[Clip | None] = [Clip(each, f"seed {seed}") for seed, each in enumerate(frames)]
    return result, clips


def _once(frames: np.ndarray) -> Any:
    yield frames


def _drawn(index: int, label: str, frames: int) -> Any:
    yield render(draw_truth(0, index, split="test", frames=frames, label=label), RESOLUTION)


def last_windows(result: dict[str, Any]) -> dict[str, Any]:
    """What the demo keeps of a result: the videos' length, and of how many the last window passes each test."""
    length = result["length"]
    numbers: dict[str, Any] = {"frames": result["generated"]["videos"][0]["frames"], "window": length}
    for side in ("generated", "real"):
        numbers[side] = {name: result[side]["oracle"][-1][name] for name in AT_END}
    return numbers


def show_long(page: Page, result: dict[str, Any], clips: list[Clip | None]) -> None:
    """The section of the page."""
    frames = result["generated"]["videos"][0]["frames"]
    page.section(
        f"{frames} frames",
        f"The transformer has seen clips of 16 frames, and goes on from what it made before: {len(clips)} videos of "
        f"{frames} frames, none picked. The line in the curves shows where the video is.",
    )
    show_over_time(page, result, clips)
