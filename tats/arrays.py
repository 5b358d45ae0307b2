"""Arrays from .npy and .npz files, without trusting what these say of themselves; nothing in them is ever run.

A header of some bytes can announce an array of terabytes: what is announced is compared with what is there before
memory is taken.
"""

import io
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tats import limits
from tats.flags import UserError

BROKEN = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a damaged or hostile file makes numpy and the readers below it raise. `SyntaxError`, `TokenError`: a header is a
Python literal; `MemoryError`: sizes in it."""


class ArrayError(UserError):
    """A file of arrays cannot be read. The message names the file."""


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file; it stays on the disk until it is used.

    Raises:
        ArrayError: the file is missing, damaged, shorter than its header says, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            announced = _announced(file)
            begin = file.tell()
        if announced > path.stat().st_size - begin:
            raise ValueError(f"it announces {announced:,} bytes of numbers and has {path.stat().st_size - begin:,}")
        array = _checked_text(np.load(path, mmap_mode="r" if announced else None, allow_pickle=False))
    except BROKEN as error:
        raise ArrayError(f"{path}: {reason(error)}") from None
    if not isinstance(array, np.ndarray):
        raise ArrayError(f"{path}: no .npy file")
    return array


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name.

    Raises:
        ArrayError: the file is missing or damaged, would unpack to more than `--max_unpacked_mb`, or holds something
            else than arrays of plain values.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return {about.filename.removesuffix(".npy"): _member(file, about) for about in file.infolist()}
    except BROKEN as error:
        raise ArrayError(f"{path}: {reason(error)}") from None


def _member(file: zipfile.ZipFile, about: zipfile.ZipInfo) -> np.ndarray:
    if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
        raise ValueError(f"{about.filename} is packed in a way that numpy does not use")
    if about.compress_type:
        wrong = limits.problem("max_unpacked_mb", about.file_size / 1e6, "{:,.0f} MB unpacked")
        if wrong is not None:
            raise ValueError(f"{about.filename} would be {wrong}")
    with file.open(about) as member:
        announced = _announced(member)
        if announced != about.file_size - member.tell():
            raise ValueError(f"{about.filename} announces {announced:,} bytes of numbers, and has others")
    with file.open(about) as member:
        return _checked_text(np.lib.format.read_array(member, allow_pickle=False))


def _checked_text(array: np.ndarray) -> np.ndarray:
    """The array, unless it is of text with numbers that no character has: Python fails in its core on those."""
    if array.dtype.kind == "U":
        points = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if points.max(initial=0) > sys.maxunicode:
            raise ValueError("holds text with characters that there are none of")
    return array


def _announced(file: Any) -> int:
    """Bytes of numbers that the header of an array announces; the file stands behind it then."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array file of version {version}")
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never read")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array of the shape {list(shape)}")
    return math.prod(shape) * dtype.itemsize


def read_array_bytes(data: bytes) -> np.ndarray:
    """The array of the content of a .npy file.

    Raises:
        ArrayError: it is damaged, or holds Python objects.
    """
    try:
        file: BinaryIO = io.BytesIO(data)
        if _announced(file) > len(data) - file.tell():
            raise ValueError("it is cut short")
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except BROKEN as error:
        raise ArrayError(reason(error)) from None


def reason(error: BaseException) -> str:
    """What went wrong, in one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
