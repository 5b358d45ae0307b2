"""Codes computed beforehand: memory-mapped shards, and the published HDF5 files.

A folder of shards, as `tats tokenize` writes it, has `<split>/index.json` and `<split>/codes_00000.bin` ...: clips of
codes [t, h, w] one after the other, uint16 (int32 beyond 65536 codes). The index holds, per clip, its label, the
video and the frame it was cut from, and its length where clips are whole videos; per video its name and captions; and
for all: names of the labels, shape, codebook size, how the clips were cut, the fingerprint of the VQGAN, and per shard
the number of clips and the SHA-256. Codes of sounds and semantic maps lie beside them (`tats.data.beside`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.beside import Beside
from tats.data.code_index import INDEX, check_shard, read_index, sha256_of
from tats.data.config import DataConfig
from tats.data.hdf5 import Table, long_enough, texts_beside
from tats.data.left_out import say
from tats.data.remote import fetch_codes, is_address
from tats.flags import UserError

PUBLISHED_CODES = 16384  # codebook of the published HDF5 files of codes, which do not say


class CodeShards:
    """The clips of codes of one split as a source: windows of them, as long as `--latent_frames` says (else whole).

    An epoch has as many windows as lie side by side. `index` what is known of the clips, `label_names`, `n_codes`,
    `latent_shape` of a window, `code_side` the longer side of the stored pictures, `starts` and `clips` int64 [n].
    """

    def __init__(self, config: DataConfig, split: str, crop: bool = False):
        """`crop`: rows and columns are cropped at random to `--spatial_length` where the stored ones are more.

        Raises:
            UserError: no such folder or address, a damaged or foreign index, shards that differ from it, or clips that
                are shorter than the window.
        """
        at = str(config.data_path)
        self.folder = fetch_codes(at, split, config.cache_dir) if is_address(at) else Path(at).expanduser() / split
        self.index = read_index(self.folder)
        self.stored = tuple(self.index.latent_shape)
        self.label_names, self.n_codes = self.index.label_names, self.index.n_codes
        self.vqgan, self.code_side = self.index.vqgan, max(self.stored[1:])
        self.span = config.latent_frames or self.index.clip.get("latent_frames") or self.stored[0]
        longest = max(self.index.lengths, default=self.stored[0])
        if self.span > longest:
            raise UserError(
                f"--latent_frames {self.span} is more than the {longest} latent frames of the clips in "
                f"{self.folder}: take 1 to {longest}, or longer clips (--sequence_length of `tats tokenize`)"
            )
        side = min(config.spatial_length, *self.stored[1:]) if crop else None
        self.latent_shape = (self.span, side, side) if side else (self.span, *self.stored[1:])
        self.texts = self._texts() if config.text_cond else None
        self.names = self.index.videos
        self._plain = self.latent_shape == self.stored and longest == self.stored[0]  # clips as they are stored
        self.whole = self._plain and self.texts is None  # then nothing is drawn
        self._ends = np.cumsum([shard["clips"] for shard in self.index.shards])
        n_clips = int(self._ends[-1]) if len(self._ends) else 0
        if not n_clips:
            raise UserError(f"{self.folder / INDEX} lists no clips: there is nothing to train on")
        self.lengths = np.array(self.index.lengths or [self.stored[0]] * n_clips, np.int64)
        for shard, end in zip(self.index.shards, self._ends.tolist()):
            self._check(shard, int(self.lengths[end - shard["clips"] : end].sum()))
        short = int((self.lengths < self.span).sum())
        if short:
            say(f"{self.folder}: left out {short} of {n_clips} videos shorter than {self.span} latent frames")
        self.starts = np.maximum(self.lengths - self.span + 1, 0)
        self.clips = self.lengths // self.span
        self._first = (
            np.cumsum(self.lengths) - self.lengths
        )  # latent frames stored before each clip, all shards together
        self._labels = np.array(self.index.label, np.int64)
        self._maps: dict[int, np.ndarray] = {}
        clips = [shard["clips"] for shard in self.index.shards]
        self.beside = {key: Beside(self.folder, key, facts, clips, self.stored[0], self.span)
                       for key, facts in self.index.beside.items()}  # fmt: skip

    def _texts(self) -> list[list[str]]:
        """The captions of every video.

        Raises:
            UserError: a video has none.
        """
        index = self.index
        if not index.captions or not all(index.captions[video] for video in index.video):
            raise UserError(
                f"{self.folder} holds no captions, or not for all videos: make the codes anew with `tats tokenize "
                f"--text_cond`, which keeps them"
            )
        return index.captions

    def _check(self, shard: dict[str, Any], latent_frames: int) -> None:
        path = self.folder / shard["file"]
        if not path.is_file():
            raise UserError(f"{path} is missing. Make the codes anew with `tats tokenize`")
        if sha256_of(path) != shard["sha256"]:
            raise UserError(f"{path} is not the file its index describes. Make the codes anew with `tats tokenize`")
        check_shard(path, self.index.dtype, latent_frames, self.stored[1:], self.n_codes)

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One window, from latent frame `start` of clip `video` on: `video` int64 codes [t, h, w], `label` int, `cbox`
        int64 [4]: first row, end row, first column, end column of the stored picture; `text`, `stft_codes` and
        `smap_codes` as in `read_many`."""
        batch = self.read_many(np.array([video]), np.array([start]), [draw])
        return {name: int(value) if name == "label" else value[0] for name, value in batch.items()}

    def read_many(
        self, clips: np.ndarray, starts: np.ndarray | None = None, draws: Sequence[np.random.Generator] = ()
    ) -> dict[str, Any]:
        """Windows of clips int64 [B] at once, from latent frames `starts` int64 [B] on (None: 0): `video` int64 codes
        [B, t, h, w], `label` int64 [B], `cbox` int64 [B, 4]; with --text_cond `text`, of each one of its captions,
        drawn; where there are any, `stft_codes` and `smap_codes`, int64 [B, t', h', w']. draws: one per clip, needed
        where something is drawn."""
        (t, h, w), (_, height, width) = self.latent_shape, self.stored
        begin = np.zeros((len(clips), 3), np.int64)  # first frame, row and column of each window
        if starts is not None:
            begin[:, 0] = starts
        if (h, w) != (height, width):
            begin[:, 1:] = [[draw.integers(height - h + 1), draw.integers(width - w + 1)] for draw in draws]
        codes = np.empty((len(clips), *self.latent_shape), np.int64)
        more: dict[str, Any] = {}
        if self.texts is not None:
            texts = [self.texts[self.index.video[clip]] for clip in clips.tolist()]
            more["text"] = [each[int(draw.integers(len(each)))] for each, draw in zip(texts, draws, strict=True)]
        shards = np.searchsorted(self._ends, clips, side="right")
        for shard in np.unique(shards):
            of_shard = np.flatnonzero(shards == shard)
            first = int(self._ends[shard - 1]) if shard else 0
            stored = self._map(int(shard))  # [frames, h, w]
            for key, part in self.beside.items():
                read = part.read(int(shard), clips[of_shard] - first, begin[of_shard, 0])
                more.setdefault(f"{key}_codes", read.new_empty(len(clips), *read.shape[1:]))[of_shard] = read
            if self._plain:
                codes[of_shard] = stored.reshape(-1, *self.stored)[clips[of_shard] - first]
                continue
            places = self._first[clips[of_shard]] - self._first[first]
            for at, place, (frame, row, column) in zip(of_shard, places.tolist(), begin[of_shard].tolist()):
                codes[at] = stored[place + frame : place + frame + t, row : row + h, column : column + w]
        rows, columns = begin[:, 1], begin[:, 2]
        box = torch.from_numpy(np.stack([rows, rows + h, columns, columns + w], 1))
        return {"video": torch.from_numpy(codes), "label": torch.from_numpy(self._labels[clips]), "cbox": box, **more}

    def last_frames(self, clip: int, count: int) -> torch.Tensor:
        """The last latent frames of a stored clip: int64 [count, h, w]"""
        shard = int(np.searchsorted(self._ends, clip, side="right"))
        first = int(self._ends[shard - 1]) if shard else 0
        end = int(self._first[clip] - self._first[first] + self.lengths[clip])
        return torch.from_numpy(self._map(shard)[end - count : end].astype(np.int64))

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            facts = self.index.shards[shard]
            first = int(self._ends[shard - 1]) if shard else 0
            shape = (int(self.lengths[first : first + facts["clips"]].sum()), *self.stored[1:])
            self._maps[shard] = np.memmap(self.folder / facts["file"], self.index.dtype, "r", shape=shape)
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would travel as a copy of its content


class CodeFile:
    """The published form: an HDF5 file with `<split>_data` integer [frames, h, w] codes and `<split>_idx`.

    A source of one clip per video and epoch; rows and columns are cropped at random to `--spatial_length` when the
    stored ones are more. `n_codes` from the file's attribute of that name, else that of the published models.
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: the tables are missing or contradict each other, or are smaller than the clip.
        """
        self.config, self.span = config, config.span
        self.table = Table(str(config.data_path), split, ndim=3)
        side = min(self.table.shape[1:])
        if config.spatial_length > side and config.resolution > side:
            raise UserError(
                f"--spatial_length {config.spatial_length} does not fit the codes of {config.data_path}: "
                f"{self.table.shape[1]} rows of {self.table.shape[2]}"
            )
        self.side, self.code_side = min(config.spatial_length, side), max(self.table.shape[1:])
        self.videos = long_enough(self.table, config.span)
        self.starts = self.table.lengths[self.videos] - config.span + 1
        self.clips = np.ones(len(self.videos), np.int64)
        self.n_codes = codebook_of(self.table)
        self.latent_shape = (config.clip_frames, self.side, self.side)
        self.vqgan: str | None = None
        self.label_names: list[str] = []
        self.texts = texts_beside(self.table) if config.text_cond else None

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` int64 codes [t, s, s], `cbox` int64 [4]: first row, end row, first column, end column; with
        --text_cond `text`, one of its captions, drawn."""
        _, height, width = self.table.shape
        y = int(draw.integers(height - self.side + 1)) if height > self.side else 0
        x = int(draw.integers(width - self.side + 1)) if width > self.side else 0
        clip = self.crop(video, start, y, x)
        if self.texts is not None:
            texts = self.texts[int(self.videos[video])]
            clip["text"] = texts[int(draw.integers(len(texts)))]
        return clip

    def crop(self, video: int, start: int, y: int, x: int) -> dict[str, Any]:
        """The clip whose crop begins at row y and column x."""
        first = int(self.table.first[self.videos[video]]) + start
        box = (slice(y, y + self.side), slice(x, x + self.side))
        codes = self.table.rows(first, first + self.span, self.config.sample_every_n_frames, box).astype(np.int64)
        if codes.min() < 0 or codes.max() >= self.n_codes:
            raise UserError(
                f"{self.table.path}: codes {codes.min()} to {codes.max()} do not lie in [0, {self.n_codes})"
            )
        return {
            "video": torch.from_numpy(codes),
            "label": 0,
            "cbox": torch.tensor([y, y + self.side, x, x + self.side]),
        }


def codebook_of(table: Table) -> int:
    """Codes of the codebook, as the file's attribute `n_codes` says; else those of the published models.

    Raises:
        UserError: it says something else.
    """
    said = table.attributes.get("n_codes", PUBLISHED_CODES)
    if not isinstance(said, (int, np.integer)) or not 1 <= int(said) <= 2**31:
        raise UserError(f"{table.path}: its attribute n_codes must be an integer of 1 or more, is {str(said)[:60]}")
    return int(said)
