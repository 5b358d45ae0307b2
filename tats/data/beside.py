"""Codes that lie beside the codes of clips: those of their sounds and of their semantic maps.

Each has a file of its own per shard (`stft_00000.bin`, `smap_00000.bin`), in step with the clips of the shard. The
index says of each how many codes its VQGAN knows, the shape of a clip, the fingerprint of that VQGAN, and the SHA-256
of every file.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats.data.code_index import check_shard, dtype_of, sha256_of
from tats.flags import UserError
from tats.plain import matches

KEYS = ("stft", "smap")
_FACTS = {"n_codes": int, "latent_shape": tuple[int, int, int], "vqgan": str, "sha256": list[str]}
_ANEW = "Make the codes anew with `tats tokenize`"


def facts_of(n_codes: int, latent_shape: tuple[int, int, int], vqgan: str) -> dict[str, Any]:
    """What an index says of codes beside its own, before any are written."""
    return {"n_codes": n_codes, "latent_shape": list(latent_shape), "vqgan": vqgan, "sha256": []}


class BesideWriter:
    """Writes the files of one split shard by shard; `beside` of the index gets their SHA-256."""

    def __init__(self, folder: Path, beside: Mapping[str, dict[str, Any]]):
        self.folder, self.beside = folder, beside
        self._files: dict[str, Any] = {}
        self._hashes: dict[str, Any] = {}

    def next_shard(self, number: int) -> None:
        """Go on in the files of this shard."""
        self.finish_shard()
        for key in self.beside:
            self._files[key], self._hashes[key] = (self.folder / f"{key}_{number:05d}.bin").open("wb"), hashlib.sha256()

    def add(self, clip: Mapping[str, np.ndarray]) -> None:
        """Append what lies beside one clip: integers [t, h, w] by key."""
        for key, facts in self.beside.items():
            codes = clip[key]
            if list(codes.shape) != facts["latent_shape"]:
                raise ValueError(f"{key} codes of a clip must be {facts['latent_shape']}, got {list(codes.shape)}")
            if not 0 <= int(codes.min()) <= int(codes.max()) < facts["n_codes"]:
                raise ValueError(f"{key} codes must lie in [0, {facts['n_codes']}), got {codes.min()} to {codes.max()}")
            data = codes.astype(dtype_of(facts["n_codes"])).tobytes()
            self._files[key].write(data)
            self._hashes[key].update(data)

    def finish_shard(self) -> None:
        """Close the files of the present shard."""
        for key, file in self._files.items():
            file.close()
            self.beside[key]["sha256"].append(self._hashes[key].hexdigest())
        self._files, self._hashes = {}, {}


class Beside:
    """The codes of one key, read clip by clip: windows of `span` latent frames out of the `frames` that the clips of
    video codes have. `n_codes`, `vqgan`, `latent_shape` of a window.

    clips: how many each shard has.

    Raises:
        UserError: files are missing or differ from the index, or windows can't be cut out of them.
    """

    def __init__(self, folder: Path, key: str, facts: Mapping[str, Any], clips: list[int], frames: int, span: int):
        wrong = [name for name, kind in _FACTS.items() if not matches(kind, facts.get(name))]
        if key not in KEYS or wrong or len(facts["sha256"]) != len(clips) or min(facts["latent_shape"]) < 1:
            raise UserError(f"{folder / 'index.json'} is damaged: what it says of {key} codes is wrong. {_ANEW}")
        self.folder, self.key, self.clips = folder, key, clips
        self.n_codes, self.vqgan = int(facts["n_codes"]), str(facts["vqgan"])
        t, h, w = facts["latent_shape"]
        if span != frames and t % frames:
            raise UserError(
                f"{folder}: --latent_frames {span} of {frames} can't be cut out of {t} frames of {key} codes, which "
                f"are no multiple of them: leave it out, or make shorter clips (--sequence_length of `tats tokenize`)"
            )
        self.stored, self.rate = (t, h, w), t / frames
        self.latent_shape = (round(span * self.rate), h, w)
        for number, sha256 in enumerate(facts["sha256"]):
            self._check(number, sha256)
        self._maps: dict[int, np.ndarray] = {}

    def _check(self, number: int, sha256: str) -> None:
        path = self._path(number)
        if not path.is_file():
            raise UserError(f"{path} is missing. {_ANEW}")
        if sha256_of(path) != sha256:
            raise UserError(f"{path} is not the file its index describes. {_ANEW}")
        check_shard(path, dtype_of(self.n_codes), self.clips[number] * self.stored[0], self.stored[1:], self.n_codes)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.key}_{number:05d}.bin"

    def read(self, shard: int, rows: np.ndarray, starts: np.ndarray) -> Tensor:
        """Of the clips `rows` int64 [B] of a shard, what lies beside windows from latent frames `starts` int64 [B] on:
        int64 [B, t, h, w]."""
        if shard not in self._maps:
            shape = (self.clips[shard], *self.stored)
            self._maps[shard] = np.memmap(self._path(shard), dtype_of(self.n_codes), "r", shape=shape)
        begin = (starts * self.rate).astype(np.int64)
        frames = begin[:, None] + np.arange(self.latent_shape[0])  # [B, t]
        return torch.from_numpy(self._maps[shard][rows[:, None], frames].astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would travel as a copy of its content
