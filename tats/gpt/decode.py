"""The ways to invent the codes of a window: one by one, in diagonal waves, or several guessed at once."""

from dataclasses import dataclass

from torch import Tensor

from tats.flags import UserError
from tats.gpt.diagonal import diagonal
from tats.gpt.guidance import Stepper
from tats.gpt.jacobi import jacobi
from tats.gpt.wanted import Wanted, raster

WAYS = ("raster", "diagonal", "jacobi")


@dataclass(frozen=True)
class Decoding:
    """How the codes of a window come about.

    way: raster, one by one; jacobi, the same codes with several guessed and looked at per step; diagonal, the rows of a
    frame at once, which is approximate. block: codes that a step of jacobi looks at. lag: columns that a row of
    diagonal is behind the one above it.
    """

    way: str = "raster"
    block: int = 8
    lag: int = 2

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise UserError(f"--decode takes raster, diagonal or jacobi, got {self.way!r}")
        if self.block < 1:
            raise UserError(f"--jacobi_block counts codes, 1 or more, got {self.block}")
        if self.lag < 1:
            raise UserError(f"--diagonal_lag counts columns, 1 or more, got {self.lag}")

    def __call__(self, engine: Stepper, wanted: Wanted, logits: Tensor) -> tuple[Tensor, int]:
        """Invent codes, the first of each window from `logits` [B, n]: int64 [B, count], and the steps it took."""
        if self.way == "jacobi":
            return jacobi(engine, wanted, logits, self.block)
        if self.way == "diagonal":
            return diagonal(engine, wanted, logits, self.lag)
        return raster(engine, wanted, logits)
