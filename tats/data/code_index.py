"""The index of code shards, and whether the shards are what it says: looked at once, before the first code is used."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tats.flags import UserError
from tats.plain import matches, mismatch, read_json

INDEX = "index.json"
KIND = "tats codes"
VERSION = 1
PIECE = 1 << 22  # codes looked at at a time
SHARD = {"file": str, "clips": int, "sha256": str}  # what the index says of each shard


def dtype_of(n_codes: int) -> np.dtype:
    """How a code is stored, little-endian."""
    return np.dtype("<u2" if n_codes <= 2**16 else "<i4")


@dataclass
class Index:
    """What `<split>/index.json` holds."""

    n_codes: int
    latent_shape: tuple[int, int, int]  # t, h, w of every clip; t of the shortest where `lengths` differ
    vqgan: str  # fingerprint of the VQGAN that made the codes
    clip: dict[str, Any]  # sequence_length, sample_every_n_frames, resolution, image_channels, window_stride; of whole
    # videos sample_every_n_frames, resolution, image_channels, latent_frames (a window, where nothing else is asked)
    label_names: list[str]
    videos: list[str]  # names of the videos
    video: list[int] = field(default_factory=list)  # per clip: which video
    start: list[int] = field(default_factory=list)  # per clip: first frame of its window
    label: list[int] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)  # file, clips, sha256
    lengths: list[int] = field(default_factory=list)  # per clip: latent frames; empty where all are alike
    captions: list[list[str]] = field(default_factory=list)  # per video: its texts; empty without
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)  # codes of sounds (stft) and maps (smap)

    @property
    def dtype(self) -> np.dtype:
        """How a code is stored, little-endian."""
        return dtype_of(self.n_codes)


def read_index(folder: Path, name: str = INDEX) -> Index:
    """The index of a folder of shards; `name` of another one than the finished one.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} holds no {name}: --vtokens needs the codes that `tats tokenize` writes")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("version") != VERSION:
        raise UserError(f"{path} is not an index of codes of version {VERSION}")
    try:
        index = Index(**{key: value for key, value in content.items() if key not in ("kind", "version")})
        t, h, w = index.latent_shape
        index.latent_shape = (t, h, w)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    check_index(index, path)
    return index


def write_index(folder: Path, index: Index, name: str = INDEX) -> None:
    """Write the index of a folder of shards, whole or not at all."""
    content = {"kind": KIND, "version": VERSION, **asdict(index)}
    partial = folder / f"{name}.tmp"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / name)


def check_index(index: Index, path: Path) -> None:
    """Compare an index, read from `path`, with itself.

    Raises:
        UserError: an entry has another type than it should, or contradicts another one.
    """
    wrong = mismatch(type(index), vars(index)) or _wrong_shard(index) or _wrong_number(index)
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong}. Make the codes anew with `tats tokenize`")


def _wrong_shard(index: Index) -> str | None:
    for shard in index.shards:
        for name, kind in SHARD.items():
            if not matches(kind, shard.get(name)):
                return f"a shard has '{name}': {str(shard.get(name))[:60]!r}"
        if shard["clips"] < 0 or Path(shard["file"]).name != shard["file"] or "\0" in shard["file"]:
            return f"a shard of {shard['clips']} clips is called {shard['file'][:60]!r}"
    return None


def _wrong_number(index: Index) -> str | None:
    """Numbers that lie outside of what they count."""
    if min(index.latent_shape) < 1 or max(index.latent_shape) > 2**31:
        return f"clips of the shape {list(index.latent_shape)}"
    if not 1 <= index.n_codes <= 2**31:
        return f"a codebook of {index.n_codes} codes"
    window = index.clip.get("latent_frames")
    if window is not None and not (matches(int, window) and 1 <= window < 2**31):
        return f"windows of {str(window)[:60]} latent frames"
    n_clips = sum(shard["clips"] for shard in index.shards)
    rows = {"video": index.video, "start": index.start, "label": index.label, "lengths": index.lengths}
    for name, row in rows.items():
        if len(row) != n_clips and not (name == "lengths" and not row):
            return f"its shards hold {n_clips} clips, '{name}' tells of {len(row)}"
    tops = {"video": len(index.videos), "label": len(index.label_names), "lengths": 0, "start": 0}
    for name, row in rows.items():
        low, top = (1 if name == "lengths" else 0), tops[name] or 2**40
        if row and not low <= min(row) <= max(row) < top:
            return f"'{name}' has numbers from {min(row)} to {max(row)}; allowed are {low} to {top - 1}"
    if index.captions and len(index.captions) != max(len(index.videos), 1 + max(index.video, default=0)):
        return f"'captions' tells of {len(index.captions)} videos, there are {len(index.videos)}"
    if index.lengths and index.beside:
        return "whole videos have codes of sounds or maps beside them"
    if index.lengths and sum(index.lengths) > 2**50:
        return "more latent frames than any disk holds"
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def check_shard(path: Path, dtype: np.dtype, latent_frames: int, shape: tuple[int, ...], n_codes: int) -> None:
    """Compare a shard with its index: as many codes as it should hold, all of them in the codebook.

    Raises:
        UserError: they are fewer or more, or one lies outside of [0, n_codes).
    """
    expected = latent_frames * int(np.prod(shape, dtype=object)) * dtype.itemsize
    if path.stat().st_size != expected:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, its index tells of {expected:,}. {_ANEW}")
    if not expected:
        return
    codes: Any = np.memmap(path, dtype, "r")
    for start in range(0, len(codes), PIECE):
        piece = codes[start : start + PIECE]
        low, high = int(piece.min()), int(piece.max())
        if low < 0 or high >= n_codes:
            raise UserError(f"{path} holds the code {low if low < 0 else high}, codes are 0 to {n_codes - 1}. {_ANEW}")


_ANEW = "Make the codes anew with `tats tokenize`"
