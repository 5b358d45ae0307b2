"""Command line and YAML from dataclasses: the field is the flag.

Provisional core; `parse`, `run` and the YAML side follow.
"""

import dataclasses
from typing import Any


class UserError(Exception):
    """A mistake of the user: says what was given, what is allowed and what to do. Scripts print it as one line, exit 2."""


def arg(
    default: Any,
    help: str,
    choices: list[str] | None = None,
    *,
    flag: bool = True,
    aliases: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is also a flag. `flag=False` keeps it out of the command line (sizes that follow from data
    or checkpoints); `aliases` are further spellings of the same flag."""
    metadata = {"help": help, "choices": choices, "flag": flag, "aliases": aliases}
    if isinstance(default, (list, dict, set)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
