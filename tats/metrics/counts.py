"""Shares with their uncertainty: so many hits out of so many tries."""

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054  # the normal distribution holds 95 % within this many deviations


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share, as (low, high) in [0, 1]; (0, 1) when nothing was tried."""
    if not 0 <= hits <= total:
        raise ValueError(f"hits must lie in [0, total], got {hits} of {total}")
    if total == 0:
        return 0.0, 1.0
    share, weight = hits / total, _Z95**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = _Z95 / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == total else middle + half)


@dataclass(frozen=True)
class Count:
    """So many hits out of so many tries; prints as share, 95 % Wilson interval and the two numbers."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """hits / total; nan when nothing was tried."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval, (low, high) in [0, 1]."""
        return wilson(self.hits, self.total)

    def __str__(self) -> str:
        if not self.total:
            return "none tried"
        low, high = self.interval
        return f"{100 * self.share:.1f} % ({100 * low:.1f}-{100 * high:.1f} %), {self.hits} of {self.total}"
