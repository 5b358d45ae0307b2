"""Reading pickled checkpoints without running what is in them.

A `torch.save` file is a pickle, and a pickle may name any function to be called. torch's restricted reader refuses
every name but a few harmless ones. Released checkpoints also hold `argparse.Namespace` (their flags), which is allowed
here, and some name classes and functions of the trainer that wrote them; these become empty stand-ins, never the real
thing.
"""

import argparse
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from tats import limits
from tats.flags import UserError

RATIO = 200  # times its packed size that a member of a checkpoint may have
_TRAINER = "pytorch_lightning."
# what a damaged or hostile file makes torch's reader raise
_BROKEN = (
    RuntimeError,
    MemoryError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    ImportError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


def load(path: str | Path) -> Any:
    """The content of a `torch.save` file: tensors (on the CPU, mapped from the file, not yet read) and plain values.

    The tensors are views of the file: copy what is kept, so that a file that is written anew does no harm.
    Raises `UserError` where the file is missing, damaged, no checkpoint, or names something outside of the trainer
    that wrote it; nothing of the file is ever executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        return _load_old(path)
    _check_members(path)
    stand_ins = [(_stand_in(name), name) for name in _names_in_the_way(path)]
    if stand_ins:
        names = ", ".join(name for _, name in stand_ins)
        print(f"{path}: names of the trainer that wrote it are replaced by empty stand-ins: {names}", file=sys.stderr)
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *stand_ins]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def _check_members(path: Path) -> None:
    """Raise `UserError` where a member would unpack to more than a limit; torch itself packs nothing."""
    try:
        with zipfile.ZipFile(path) as file:
            packed = [about for about in file.infolist() if about.compress_type != zipfile.ZIP_STORED]
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    for about in packed:
        wrong = limits.problem("max_unpacked_mb", about.file_size / 1e6, "{:,.0f} MB")
        if wrong is not None or about.file_size > RATIO * max(about.compress_size, 1 << 10):
            raise UserError(
                f"{path}: refused, because its member {about.filename[:200]!r} would grow from {about.compress_size:,} "
                f"to {about.file_size:,} bytes"
            )


def _names_in_the_way(path: Path) -> list[str]:
    """The names in the file that the restricted reader does not know, all of them the trainer's; else `UserError`."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    foreign = [name for name in names if not name.startswith(_TRAINER)]
    if foreign:
        raise UserError(
            f"{path}: refused, because reading it would need {', '.join(foreign)}. A checkpoint holds tensors and "
            "plain values; only names of the trainer that wrote it are replaced by stand-ins. Nothing was executed"
        )
    return names


def _stand_in(name: str) -> type:
    """An empty class under a foreign name: it takes any arguments and any state, and keeps and does nothing."""

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    module, _, last = name.rpartition(".")
    members = {"__new__": new, "__init__": nothing, "__setstate__": nothing, "__module__": module}
    return type(last, (), members)


def _load_old(path: Path) -> Any:
    """Files from before torch 1.6 are no zip archives; they can't be listed beforehand, only be read or refused."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> UserError:
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    for refused in ("GLOBAL ", "unrecognized function ", "whose module "):
        if refused in text:
            return UserError(f"{path}: refused, because reading it would run foreign code ({reason[:200]})")
    size = path.stat().st_size
    return UserError(
        f"{path}: not a checkpoint, or cut short ({size:,} bytes; {reason[:160]}). Compare its size with the original "
        "and copy or download it again"
    )
