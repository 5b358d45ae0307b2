"""Which implementation of an op runs: the eager definition, plain torch at its best, or a Triton kernel of our own.

CPU tensors take `torch`. CUDA tensors take `fused` where a stored result of `kernels/bench.py`, measured on a GPU of
the same name, says that the kernel passed its checks and won at every size of this width; else `torch`. A kernel
without such a result is untried. The results lie in `benchmarks/results/gpu_*.json` of a checkout.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

IMPLEMENTATIONS = ("reference", "torch", "fused")
OPS = ("attention", "decode_attention", "nearest_code", "draw_code")
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"

_forced: ContextVar[str | None] = ContextVar("forced implementation", default=None)
_last: dict[str, str] = {}


class Choice(NamedTuple):
    """The implementation that an op takes, and the reason in words."""

    name: str
    why: str


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """Force one implementation of every op inside the block: `reference` (the definition), `torch`, or `fused`.

    `fused` on CPU tensors runs in Triton's interpreter, which TRITON_INTERPRET=1 switches on before Python starts.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {name!r}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def which(op: str, device: torch.device | str = "cpu", width: int | None = None) -> Choice:
    """Tell which implementation of `op` runs for tensors on `device`, and why.

    op: one of `OPS`. width: of a head (attention, decode_attention) or of a vector (nearest_code); None: any.
    """
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(OPS)}, got {op!r}")
    forced = _forced.get()
    if forced is not None:
        return Choice(forced, f"{op} is forced to {forced} by the surrounding block")
    device = torch.device(device)
    if device.type != "cuda":
        return Choice("torch", f"the kernel of {op} is for CUDA tensors, not for {device.type}")
    return verdict(op, torch.cuda.get_device_name(device), width)


@lru_cache(maxsize=256)
def verdict(op: str, gpu: str, width: int | None = None, results: Path = RESULTS) -> Choice:
    """What the stored results say about the kernel of `op` on a GPU of this name."""
    rows = [row for row in measured(results) if row["op"] == op and row["gpu"] == gpu and width in (None, row["width"])]
    at = op if width is None else f"{op} at width {width}"
    if not rows:
        return Choice("torch", f"the kernel of {at} is untried on {gpu}")
    if not all(row["passed"] for row in rows):
        return Choice("torch", f"the kernel of {at} did not pass its checks on {gpu}")
    if not all(row["won"] for row in rows):
        return Choice("torch", f"the kernel of {at} is not the fastest on {gpu}")
    return Choice("fused", f"the kernel of {at} passed its checks and was the fastest on {gpu}")


def measured(results: Path = RESULTS) -> list[dict[str, Any]]:
    """All that is stored of the kernels: rows with op, gpu, width, passed, won and what was measured."""
    found: list[dict[str, Any]] = []
    for path in sorted(results.glob("gpu_*.json")):
        details = json.loads(path.read_text(encoding="utf-8"))["details"]
        found += [{**row, "gpu": details["gpu"]} for row in details["kernels"]]
    return found


def untried(results: Path = RESULTS) -> tuple[str, ...]:
    """The ops whose kernels no stored result of any GPU speaks of."""
    known = {row["op"] for row in measured(results)}
    return tuple(op for op in OPS if op not in known)


def chosen(op: str, device: torch.device | str, width: int | None = None) -> str:
    """The name of the implementation to run now; remembered, so that a test can ask what ran.

    Raises RuntimeError for `fused` on a CPU without Triton's interpreter.
    """
    name = which(op, device, width).name
    if name == "fused" and torch.device(device).type == "cpu" and not interpreted():
        raise RuntimeError(
            f"the kernel of {op} got CPU tensors: move them to a GPU, or set TRITON_INTERPRET=1 before Python starts "
            "to run it in Triton's interpreter"
        )
    _last[op] = name
    return name


def ran(op: str) -> str | None:
    """The implementation that the last call of `op` took, None before the first."""
    return _last.get(op)


def interpreted() -> bool:
    """True where Triton's interpreter runs the kernels. It is wrong in bf16, so kernels compute in float32 there."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the GPU of a tensor the current one, because Triton launches there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
