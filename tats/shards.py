"""A checkpoint in parts: one file per process with its rows of every large tensor, and one that says how they belong
together.

    last.ckpt                        everything else; where a tensor belongs, {"sharded": name, "shape": [..]}
    step=120-1f3a9c-0-of-2.shard     the rows of process 0 of every such tensor

A tensor of n rows is cut as torch.chunk does: ceil(n / processes) rows each, the last ones may have fewer or none. So
any number of processes can read what any other has written, each only its own rows. Checkpoints of one folder share
their parts; parts that no checkpoint names are removed. Nothing is unpickled.
"""

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats import whole_files
from tats.flags import UserError

PARTS = "shards"  # of a checkpoint: the names of its parts, by the number of the process
MARK = "sharded"
ENDING = ".shard"


def rows_of(length: int, rank: int, size: int) -> tuple[int, int]:
    """First row, and the one behind the last, of process `rank` of `size`."""
    each = -(-length // size)
    return min(rank * each, length), min((rank + 1) * each, length)


def map_values(value: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """The same tree of dicts and lists with every leaf, by its name such as `state_dict.gpt.head.weight`, changed.
    Dicts that stand for a tensor are leaves."""
    if isinstance(value, dict) and not is_mark(value):
        return {key: map_values(inner, change, f"{name}.{key}" if name else str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [map_values(inner, change, f"{name}.{place}") for place, inner in enumerate(value)]
    return change(name, value)


def is_mark(value: Any) -> bool:
    """Whether something stands for a tensor that lies in the parts."""
    if not isinstance(value, dict) or set(value) != {MARK, "shape"} or not isinstance(value["shape"], list):
        return False
    return bool(value["shape"]) and all(isinstance(length, int) and length > 0 for length in value["shape"])


def write_part(path: Path, token: str, rank: int, size: int, tensors: dict[str, Tensor]) -> None:
    """Write the rows of one process, whole or not at all, with a checksum beside.

    Raises:
        OSError: it can't be written.
    """
    content = {"token": token, "rank": rank, "size": size, "tensors": tensors}
    whole_files.write_whole(path, lambda sink: torch.save(content, sink))  # type: ignore[arg-type]  # a file for it


class Parts:
    """The parts of a checkpoint, open for reading; rows are read when they are asked for."""

    def __init__(self, path: Path, content: dict[str, Any]):
        """path: the checkpoint. content: what it holds.

        Raises:
            UserError: a part is missing, damaged, or of another checkpoint.
        """
        self.path, names = path, content[PARTS]
        if not isinstance(names, list) or not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise UserError(f"{path}: its parts are not named as files of the same folder")
        self.files = [self._open(path.parent / name, rank, len(names)) for rank, name in enumerate(names)]
        tokens = {file["token"] for file in self.files}
        if len(tokens) > 1:
            raise UserError(f"{path}: its parts are of different checkpoints")

    def _open(self, part: Path, rank: int, size: int) -> dict[str, Any]:
        if not part.is_file():
            raise UserError(f"{self.path}: its part {part.name} is missing")
        try:
            file = torch.load(part, map_location="cpu", weights_only=True, mmap=True)
            if (file["rank"], file["size"]) != (rank, size) or not isinstance(file["tensors"], dict):
                raise ValueError("it is another part")
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
            told = str(error).splitlines()
            raise UserError(f"{part} is damaged: {told[0] if told else 'it is empty'}") from None
        return file

    def rows(self, name: str, shape: list[int], first: int, end: int) -> Tensor:
        """Rows `first` to `end` of a tensor.

        Raises:
            UserError: a part does not hold its rows.
        """
        size, pieces = len(self.files), []
        for rank, file in enumerate(self.files):
            begin, behind = rows_of(shape[0], rank, size)
            piece = file["tensors"].get(name)
            if not isinstance(piece, Tensor) or list(piece.shape) != [behind - begin, *shape[1:]]:
                raise UserError(f"{self.path}: part {rank} does not hold its rows of {name}")
            if begin < end and behind > first:
                pieces.append(piece[max(first - begin, 0) : end - begin])
            elif not pieces:
                empty = piece[:0]
        return torch.cat(pieces) if pieces else empty


def whole(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint in parts as one: model and averages with all their rows. What optimizers hold stays as it is."""
    if PARTS not in content:
        return content
    parts = Parts(path, content)

    def complete(name: str, value: Any) -> Any:
        return parts.rows(value[MARK], value["shape"], 0, value["shape"][0]) if is_mark(value) else value

    both: dict[str, Any] = {
        key: map_values(content[key], complete, key) for key in ("state_dict", "ema") if key in content
    }
    return {**content, **both}


def check(path: Path, content: dict[str, Any]) -> None:
    """Raise UserError when a part of a checkpoint is missing or is not what its checksum says."""
    names = content.get(PARTS, [])
    for name in names if isinstance(names, list) else [names]:
        part = path.parent / Path(str(name)).name
        wrong = whole_files.damage(part) if part.is_file() else "it is missing"
        if wrong is not None:
            raise UserError(f"{path} is damaged: its part {part.name}: {wrong}")


def sweep(folder: Path, paths: Iterable[Path]) -> None:
    """Remove the parts in a folder that none of these checkpoints names; a checkpoint that can't be read keeps all."""
    named: set[str] = set()
    for path in paths:
        try:
            named |= set(torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(PARTS, []))
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
            return
    for part in folder.glob(f"*{ENDING}"):
        if part.name not in named:
            whole_files.remove(part)
