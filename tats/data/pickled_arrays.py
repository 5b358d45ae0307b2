"""The one array in a pickle, without running anything that the pickle names.

A pickled array names a few parts of numpy. Each of these names stands for a small piece of this file here, which takes
plain numbers only; every other name is refused before anything is made of it.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

from tats.arrays import BROKEN, ArrayError, reason

KINDS = "fuib"  # floats, integers and truth values
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric", "numpy")


class _Type:
    """What `numpy.dtype` stands for: the type of plain numbers."""

    def __init__(self, name: Any, *_: Any):
        self.dtype = np.dtype(name if isinstance(name, str) else b"".join([name]).decode("ascii"))

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


class _Kind:
    """What `numpy.ndarray` stands for: a name that `_reconstruct` is given, and nothing that can be called."""


class _Array:
    """What `_reconstruct` makes: an array that gets its numbers by `__setstate__`."""

    def __init__(self, *_: Any):
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.array = _filled(data, kind, shape, "F" if fortran else "C")


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> _Array:
    """What numpy's function of this name stands for: an array of protocol 5."""
    made = _Array()
    made.array = _filled(data, kind, shape, order)
    return made


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """What `_codecs.encode` stands for: protocol 2 spells bytes as text."""
    if str(encoding) != "latin1":
        raise ValueError(f"text in the encoding {encoding!r}")
    return str.encode(text, "latin1")


def _filled(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _Type):
        raise TypeError("an array without a type of numbers")
    if kind.dtype.kind not in KINDS:
        raise ValueError(f"a sound is an array [pictures, rows, columns] of numbers, this is {kind.dtype}")
    numbers = str.encode(data, "latin1") if isinstance(data, str) else data  # Python 2 wrote text
    sizes = [int(size) for size in shape]
    if not isinstance(numbers, (bytes, bytearray)) or any(size < 0 for size in sizes):
        raise ValueError("no plain array")
    if math.prod(sizes) * kind.dtype.itemsize != len(numbers):
        raise ValueError(f"an array {sizes} of {kind.dtype} in {len(numbers):,} bytes")
    return np.frombuffer(numbers, kind.dtype).reshape(sizes, order="F" if str(order) == "F" else "C")


_PARTS = {"dtype": _Type, "ndarray": _Kind, "_reconstruct": _Array, "_frombuffer": _frombuffer}


class _Unpickler(pickle.Unpickler):
    """Knows the parts above and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in MODULES and name in _PARTS:
            return _PARTS[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"holds {module}.{name}; only plain arrays are read")


def load(data: bytes) -> np.ndarray:
    """The array in a pickle of it, of any protocol, written by Python 2 or 3.

    Raises:
        ArrayError: it is damaged, or holds anything else than one array of numbers.
    """
    try:
        found = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except (*BROKEN, pickle.UnpicklingError) as error:
        raise ArrayError(reason(error)) from None
    if not isinstance(found, _Array) or found.array is None:
        raise ArrayError("a sound is an array [pictures, rows, columns] of numbers, this holds no array")
    return found.array
