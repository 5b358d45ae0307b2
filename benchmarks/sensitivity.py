"""Do scores get worse when videos do? Real clips of the embedded dataset, damaged step by step, against others.

    python benchmarks/sensitivity.py

Trains the feature network as `tats evaluate --train_features` does, on 1200 clips of 16 frames, 32x32; then scores 240
test clips against 240 others that were blurred, made noisy, frozen, shuffled, or taken from the wrong classes, each in
four growing degrees. Writes `results/sensitivity.json`, a table of docs/protocols.md.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scores import blur, noise, played, world
from benchmarks.tables import RESULTS, store
from tats.data.shapes import CLASSES
from tats.metrics.evaluation import Pair, evaluate
from tats.metrics.features import FeatureNet
from tats.metrics.protocols import find
from tats.metrics.sides import MadeClips
from tats.metrics.train_features import train

N = 240  # clips of each side
HALF = len(CLASSES) // 2
SHARES = (0.1, 0.25, 0.5, 1.0)
Damage = Callable[[Tensor], Tensor]  # clips uint8 [N, T, H, W, 3] -> the same, worse


def wrong_classes(share: float) -> Damage:
    """That share of the clips is of the classes that the real side has not; for clips whose classes take turns."""

    def apply(frames: Tensor) -> Tensor:
        first = torch.arange(len(frames)) % len(CLASSES) < HALF
        right, wrong = frames[first], frames[~first]
        count = round(share * len(right))
        return torch.cat([wrong[:count], right[count:]])

    return apply


LADDERS: dict[str, dict[str, Damage]] = {
    "blur": {f"over {width} pixels": blur(width) for width in (3, 5, 7, 9)},
    "noise": {f"of {size} levels": noise(size) for size in (5, 10, 20, 40)},
    "frozen": {f"{share:.0%} of the clips": played("frozen", share) for share in SHARES},
    "shuffled frames": {f"{share:.0%} of the clips": played("shuffled", share) for share in SHARES},
    "wrong classes": {f"{share:.0%} of the clips": wrong_classes(share) for share in SHARES},
}


def score(network: Any, generated: Tensor, real: Tensor) -> dict[str, Any]:
    """The score of two sets of clips uint8 [N, T, H, W, 3] by the protocol `clips`."""
    protocol = find("clips")
    sides = [MadeClips(len(clips), functools.partial(_chosen, clips), protocol, {}) for clips in (generated, real)]
    return evaluate(protocol, Pair(*sides), network)


def _chosen(clips: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    return clips[list(numbers)]


def ladders(network: Any, real: Tensor, other: Tensor) -> dict[str, dict[str, dict[str, Any]]]:
    """Every damage in all its degrees, the undamaged clips first: {damage: {degree: result}}.

    real, other: two sets of clips uint8 [N, T, H, W, 3] whose classes take turns. Wrong classes are scored among clips
    of half of the classes, so that there are wrong ones.
    """
    first = torch.arange(len(real)) % len(CLASSES) < HALF
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, degrees in LADDERS.items():
        beside = real[first] if name == "wrong classes" else real
        none = other[first] if name == "wrong classes" else other
        found[name] = {"none": score(network, none, beside)}
        for degree, damage in degrees.items():
            found[name][degree] = score(network, damage(other), beside)
    return found


def rows(network: FeatureNet, found: dict[str, dict[str, dict[str, Any]]]) -> list[list[str | float]]:
    """One row per damage and degree, with both scores."""
    return [
        [name, degree, *(result[score] for score in network.scores)]
        for name, degrees in found.items()
        for degree, result in degrees.items()
    ]


def main() -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    network = train(*world("train", 0, 1200), CLASSES, test=world("test", 0, N))
    seconds = time.process_time() - start
    found = ladders(network, world("test", 0, N)[0], world("test", N, N)[0])
    described = network.describe()
    store(
        "sensitivity",
        ["damage", "degree", *network.scores],
        rows(network, found),
        command="python benchmarks/sensitivity.py",
        note=f"{N} clips on each side ({N // 2} where classes are wrong), 16 frames of 32x32, protocol clips; network "
        f"{described['fingerprint']}, trained in {seconds:.0f} seconds of one core, recognises "
        f"{100 * described['accuracy']:.1f} % of the test clips by class",
        details={"network": described, "training_seconds": seconds},
        folder=RESULTS,
    )


if __name__ == "__main__":
    main()
