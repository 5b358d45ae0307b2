"""What this machine allows one thread: bytes read per second, operations per second in every number format.

Benchmarks measure both in the run whose results they judge, and give each result as a share of the floor: the time that
reading, or computing, must take at these rates.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tats.gpt.model import GPT

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
COMPUTED_IN = {"fp16": "fp32"}  # 16-bit weights that are widened: their products are float32's


@dataclass(frozen=True)
class Limits:
    """Rates of one thread: bytes per second, and operations per second of a large matrix product in each format."""

    read: float
    matrix: dict[str, float]

    def told(self) -> str:
        """Both in words."""
        rates = ", ".join(f"{rate / 1e9:.0f} ({name})" for name, rate in self.matrix.items())
        return f"{self.read / 1e9:.1f} GB/s read, {rates} Gop/s"


def fastest(call: Callable[[], object], times: int) -> float:
    """Seconds of processor time of the fastest of some calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def read_rate() -> float:
    """Bytes per second that one thread reads."""
    import torch

    x = torch.rand(1 << 26)
    return x.numel() * 4 / fastest(lambda: torch.dot(x, x), 6)


def matrix_rate(precision: str = "fp32", rows: int = 1024, width: int = 1024) -> float:
    """Operations per second of [rows, width] times [width, 4 width], the weights laid out as the engine does."""
    import torch

    from tats.gpt.packed import pack

    layer, x = pack(torch.randn(4 * width, width), None, precision, rows), torch.randn(rows, width)
    return 2 * rows * 4 * width * width / fastest(lambda: layer(x), 6)


def measured_limits() -> Limits:
    """Both rates, now."""
    return Limits(read_rate(), {name: matrix_rate(name) for name in ("fp32", "bf16", "int8")})


def weights_of(gpt: "GPT") -> int:
    """Numbers that every step multiplies with: every weight but the tables, and of the head the rows of codes."""
    return sum(p.numel() for p in gpt.blocks.parameters()) + gpt.config.n_codes * gpt.config.n_embd


def must_read(gpt: "GPT", batch: int, position: int, precision: str, cache_bytes: float = 4) -> float:
    """Bytes that one step has to read: weights in their format, keys and values of all positions so far."""
    config = gpt.config
    cached = 2 * config.n_layer * config.n_embd * batch * (position + 1)
    return weights_of(gpt) * BYTES[precision] + cached * cache_bytes


def must_compute(gpt: "GPT", batch: int, position: int) -> float:
    """Operations of one step: a product and a sum per weight and video, and per key and value."""
    config = gpt.config
    return 2.0 * batch * (weights_of(gpt) + 2 * config.n_layer * config.n_embd * (position + 1))


def floor(
    limits: Limits, gpt: "GPT", batch: int, position: int, precision: str, cache_bytes: float = 4
) -> tuple[float, str]:
    """Seconds that one step takes at least, and what sets them: memory or arithmetic."""
    reading = must_read(gpt, batch, position, precision, cache_bytes) / limits.read
    computing = must_compute(gpt, batch, position) / limits.matrix[COMPUTED_IN.get(precision, precision)]
    return (reading, "memory") if reading >= computing else (computing, "arithmetic")
