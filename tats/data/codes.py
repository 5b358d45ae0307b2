"""Codes computed beforehand: memory-mapped shards, and the published HDF5 files.

A folder of shards, as `tats tokenize` writes it, has `<split>/index.json` and `<split>/codes_00000.bin` ...: clips of
codes [t, h, w] one after the other, uint16 (int32 beyond 65536 codes). The index holds, per clip, its label, the
video and the frame it was cut from, and its length where clips are whole videos; per video its name and captions; and
for all: names of the labels, shape, codebook size, how the clips were cut, the fingerprint of the VQGAN, and per shard
the number of clips and the SHA-256. Codes of sounds and semantic maps lie beside them (`tats.data.beside`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.beside import Beside, BesideWriter, dtype_of
from tats.data.code_index import check_index, check_shard
from tats.data.config import DataConfig
from tats.data.hdf5 import Table, long_enough, texts_beside
from tats.data.left_out import say
from tats.flags import UserError
from tats.plain import read_json

INDEX = "index.json"
KIND = "tats codes"
VERSION = 1
SHARD_BYTES = 256 * 2**20
PUBLISHED_CODES = 16384  # codebook of the published HDF5 files of codes, which do not say


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


class CodeWriter:
    """Writes one split of code shards: `add` clips, then `close`, which writes the index last.

    A folder without an index is no data set, so a stopped run leaves nothing that could be taken for one.
    """

    def __init__(self, folder: Path, index: Index, shard_bytes: int = SHARD_BYTES):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.index = folder, index
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
        content = {"kind": KIND, "version": VERSION, **asdict(self.index)}
        partial = self.folder / f"{INDEX}.tmp"
        partial.write_text(json.dumps(content))
        os.replace(partial, self.folder / INDEX)

    def _next_shard(self) -> None:
        self._finish_shard()
        self._beside.next_shard(len(self.index.shards))
        name = f"codes_{len(self.index.shards):05d}.bin"
        self._file, self._hash = (self.folder / name).open("wb"), hashlib.sha256()
        self.index.shards.append({"file": name, "clips": 0, "sha256": ""})

    def _finish_shard(self) -> None:
        if self._file is not None:
            self._beside.finish_shard()
            self._file.close()
            self._file = None
            self.index.shards[-1]["sha256"] = self._hash.hexdigest()


class CodeShards:
    """The clips of codes of one split as a source: windows of them, as long as `--latent_frames` says (else whole).

    An epoch has as many windows as lie side by side. `index` what is known of the clips, `label_names`, `n_codes`,
    `latent_shape` of a window, `code_side` the longer side of the stored pictures, `starts` and `clips` int64 [n].
    """

    def __init__(self, config: DataConfig, split: str, crop: bool = False):
        """`crop`: rows and columns are cropped at random to `--spatial_length` where the stored ones are more.

        Raises:
            UserError: no such folder, a damaged or foreign index, shards that differ from it, or clips that are shorter
                than the window.
        """
        self.folder = Path(str(config.data_path)).expanduser() / split
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
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
        if digest.hexdigest() != shard["sha256"]:
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
        self.n_codes = int(self.table.attributes.get("n_codes", PUBLISHED_CODES))
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


def read_index(folder: Path) -> Index:
    """The index of a folder of shards.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} holds no {INDEX}: --vtokens needs the codes that `tats tokenize` writes")
    content = read_json(folder / INDEX)
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("version") != VERSION:
        raise UserError(f"{folder / INDEX} is not an index of codes of version {VERSION}")
    try:
        index = Index(**{key: value for key, value in content.items() if key not in ("kind", "version")})
        t, h, w = index.latent_shape
        index.latent_shape = (t, h, w)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / INDEX} is damaged: {error}") from error
    check_index(index, folder / INDEX)
    return index


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while piece := file.read(2**20):
        digest.update(piece)
    return digest
