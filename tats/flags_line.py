"""Reading a command line and YAML files for `flags.parse`, and writing the help page."""

import dataclasses
import shutil
import sys
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats.flags_values import REQUIRED, UserError, describe, existing_path, length, members, nearest, show

if TYPE_CHECKING:
    from tats.flags import Flag

Notes = Mapping[str, tuple[int | str, str]]

OWN = {
    "help": "show this page and leave",
    "config": "YAML file with settings, may be repeated; flags win over files, later files over earlier ones",
    "print_config": "print the resulting settings as YAML and leave",
}


@dataclasses.dataclass
class Line:
    """What a command line says."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: list[str] = dataclasses.field(default_factory=list)
    noted: dict[str, str] = dataclasses.field(default_factory=dict)
    help: bool = False
    print_config: bool = False


def spellings(flags: "list[Flag]") -> "dict[str, tuple[Flag, bool]]":
    """Every accepted name of a flag -> the flag, and whether this name switches it off."""
    names = {name: (flag, False) for flag in flags if flag.is_flag for name in (flag.name, *flag.aliases)}
    for flag in flags:
        if flag.is_flag and flag.negative and flag.negative not in names:
            names[flag.negative] = (flag, True)
    return names


def read_line(flags: "list[Flag]", notes: Notes, argv: list[str]) -> Line:
    """Reads `--flag value ...`, `--flag=value`, `--switch`, `--no_switch`; `-` and `_` in names are the same.

    Raises:
        UserError: an unknown flag, a value too many or too few, a wrong value.
    """
    known = spellings(flags)
    line = Line()
    at = 0
    while at < len(argv):
        token, at = argv[at], at + 1
        if token == "-h":
            token = "--help"
        if not token.startswith("--") or token == "--":
            raise UserError(f"'{token}' stands alone: every value follows its flag{_hint(token, known, notes)}")
        spelling, equals, text = token[2:].partition("=")
        values = [text] if equals else []
        while not equals and at < len(argv) and not argv[at].startswith("--") and argv[at] != "-h":
            values.append(argv[at])
            at += 1
        _take(line, known, notes, spelling, values)
    return line


def _take(line: Line, known: "dict[str, tuple[Flag, bool]]", notes: Notes, spelling: str, values: list[str]) -> None:
    name = next((each for each in (spelling, spelling.replace("-", "_")) if each in known or each in notes), spelling)
    own = spelling.replace("-", "_")
    if name in known:
        flag, off = known[name]
        line.values[flag.name] = _value(flag, off, spelling, values)
    elif name in notes:
        _check_count(f"--{spelling}", notes[name][0], values)
        line.noted[name] = notes[name][1]
    elif own == "config":
        if not values:
            raise UserError("--config takes the path of a YAML file, none was given")
        line.files += values
    elif own in ("help", "print_config"):
        _check_count(f"--{spelling}", 0, values)
        setattr(line, own, True)
    else:
        raise UserError(f"unknown flag --{spelling}{_hint(spelling, known, notes)}; --help lists all")


def _hint(name: str, known: "dict[str, tuple[Flag, bool]]", notes: Notes) -> str:
    """The nearest flag; switched-off spellings only count for names that begin with `no`."""
    name = name.lstrip("-").replace("-", "_")
    names = [each for each, (_, off) in known.items() if not off or name.startswith("no")]
    return nearest(name, [*names, *notes, *OWN]).replace("did you mean '", "did you mean '--")


def _check_count(given: str, count: int | str, values: list[str]) -> None:
    allowed = {"?": len(values) <= 1, "*": True, "+": len(values) >= 1}.get(str(count), len(values) == count)
    if not allowed:
        raise UserError(f"{given} takes {count} values, got {len(values)}: {show(values)}")


def _value(flag: "Flag", off: bool, spelling: str, values: list[str]) -> Any:
    given, count = f"--{spelling}", length(flag.kind)
    if off:
        if values:
            raise UserError(f"{given} takes no value, got '{show(values)}'")
        return False
    if count == 0 and not values:
        return True
    if not values and count is not None:
        raise UserError(f"{given} takes {describe(flag.kind)}, nothing was given")
    if count is None or count > 1:
        alone = len(values) == 1 and values[0].lower() in ("none", "null")
        return flag.convert(values[0] if alone else values, given)
    if len(values) > 1:
        raise UserError(f"{given} takes one value, got {len(values)}: {show(values)}")
    return flag.convert(values[0], given)


def read_yaml(flags: "list[Flag]", notes: Notes, path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of one file, flat or grouped as the config's groups are, and what is to be said about them.

    Raises:
        UserError: naming the file, and the key where one is at fault.
    """
    import yaml

    file = existing_path(path, "--config")
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"--config {path}: not a readable YAML file: {error}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: expected keys with values, such as 'batch_size: 4', got {type(content).__name__}"
        )
    names = {name: flag for flag in flags if flag.is_flag for name in (flag.name, *flag.aliases)}
    groups = {part for flag in flags for part in flag.path}
    chosen: dict[str, Any] = {}
    noted: dict[str, str] = {}
    waiting = list(content.items())
    while waiting:
        key, value = waiting.pop(0)
        if key in groups and isinstance(value, dict):
            waiting += value.items()
        elif key in names:
            flag = names[key]
            required = flag.default is REQUIRED and value is None
            chosen[flag.name] = REQUIRED if required else flag.convert(value, f"{key} in {path}")
        elif key in notes:
            noted[key] = notes[key][1]
        else:
            raise UserError(f"{path}: unknown key '{key}'{nearest(str(key), [*names, *notes, *groups])}")
    return chosen, noted


def say_notes(noted: Mapping[str, str]) -> None:
    """One line on standard error for each flag that is accepted without effect."""
    for name, message in noted.items():
        print(f"note: --{name}: {message}", file=sys.stderr)


def write_help(cls: type, flags: "list[Flag]", notes: Notes, prog: str) -> str:
    """The page for `--help`: description, then the flags by group with types, defaults and choices."""
    width = min(120, max(60, shutil.get_terminal_size((100, 24)).columns))
    parts = [f"usage: {prog} [--config FILE] [--flag value ...]", ""]
    if cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("):
        parts += [line for text in cls.__doc__.strip().split("\n\n") for line in _wrap(text, width)]
    groups: dict[str, list[Flag]] = {}
    for flag in flags:
        if flag.is_flag:
            groups.setdefault(flag.group, []).append(flag)
    for title, inside in groups.items():
        parts.append(f"{title}:")
        for flag in inside:
            parts += _entry(_left(flag), _right(flag), width)
        parts.append("")
    parts.append("settings:")
    for name, text in OWN.items():
        left = {"help": "-h, --help", "config": "--config FILE"}.get(name, f"--{name}")
        parts += _entry(left, text, width)
    if notes:
        parts += ["", "accepted without effect:"]
        for name, (_, text) in notes.items():
            parts += _entry(f"--{name}", text, width)
    return "\n".join(parts) + "\n"


def _wrap(text: str, width: int) -> list[str]:
    return [*textwrap.wrap(" ".join(text.split()), width), ""] if text else []


def _left(flag: "Flag") -> str:
    names = ", ".join(f"--{name}" for name in (flag.name, *flag.aliases))
    if length(flag.kind) == 0:
        return names if flag.name.startswith("no_") else f"{names}, --{flag.negative}"
    kinds = members(flag.kind)
    if typing.get_origin(kinds[0]) in (list, tuple):
        kinds = members(typing.get_args(kinds[0])[0])
    words = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
    word = "|".join(dict.fromkeys(words.get(each, "VALUE") for each in kinds))
    count = length(flag.kind)
    return f"{names} {' '.join([word] * count) if count else word + ' ...'}"


def _right(flag: "Flag") -> str:
    text = flag.help
    if flag.choices:
        text += f" [{', '.join(map(show, flag.choices))}]"
    if flag.default is REQUIRED:
        return f"{text} (required)"
    return f"{text} (default: {show(flag.default)})" if flag.default != "" else text


def _entry(left: str, right: str, width: int) -> list[str]:
    indent = 30
    lines = textwrap.wrap(right, width - indent) or [""]
    first = f"  {left}"
    if len(first) < indent - 1:
        return [first.ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])]
    return [first, *(" " * indent + line for line in lines)]
