"""Writing code shards: clips or whole videos one after the other, the index last."""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.beside import BesideWriter
from tats.data.code_index import INDEX, Index, read_index, write_index
from tats.data.left_out import say

SHARD_BYTES = 256 * 2**20
SAVE_EVERY = 300.0  # seconds
PART = f"{INDEX}.part"


class CodeWriter:
    """Writes one split of code shards: `add` clips, then `close`, which writes the index last.

    A folder without an index is no data set, so a stopped run leaves nothing that could be taken for one. What it has
    finished stands in `index.json.part`, and a writer of the same codes goes on behind it: `done` clips are there.
    """

    def __init__(self, folder: Path, index: Index, shard_bytes: int = SHARD_BYTES, save_every: float = SAVE_EVERY):
        """save_every: seconds after which a shard ends early, so that no more work than that can be lost."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.index = self._begun(index)
        self.done = len(self.index.video)
        self._save_every, self._saved = save_every, time.monotonic()
        index = self.index
        self._shard_bytes = shard_bytes
        self._per_shard = max(1, shard_bytes // (int(np.prod(index.latent_shape)) * index.dtype.itemsize))
        self._file: Any = None
        self._hash = hashlib.sha256()  # of what the file holds
        self._beside = BesideWriter(folder, index.beside)

    def add(
        self,
        codes: torch.Tensor,
        video: Iterable[int],
        start: Iterable[int],
        label: Iterable[int],
        beside: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Append int64 codes [B, t, h, w] with, per clip, the number of its video, its first frame and its label, and
        what the index wants beside them, int64 [B, t, h, w] by key."""
        index = self.index
        besides = {key: value.cpu().numpy() for key, value in (beside or {}).items()}
        if tuple(codes.shape[1:]) != tuple(index.latent_shape):
            raise ValueError(f"codes must be [B, {', '.join(map(str, index.latent_shape))}], got {list(codes.shape)}")
        for number, clip in enumerate(self._checked(codes)):
            if self._file is None or index.shards[-1]["clips"] == self._per_shard:
                self._next_shard()
            data = clip.tobytes()
            self._file.write(data)
            self._hash.update(data)
            self._beside.add({key: value[number] for key, value in besides.items()})
            index.shards[-1]["clips"] += 1
        index.video += [int(value) for value in video]
        index.start += [int(value) for value in start]
        index.label += [int(value) for value in label]
        self._save_in_time()

    def add_video(self, latent_frames: Iterable[torch.Tensor], video: int, label: int) -> int:
        """Append a whole video, int64 codes [h, w] as they come; returns its latent frames.

        What has been written of it is taken back when `latent_frames` raises. One index holds whole videos or clips.
        """
        index = self.index
        if self._file is None or self._file.tell() >= self._shard_bytes:
            self._next_shard()
        begin, before, length = self._file.tell(), self._hash.copy(), 0
        try:
            for frame in latent_frames:
                data = self._checked(frame[None, None])[0].tobytes()
                self._file.write(data)
                self._hash.update(data)
                length += 1
        except BaseException:
            self._file.truncate(begin)
            self._file.seek(begin)
            self._hash = before
            raise
        index.shards[-1]["clips"] += 1
        index.lengths.append(length)
        index.latent_shape = (min(index.lengths), *index.latent_shape[1:])
        index.video.append(video)
        index.start.append(0)
        index.label.append(label)
        self._save_in_time()
        return length

    def _checked(self, codes: torch.Tensor) -> np.ndarray:
        """Codes [B, t, h, w] as they are stored."""
        index, rows = self.index, list(self.index.latent_shape[1:])
        if list(codes.shape[2:]) != rows:
            raise ValueError(f"latent frames must be {rows}, got {list(codes.shape[2:])}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < index.n_codes:
            raise ValueError(f"codes must lie in [0, {index.n_codes}), got {int(codes.min())} to {int(codes.max())}")
        return codes.cpu().numpy().astype(index.dtype)

    def close(self) -> None:
        """Finish the last shard and write the index."""
        self._finish_shard()
        write_index(self.folder, self.index)
        (self.folder / PART).unlink(missing_ok=True)

    def save(self) -> None:
        """End the shard; a run that is stopped from here on goes on behind it."""
        self._finish_shard()
        write_index(self.folder, self.index, PART)
        self._saved = time.monotonic()

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved >= self._save_every:
            self.save()

    def _begun(self, index: Index) -> Index:
        """What a stopped run has written of these codes; `index` itself where there is nothing, or of other codes."""
        if not (self.folder / PART).is_file():
            return index
        begun = read_index(self.folder, PART)
        if described(begun) != described(index):
            return index
        say(f"{self.folder}: {len(begun.video)} clips are there from before")
        return begun

    def _next_shard(self) -> None:
        self._finish_shard()
        self._beside.next_shard(len(self.index.shards))
        name = f"codes_{len(self.index.shards):05d}.bin"
        self._file, self._hash = (self.folder / name).open("wb"), hashlib.sha256()
        self.index.shards.append({"file": name, "clips": 0, "sha256": ""})

    def _finish_shard(self) -> None:
        if self._file is not None:
            self._beside.finish_shard()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self.index.shards[-1]["sha256"] = self._hash.hexdigest()


def described(index: Index) -> dict[str, Any]:
    """What is known of codes before the first is made: equal for two runs that make the same."""
    beside = {
        key: {name: value for name, value in facts.items() if name != "sha256"} for key, facts in index.beside.items()
    }
    rows = {name: getattr(index, name) for name in ("n_codes", "vqgan", "clip", "label_names", "videos", "captions")}
    return {**rows, "beside": beside, "size": list(index.latent_shape[1:])}
