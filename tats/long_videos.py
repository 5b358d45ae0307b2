"""The long videos of a folder, each read piece by piece: video files, animations, pictures, arrays, codes."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats.flags import UserError
from tats.media import ANIMATIONS, frames_of
from tats.reader import SUFFIXES

if TYPE_CHECKING:
    from tats.vqgan.model import VQGAN

_PIECE = 32  # frames of a file that are read together
_MADE = re.compile(r"generation_(.+)_\d+")  # how samplers name a video of a class


@dataclass(frozen=True)
class LongVideo:
    """One video: its name, its class where that is known, its file where it is one, and a way to its pieces, in a form
    that `tats.metrics.windows.stream` takes; each call begins anew."""

    name: str
    label: str | None
    file: Path | None
    pieces: Callable[[], Iterator[Any]]


def long_videos(path: str | Path, vqgan: "VQGAN | None" = None, limit: int | None = None) -> list[LongVideo]:
    """The videos at or below `path` in the order of their names, `limit` at most.

    With `vqgan`, these are the codes that a sampler has left there, decoded as a stream: the exact pixels. Without it,
    arrays uint8 [N, T, H, W, C] are taken if there are any, else video files, animations and folders of pictures. A
    video's class is what the manifest of a sampler says, else the folder it lies in (within `path`).

    Raises:
        UserError: nothing is there, or it is something else.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give videos, arrays, or what a sampler has written")
    entries = _manifest(path)
    if vqgan is not None:
        found = _from_codes(path, vqgan, entries)
    else:
        found = _from_arrays(path, entries) or _from_files(path, entries)
    if not found:
        raise UserError(f"{path} holds no videos: give video files, animations, folders of .png pictures or arrays")
    return found[:limit]


def _manifest(path: Path) -> list[dict[str, Any]]:
    """What a sampler says of its videos, in order; nothing where there is no manifest."""
    file = path / "manifest.json"
    if not file.is_file():
        return []
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["videos"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} is damaged: delete it, or sample the videos anew") from None


def _from_codes(path: Path, vqgan: "VQGAN", entries: list[dict[str, Any]]) -> list[LongVideo]:
    """Videos whose codes lie in codes.npz, or in one file for each length."""
    from tats.codes_file import read_codes

    files = [path]
    if path.is_dir():
        files = [path / "codes.npz"] if (path / "codes.npz").is_file() else sorted(path.glob("codes_*.npz"))
    if not files or not files[0].is_file():
        raise UserError(f"{path} holds no codes.npz: leave the VQGAN out, or give the folder of a finished sampler")
    labels = {entry["index"]: entry.get("class") for entry in entries}
    rows = {index: (file.name, row) for file in files for index, (_, row) in read_codes(file).items()}
    return [
        LongVideo(f"{name}:{index}", labels.get(index), None, partial(_decoded, vqgan, row))
        for index, (name, row) in sorted(rows.items())
    ]


def _decoded(vqgan: "VQGAN", row: Any) -> Iterator[Any]:
    import torch

    from tats.vqgan.stream import decode_stream

    device = next(vqgan.parameters()).device
    latent = (frame[None] for piece in row.pieces() for frame in torch.from_numpy(piece).long().to(device))
    with torch.inference_mode():
        yield from decode_stream(vqgan, latent)


def _from_arrays(path: Path, entries: list[dict[str, Any]]) -> list[LongVideo]:
    """Rows of arrays; they stand in the order of the manifest when they are as many."""
    from tats.metrics.sides import ARRAYS, clip_files, read_array

    if path.is_file() and path.suffix not in ARRAYS:
        return []
    if path.is_dir() and not any(file.suffix in ARRAYS for file in path.rglob("*.np[yz]")):
        return []
    found = []
    for file in clip_files(path)[0]:
        array = read_array(file)
        named = [entry.get("class") for entry in entries] if len(entries) == len(array) else [None] * len(array)
        for row, label in enumerate(named):
            found.append(LongVideo(f"{file.name}:{row}", label, None, partial(_row, array, row)))
    return found


def _row(array: Any, row: int) -> Iterator[Any]:
    yield array[row]


def _from_files(path: Path, entries: list[dict[str, Any]]) -> list[LongVideo]:
    """Video files, animations, and folders that hold pictures."""
    suffixes = (*SUFFIXES, *(suffix for suffix in ANIMATIONS if suffix != ".png"))
    labels = {entry["file"]: entry.get("class") for entry in entries if "file" in entry}
    below = sorted(path.rglob("*")) if path.is_dir() else []
    found = []
    for file in [path, *below]:
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts) or file.name.startswith("grid_")
        pictures = file.is_dir() and next(file.glob("*.png"), None) is not None
        if hidden or not (pictures or (file.is_file() and file.name.lower().endswith(suffixes))):
            continue
        inside = str(file.relative_to(path)) if file != path else file.name
        made = _MADE.fullmatch(file.stem)
        label = labels.get(inside) or (made[1] if made else None)
        if label is None and file.parent not in (path, path.parent):
            label = file.parent.name
        found.append(LongVideo(inside, label, None if pictures else file, partial(_read, file)))
    return found


def _read(file: Path) -> Iterator[Any]:
    """A file in pieces uint8 [n, H, W, 3] of up to _PIECE frames."""
    import numpy as np

    frames = frames_of(file)
    while piece := list(islice(frames, _PIECE)):
        yield np.stack(piece)
