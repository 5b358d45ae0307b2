"""Plain values from files (JSON): read without surprises, and compared with the types they should have."""

import json
import types
import typing
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

from tats.flags_values import UserError

MOST_TEXT = 5_000  # bytes of one caption
_NOT_SHOWN = ("Cc", "Cs")  # Unicode's classes of control characters and of surrogates


def read_json(path: Path, otherwise: str = "") -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is missing, no UTF-8, no JSON, or nested too deeply; `otherwise` says what to do then.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}{_then(otherwise)}") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for a file of its kind{_then(otherwise)}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}{_then(otherwise)}") from error


def plain_text(text: str) -> str:
    """A text from a file as it may be shown and cut into byte pairs: without control characters (which steer a
    terminal), which become spaces, and without halves of characters.

    Raises:
        ValueError: it has more than `MOST_TEXT` bytes. Byte pairs take time with the square of a word's length.
    """
    shown = "".join(letter if unicodedata.category(letter) not in _NOT_SHOWN else " " for letter in text[:MOST_TEXT])
    size = len(text.encode("utf-8", "replace"))
    if size > MOST_TEXT:
        raise ValueError(f"a text of {size:,} bytes; captions have at most {MOST_TEXT:,}: {shown[:40].strip()!r}...")
    return shown


def _then(otherwise: str) -> str:
    return f"; {otherwise}" if otherwise else ""


def matches(kind: Any, value: Any) -> bool:
    """Whether a plain value has a type: bool, int (no bool), float (or int), str, None, list, tuple (a list will do),
    dict, `Any`, and unions and parts of these."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(matches(each, value) for each in parts)
    if kind in (None, type(None)):
        return value is None
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if origin is tuple and Ellipsis not in parts:
        return isinstance(value, (list, tuple)) and len(value) == len(parts) and all(map(matches, parts, value))
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(matches(parts[0], each) for each in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(matches(parts[0], k) and matches(parts[1], v) for k, v in pairs)
    return isinstance(value, kind)


def mismatch(cls: type, values: Mapping[str, Any]) -> str | None:
    """The first of `values` that has not the type of the field of `cls` of its name, in words; None when all have."""
    for name, kind in typing.get_type_hints(cls).items():
        if name in values and not matches(kind, values[name]):
            shown = repr(values[name])
            return f"'{name}' is {shown[:60]}{'...' if len(shown) > 60 else ''}"
    return None
