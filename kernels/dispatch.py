"""Which implementation of an op runs: the eager definition, plain torch at its best, or a kernel of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch

IMPLEMENTATIONS = ("reference", "torch")

_forced: ContextVar[str | None] = ContextVar("forced implementation", default=None)
_last: dict[str, str] = {}


class Choice(NamedTuple):
    """The implementation that an op takes, and the reason in words."""

    name: str
    why: str


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """Force one implementation of every op inside the block: `reference` (the definition) or `torch` (the default)."""
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {name!r}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def which(op: str, device: torch.device | str = "cpu") -> Choice:
    """Tell which implementation of `op` runs for tensors on `device`, and why."""
    forced = _forced.get()
    if forced is not None:
        return Choice(forced, f"{op} is forced to {forced} by the surrounding block")
    kind = torch.device(device).type
    return Choice("torch", f"no kernel of our own for {op} on {kind} has been shown to win")


def chosen(op: str, device: torch.device | str) -> str:
    """The name of the implementation to run now; remembered, so that a test can ask what ran."""
    name = which(op, device).name
    _last[op] = name
    return name


def ran(op: str) -> str | None:
    """The implementation that the last call of `op` took, None before the first."""
    return _last.get(op)
