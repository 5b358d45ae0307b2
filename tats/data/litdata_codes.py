"""Codes in the form of litdata, for data larger than the disk of a machine: chunks come from an object store as they
are needed, and leave again.

    <split>/index.json, chunk-*.bin     what litdata writes: an array of codes [t, h, w] per clip
    <split>/codes.json                  what is known of the clips: the index of code shards

litdata is an extra; nothing else needs it. Which clip comes when follows from (seed, epoch, index), as everywhere:
clips are asked for by their number, and litdata's own order is not used.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.code_index import INDEX, Index, read_index, write_index
from tats.data.config import DataConfig
from tats.data.left_out import say
from tats.data.remote import cache_folder, is_address, read_bytes
from tats.flags import UserError
from tats.plain import matches, read_json

ABOUT = "codes.json"
CHUNK = "64MB"
FORMATS = {
    "numpy",
    "no_header_numpy",
}  # of the arrays in the chunks; others of litdata's may run code when they are read
INSTALL = (
    "pip install --no-deps litdata && pip install boto3 obstore tifffile requests lightning-utilities (its own list of "
    "packages would bring torchvision along)"
)


def write_litdata(shards: Path, out: Path) -> Path:
    """Code shards of both splits once more, for litdata, below `out`; returns that folder.

    Raises:
        UserError: litdata is not installed, or `out` holds something already.
    """
    writer_of = _litdata("streaming.writer").BinaryWriter
    from tqdm import tqdm

    from tats.data.codes import CodeShards

    for split in ("train", "test"):
        folder = out / split
        if (folder / ABOUT).is_file():
            say(f"{folder}: these codes are there already")
            continue
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"--out {out} holds {split}/ already, and not these codes: delete it, or name another folder"
            )
        source = CodeShards(DataConfig(data_path=str(shards), vtokens=True), split)
        folder.mkdir(parents=True, exist_ok=True)
        writer = writer_of(str(folder), chunk_bytes=CHUNK)
        for clip in tqdm(range(len(source.lengths)), desc=f"litdata in {folder}", unit=" clips"):
            codes = source.last_frames(clip, int(source.lengths[clip])).numpy().astype(source.index.dtype)
            writer[clip] = {"codes": codes}
        writer.done()
        writer.merge()
        write_index(folder, source.index, ABOUT)
    return out


def is_litdata(data_path: str, split: str) -> bool:
    """Whether the codes at a folder or an address are in the form of litdata."""
    if is_address(data_path):
        try:
            return bool(read_bytes(f"{data_path.rstrip('/')}/{split}/{ABOUT}"))
        except UserError:
            return False
    return (Path(data_path).expanduser() / split / ABOUT).is_file()


class LitCodes:
    """The clips of codes of one split as a source: windows of `--latent_frames` of them, as of shards, else whole."""

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: litdata is not installed; the index is missing or damaged; or windows are longer than the clips.
        """
        at = str(config.data_path).rstrip("/")
        self.place = f"{at}/{split}" if is_address(at) else str(Path(at).expanduser() / split)
        self.cache = str(cache_folder(self.place, config.cache_dir)) if is_address(at) else None
        self.index = self._index()
        self._dataset_of = _litdata().StreamingDataset
        stored = self.index.latent_shape
        self.span = config.latent_frames or self.index.clip.get("latent_frames") or stored[0]
        n = len(self.index.video)
        self.lengths = np.array(self.index.lengths or [stored[0]] * n, np.int64)
        if not n or self.span > int(self.lengths.max()):
            raise UserError(
                f"--latent_frames {self.span} is more than the clips in {self.place} have: take fewer, or longer clips"
            )
        self.label_names, self.n_codes, self.vqgan = self.index.label_names, self.index.n_codes, self.index.vqgan
        self.latent_shape, self.code_side = (self.span, *stored[1:]), max(stored[1:])
        self.names, self.labels = self.index.videos, np.array(self.index.label, np.int64)
        self.starts, self.clips = np.maximum(self.lengths - self.span + 1, 0), self.lengths // self.span
        self._opened: tuple[int, Any] | None = None

    def _index(self) -> Index:
        """What is known of the clips; chunks that hold anything but arrays are refused."""
        folder = Path(self.place)
        if self.cache is not None:
            folder = Path(self.cache) / "index"
            folder.mkdir(parents=True, exist_ok=True)
            for name in (INDEX, ABOUT):
                (folder / name).write_bytes(read_bytes(f"{self.place}/{name}"))
        said = read_json(folder / INDEX)
        known = isinstance(said, dict) and matches(dict[str, Any], said.get("config"))
        formats: Any = said["config"].get("data_format") if known else None
        if not matches(list[str], formats) or len(formats) != 1 or formats[0] not in FORMATS:
            raise UserError(f"{self.place} is refused: its chunks hold {str(formats)[:80]}, and only arrays are read")
        return read_index(folder, ABOUT)

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One window, from latent frame `start` of clip `video` on: `video` int64 codes [t, h, w], `label` int, `cbox`
        int64 [4]: first row, end row, first column, end column.

        Raises:
            UserError: the clip is not what the index says.
        """
        codes = np.asarray(self._dataset()[int(video)]["codes"])
        expected = (int(self.lengths[video]), *self.latent_shape[1:])
        if codes.shape != expected or codes.dtype.kind not in "ui" or int(codes.max(initial=0)) >= self.n_codes:
            raise UserError(f"{self.place}: clip {video} is {codes.dtype} {list(codes.shape)}, its index tells of {list(expected)} and {self.n_codes} codes")  # fmt: skip  # noqa: E501
        window = torch.from_numpy(codes[start : start + self.span].astype(np.int64))
        _, height, width = self.latent_shape
        return {"video": window, "label": int(self.labels[video]), "cbox": torch.tensor([0, height, 0, width])}

    def _dataset(self) -> Any:
        """litdata's data set, made anew in every process."""
        if self._opened is None or self._opened[0] != os.getpid():
            more = {} if self.cache is None else {"cache_dir": self.cache}
            self._opened = (os.getpid(), self._dataset_of(self.place, shuffle=False, **more))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def _litdata(module: str = "") -> Any:
    """litdata, or one of its modules.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"litdata.{module}" if module else "litdata")
    except ImportError as error:
        raise UserError(f"codes for litdata need litdata, which cannot be imported ({error}): {INSTALL}") from None
