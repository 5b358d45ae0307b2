"""Values of flags: text from the command line or plain values from YAML, turned into the type of a field."""

import difflib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

YES, NO, NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null", "~")


class UserError(Exception):
    """A mistake of the user: says what was given, what is allowed, what to do. Scripts print it as one line, exit 2."""


class _Required:
    """The default of a flag that must be given."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Any = _Required()


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'batch_size'?`, or nothing when no known name is near."""
    names = sorted(set(known))
    lower = {each.lower(): each for each in reversed(names)}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if not found:  # a shortened name is near to the only one that begins with it or holds it
        found = [each for each in lower if len(name) > 2 and name.lower() in each][:1]
    return f"; did you mean '{lower[found[0]]}'?" if found else ""


def existing_path(path: str | Path, flag: str) -> Path:
    """`path` itself when it exists.

    Raises:
        UserError: naming `flag`, the path, and the nearest entry of the deepest folder that exists.
    """
    wanted = Path(path).expanduser()
    if wanted.exists():
        return wanted
    folder, name = wanted, wanted.name
    while not folder.exists() and folder != folder.parent:
        name, folder = folder.name, folder.parent
    entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    hint = nearest(name, entries) or f"; '{folder}' holds no '{name}'"
    raise UserError(f"{flag} {path}: no such file or folder{hint}")


def new_folder(path: str | Path, flag: str) -> Path:
    """`path` as a folder that is there now, made with its parents where it was missing.

    Raises:
        UserError: naming `flag`, the path and why it can't be made.
    """
    wanted = Path(path).expanduser()
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {path}: this folder can't be made ({error.strerror}); name another one") from None
    return wanted


def is_union(kind: Any) -> bool:
    """True for `X | Y` and `Optional[X]`."""
    return typing.get_origin(kind) in (Union, types.UnionType)


def members(kind: Any) -> list[Any]:
    """The types a value may have, without None."""
    return [each for each in typing.get_args(kind) if each is not type(None)] if is_union(kind) else [kind]


def optional(kind: Any) -> bool:
    """True when None (off) is allowed."""
    return kind is Any or (is_union(kind) and type(None) in typing.get_args(kind))


def length(kind: Any) -> int | None:
    """How many values the flag takes; None for any number, 0 for a switch (which may be followed by a value)."""
    for each in members(kind):
        if typing.get_origin(each) is tuple and Ellipsis not in typing.get_args(each):
            return len(typing.get_args(each))
        if typing.get_origin(each) in (list, tuple):
            return None
    return 0 if bool in members(kind) else 1


def describe(kind: Any) -> str:
    """What a message calls the type: `int`, `3 values of int`, `float or none`."""
    words = []
    for each in members(kind):
        inner = typing.get_args(each)
        if typing.get_origin(each) is tuple and Ellipsis not in inner:
            words.append(f"{len(inner)} values of {describe(inner[0])}")
        elif typing.get_origin(each) in (list, tuple):
            words.append(f"a list of {describe(inner[0])}")
        elif each is bool:
            words.append("true or false")
        else:
            words.append({Path: "path", str: "text"}.get(each, getattr(each, "__name__", str(each))))
    return " or ".join([*words, "none"] if optional(kind) and words else words)


def convert(kind: Any, value: Any) -> Any:
    """`value` as the type `kind`.

    A value that already has one of the types keeps it, so that 1.0 stays different from 1; text is read in the order in
    which the types are written, except that plain text comes last.

    Raises:
        ValueError: the value has none of the types.
    """
    if kind is Any:
        return value
    if optional(kind) and (value is None or (isinstance(value, str) and value.lower() in NONE)):
        return None
    exact = [each for each in members(kind) if type(value) is each and each is not str]
    for each in exact or sorted(members(kind), key=lambda each: each is str):
        try:
            return _convert_one(each, value)
        except (ValueError, OverflowError):
            continue
    raise ValueError(f"expected {describe(kind)}")


def _convert_one(kind: Any, value: Any) -> Any:
    if kind is bool:
        return _convert_bool(value)
    if kind is int and (type(value) is int or isinstance(value, str)):
        return int(value)
    if kind is float and (type(value) in (int, float) or isinstance(value, str)):
        number = float(value)
        if number != number:
            raise ValueError("not a number")
        return number
    if kind in (str, Path) and isinstance(value, (str, Path)):
        return kind(value)
    if typing.get_origin(kind) in (list, tuple):
        return _convert_many(kind, value)
    if (kind is dict or typing.get_origin(kind) is dict) and isinstance(value, dict):
        return dict(value)
    raise ValueError(kind)


def _convert_bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str) and value.lower() in YES + NO:
        return value.lower() in YES
    raise ValueError(value)


def _convert_many(kind: Any, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ValueError(value)
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and Ellipsis not in inner:
        if len(value) != len(inner):
            raise ValueError(value)
        return tuple(convert(each, item) for each, item in zip(inner, value))
    return typing.get_origin(kind)(convert(inner[0], item) for item in value)


def show(value: Any) -> str:
    """A value as it would stand on a command line."""
    if isinstance(value, (list, tuple)):
        return " ".join(show(each) for each in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
