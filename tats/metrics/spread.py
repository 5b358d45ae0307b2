"""Do the videos of the embedded world that a model makes spread as the data do, or does it always make the same ones?

    shares = spread({"samples": judgements, "test clips": others}, truth)      # truth: [(start, velocity), ...]
    shares["direction"]["samples"]                                             # 0.077

Total variation distance (0: the same, 1: nothing in common) between the first direction (8 of them), the speed (slow,
fast) and the first place (3 x 3) of videos and those of the data. Real test clips beside them say how far apart two
sets of this size are by chance.
"""

import math
from collections.abc import Mapping, Sequence

from tats.data.shapes import HIGH, LOW
from tats.metrics.oracle import Judgement

Pair = Sequence[float]


def spread(
    judged: Mapping[str, Sequence[Judgement]], truth: Sequence[tuple[Pair, Pair]]
) -> dict[str, dict[str, float]]:
    """{what: {whose: distance}} of the videos with the right object and a path that could be followed; who has no such
    video is left out. truth: start and velocity of every video of the data."""
    found: dict[str, dict[str, float]] = {}
    for name, kind in (("direction", direction), ("speed", speed), ("place", place)):
        expected = histogram([kind(*each) for each in truth])
        for who, judgements in judged.items():
            seen = [kind(j.start, j.velocity) for j in judgements if j.right_object and math.isfinite(sum(j.velocity))]
            if seen:
                found.setdefault(name, {})[who] = round(distance(histogram(seen), expected), 3)
    return found


def direction(start: Pair, velocity: Pair) -> int:
    """One of eight directions."""
    return round(math.atan2(velocity[1], velocity[0]) / (math.pi / 4)) % 8


def speed(start: Pair, velocity: Pair) -> int:
    """Slow 0, fast 1."""
    return int(math.hypot(*velocity) > 0.03)


def place(start: Pair, velocity: Pair) -> int:
    """One of nine parts of the room in which the centre can be."""
    cells = [min(2, max(0, int((each - LOW) / (HIGH - LOW) * 3))) for each in start]
    return 3 * cells[1] + cells[0]


def histogram(kinds: Sequence[int]) -> dict[int, float]:
    """Shares of the kinds."""
    return {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}


def distance(a: dict[int, float], b: dict[int, float]) -> float:
    """Total variation distance of two histograms."""
    return sum(abs(a.get(kind, 0.0) - b.get(kind, 0.0)) for kind in {*a, *b}) / 2
