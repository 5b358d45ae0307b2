"""Command line and YAML from dataclasses: the field is the flag, its annotation the type.

    @dataclass(frozen=True)
    class Config:
        '''Trains the thing.'''
        batch_size: int = arg(32, "clips per step")
        data: DataConfig = field(default_factory=DataConfig)     # a group: its fields are flags of the script too

    config = parse(Config)

Values come from the defaults, then from the YAML files given with `--config` in their order, then from the flags.
"""

import dataclasses
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from tats import limits
from tats.flags_values import REQUIRED, UserError, convert, describe, existing_path, length, nearest, new_folder, show

__all__ = [
    "REQUIRED",
    "UserError",
    "arg",
    "existing_path",
    "from_dict",
    "nearest",
    "new_folder",
    "parse",
    "run",
    "save_yaml",
    "to_dict",
]

Config = TypeVar("Config")
_MISSING = dataclasses.MISSING


def arg(
    default: Any,
    help: str,
    choices: Sequence[Any] | None = None,
    *,
    flag: bool = True,
    aliases: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is also a flag. `default=REQUIRED` makes it a flag that must be given; `flag=False` keeps
    it out of the command line (sizes that follow from data or checkpoints); `aliases` are further spellings."""
    metadata = {"help": help, "choices": choices, "flag": flag, "aliases": aliases}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Flag:
    """One field of a config: where it lives (`path` of group names), its type, default and help."""

    name: str
    path: tuple[str, ...]
    group: str
    kind: Any
    default: Any
    help: str
    choices: Sequence[Any] | None
    is_flag: bool
    aliases: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name; for a field that is no flag its place, because it may share the name of a flag of another group."""
        return self.name if self.is_flag else ".".join((*self.path, self.name))

    @property
    def negative(self) -> str | None:
        """The spelling that switches it off: --no_x for --x, and --x for --no_x."""
        if length(self.kind) != 0:
            return None
        return self.name[3:] if self.name.startswith("no_") else "no_" + self.name

    def convert(self, value: Any, given: str) -> Any:
        """`value` as the type of this flag; `given` says in errors where it was given."""
        try:
            result = convert(self.kind, value)
        except ValueError:
            raise UserError(f"{given} takes {describe(self.kind)}, got {_quoted(value)}") from None
        for each in result if isinstance(result, (list, tuple)) else [result]:
            if self.choices and each is not None and each not in self.choices:
                allowed = ", ".join(map(show, self.choices))
                hint = nearest(str(each), map(str, self.choices))
                raise UserError(f"{given} takes one of {allowed}; got {_quoted(each)}{hint}")
        return result


def _quoted(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _hints(cls: type) -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(cls).items() if typing.get_origin(kind) is not ClassVar}


def collect(cls: type, path: tuple[str, ...] = (), group: str = "options", given: Any = _MISSING) -> list[Flag]:
    """Every field of the config class and of its groups, in order.

    Raises:
        TypeError: two flags share a name; names of flags are unique over a script.
    """
    found: list[Flag] = []
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        default = field.default if field.default is not _MISSING else REQUIRED
        if field.default_factory is not _MISSING:
            factory: Any = field.default_factory
            default = _MISSING if factory is hints[field.name] and given is _MISSING else factory()
        if given is not _MISSING:
            default = getattr(given, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            inner: Any = hints[field.name]
            found += collect(inner, (*path, field.name), _title(inner, field.name), default)
            continue
        meta = field.metadata
        aliases = tuple(meta.get("aliases", ()))
        entry = (meta.get("help", ""), meta.get("choices"), meta.get("flag", True), aliases)
        found.append(Flag(field.name, path, group, hints[field.name], default, *entry))
    names = [each for flag in found if flag.is_flag for each in (flag.name, *flag.aliases)]
    for name in names:
        if names.count(name) > 1:
            raise TypeError(f"two flags of {cls.__name__} and its groups are called '{name}'")
    return found


def _limits() -> list[Flag]:
    """The limits on what is read from files: flags of every command, fields of no config."""
    title = "limits on what is read from files"
    return [
        Flag(name, ("limits",), title, int, limits.limit(name), help, None, True, ())
        for name, (_, help) in limits.LIMITS.items()
    ]


def _title(cls: type, name: str) -> str:
    lines = (cls.__doc__ or name).strip().splitlines()
    return name if lines[0].startswith(f"{cls.__name__}(") else lines[0].rstrip(".")


def _notes(cls: type) -> dict[str, tuple[int | str, str]]:
    """Flags that are accepted without effect, of the class and its groups: name -> (values, what to say)."""
    found = dict(getattr(cls, "notes", {}))
    for kind in _hints(cls).values():
        if dataclasses.is_dataclass(kind):
            found.update(_notes(typing.cast(type, kind)))
    return found


def build(cls: type[Config], flags: list[Flag], values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Config:
    """The config object from values by `Flag.key`; groups are built first."""
    inside: dict[str, Any] = {flag.name: values[flag.key] for flag in flags if flag.path == path}
    for name, kind in _hints(cls).items():
        if dataclasses.is_dataclass(kind):
            inside[name] = build(typing.cast(type, kind), flags, values, (*path, name))
    return cls(**inside)


def parse(cls: type[Config], argv: Sequence[str] | None = None, prog: str | None = None) -> Config:
    """The config that the command line asks for.

    `--help` and `--print_config` print to standard output and leave with SystemExit(0).

    Raises:
        UserError: an unknown flag or key, a missing or a wrong value.
    """
    from tats.flags_line import read_line, read_yaml, say_notes, write_help

    flags = [*collect(typing.cast(type, cls)), *(bounds := _limits())]
    notes = _notes(typing.cast(type, cls))
    line = read_line(flags, notes, list(sys.argv[1:] if argv is None else argv))
    if line.help:
        print(write_help(typing.cast(type, cls), flags, notes, prog or _prog()), end="")
        raise SystemExit(0)
    values = {flag.key: flag.default for flag in flags}
    noted: dict[str, str] = {}
    for path in line.files:
        chosen, mentioned = read_yaml(flags, notes, path)
        values.update(chosen)
        noted.update(mentioned)
    values.update(line.values)
    missing = [flag for flag in flags if values[flag.key] is REQUIRED]
    shown = [flag for flag in flags if flag.is_flag and not (flag in bounds and limits.usual(flag.name, values))]
    if line.print_config and missing:
        print(dump({flag.name: None if flag in missing else values[flag.name] for flag in shown}), end="")
        raise SystemExit(0)
    if missing:
        raise UserError(f"--{missing[0].name} is required: {missing[0].help} ({describe(missing[0].kind)})")
    config = build(cls, flags, values)
    limits.use({flag.name: values[flag.key] for flag in bounds})
    if line.print_config:
        print(dump({flag.name: values[flag.name] for flag in shown}), end="")
        raise SystemExit(0)
    say_notes({**noted, **line.noted})
    return config


def _prog() -> str:
    return os.path.basename(sys.argv[0]) or "tats"


def run(main: Callable[[], Any]) -> None:
    """Runs a script's `main`: a mistake of the user becomes one line on standard error and exit code 2, Ctrl-C exit
    code 130; an int that `main` returns is the exit code. Everything else is a bug and keeps its traceback."""
    try:
        code = main()
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output left, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def to_dict(config: Any) -> dict[str, Any]:
    """Every field of the config and its groups in one flat dict of plain values: tuples become lists, paths text.
    Where a field that is no flag shares the name of a flag, the flag's value stands."""
    found: dict[str, Any] = {}
    for flag in sorted(collect(type(config)), key=lambda flag: not flag.is_flag):
        owner = config
        for name in flag.path:
            owner = getattr(owner, name)
        found.setdefault(flag.name, _plain(getattr(owner, flag.name)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_dict(cls: type[Config], values: Mapping[str, Any], source: str = "settings") -> Config:
    """The config from what `to_dict` gave; fields that `values` lacks take their defaults.

    Raises:
        UserError: an unknown key, a missing or a wrong value; `source` names where they come from.
    """
    flags = collect(typing.cast(type, cls))
    chosen = {flag.key: flag.default for flag in flags}
    for key, value in values.items():
        owners = [flag for flag in flags if flag.name == key]
        if not owners:
            raise UserError(f"{source}: unknown key '{key}'{nearest(key, [flag.name for flag in flags])}")
        for flag in owners:
            chosen[flag.key] = flag.convert(value, f"{source}: {key}")
    for flag in flags:
        if chosen[flag.key] is REQUIRED:
            raise UserError(f"{source}: '{flag.name}' is missing")
    return build(cls, flags, chosen)


def dump(values: Mapping[str, Any]) -> str:
    """Flags and their values as YAML, in the order given."""
    import yaml

    return yaml.safe_dump({key: _plain(value) for key, value in values.items()}, sort_keys=False, allow_unicode=True)


def save_yaml(config: Any, path: str | Path) -> None:
    """Writes the flags of `config` as a file that `--config` reads. Fields that are no flags are left out."""
    values = to_dict(config)
    bounds = {name: limits.limit(name) for name in limits.LIMITS}
    moved = {name: value for name, value in bounds.items() if not limits.usual(name, bounds)}
    text = dump({**{flag.name: values[flag.name] for flag in collect(type(config)) if flag.is_flag}, **moved})
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
