"""What a folder of videos holds: how many, how long, how large, how fast; as plain values and as text."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.clips import class_of
from tats.data.pool import each
from tats.data.prepare_plan import Found

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 4096, 16384)  # frames; bounds of the counted lengths
NAMED = 20  # problems in the text; the plain values have all
SHOWN = {"lengths in frames": "lengths", "sizes": "sizes", "frames per second": "frame_rates", "classes": "classes"}


def take_stock(found: Sequence[Found], workers: int | None = None) -> dict[str, Any]:
    """Plain values about every split: videos, classes, bytes, frames, seconds, lengths, sizes, frame rates, and the
    files that cannot be read. The header of every file is opened for the size of its pictures."""
    return {one.split: _split(one, workers) for one in found}


def _split(found: Found, workers: int | None) -> dict[str, Any]:
    readable = found.readable
    names = [entry.name for entry in readable]
    sizes = Counter(each(names, partial(size_of, found.root), workers, f"sizes in {found.root}"))
    frames = np.array([entry.timeline.n_frames for entry in readable if entry.timeline], np.int64)
    rates = np.array([entry.timeline.fps for entry in readable if entry.timeline], np.float64)
    timed = rates > 0  # some files do not tell their rate
    return {
        "folder": str(found.root),
        "videos": len(readable),
        "classes": dict(sorted(Counter(map(class_of, names)).items())),
        "bytes": sum(entry.size for entry in readable),
        "frames": int(frames.sum()),
        "seconds": round(float((frames[timed] / rates[timed]).sum()), 3),
        "frames_of_a_video": _spread(frames),
        "lengths": _lengths(frames),
        "sizes": {f"{width}x{height}": count for (width, height), count in sizes.most_common()},
        "frame_rates": {f"{rate:g}": count for rate, count in Counter(rates.round(3).tolist()).most_common()},
        "unreadable": found.problems,
    }


def _lengths(frames: np.ndarray) -> dict[str, int]:
    """How many videos there are of the lengths between two bounds; those without any left out."""
    last = f"{LENGTHS[-1]} or more"
    names = [f"below {LENGTHS[0]}", *(f"{low} to {high - 1}" for low, high in pairwise(LENGTHS)), last]
    counts = np.histogram(frames, [0, *LENGTHS, np.iinfo(np.int64).max])[0]
    return {name: int(count) for name, count in zip(names, counts) if count}


def size_of(root: Path, name: str) -> tuple[int, int]:
    """Width and height of the pictures of a video, as its header says; (0, 0) when it cannot be opened any more."""
    import av

    try:
        with av.open(str(root / name)) as container:
            context = container.streams.video[0].codec_context
            return context.width, context.height
    except (av.FFmpegError, OSError, IndexError):
        return 0, 0


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    return {"least": int(values.min()), "median": float(np.median(values)), "most": int(values.max())}


def as_text(stock: dict[str, Any]) -> str:
    """The same as lines for people."""
    lines = []
    for split, of in stock.items():
        lines += [f"{split}: {of['videos']:,} videos, {of['frames']:,} frames, {_time(of['seconds'])}, {of['folder']}"]
        if spread := of["frames_of_a_video"]:
            median = f"{spread['median']:,.0f}"
            lines.append(f"  frames of a video: {spread['least']:,} to {spread['most']:,}, half of them up to {median}")
        for title, key in SHOWN.items():
            lines += _counts(title, of[key])
        if of["unreadable"]:
            lines.append(f"  cannot be read: {len(of['unreadable']):,}")
            lines += [f"    {problem}" for problem in of["unreadable"][:NAMED]]
            if len(of["unreadable"]) > NAMED:
                lines.append(f"    and {len(of['unreadable']) - NAMED:,} more")
    return "\n".join(lines)


def _counts(title: str, counts: dict[str, int]) -> list[str]:
    shown = [f"{name}: {count:,}" for name, count in list(counts.items())[:NAMED]]
    more = [f"and {len(counts) - NAMED:,} more"] if len(counts) > NAMED else []
    return [f"  {title}: {', '.join(shown + more)}"] if shown else []


def _time(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02} h"
