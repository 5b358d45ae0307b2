"""What moves the scores of the trained feature network: corruptions of real clips against other real clips.

    python benchmarks/scores.py

Trains the network on clips of the embedded dataset (1200 of 16 frames, 32x32), then compares 240 test clips with 240
others that were corrupted more and more. Writes `results/scores.json`, a table of `docs/scores.md`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import store
from tats.data.shapes import CLASSES, draw_truth, render_many
from tats.metrics.features import PLAYS, FeatureNet
from tats.metrics.scores import compute
from tats.metrics.train_features import play, train

N = 240


def world(split: str, first: int, n: int) -> tuple[Tensor, Tensor]:
    """Clips uint8 [n, 16, 32, 32, 3] and their labels, balanced over the classes."""
    frames = render_many([draw_truth(0, index, split=split) for index in range(first, first + n)], 32)
    return torch.from_numpy(frames), torch.arange(first, first + n) % len(CLASSES)


def blur(width: int) -> Callable[[Tensor], Tensor]:
    """Means over squares of `width` pixels."""

    def apply(frames: Tensor) -> Tensor:
        pictures = frames.flatten(0, 1).movedim(-1, 1).float()
        smooth = F.avg_pool2d(pictures, width, 1, width // 2).round().to(torch.uint8)
        return smooth.movedim(1, -1).unflatten(0, frames.shape[:2])

    return apply


def noise(size: float) -> Callable[[Tensor], Tensor]:
    """Gaussian noise of `size` levels."""
    generator = torch.Generator().manual_seed(0)
    return lambda frames: (frames + size * torch.randn(frames.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def played(way: str, share: float) -> Callable[[Tensor], Tensor]:
    """That share of the clips played in another way."""

    def apply(frames: Tensor) -> Tensor:
        ways = torch.full((len(frames),), PLAYS.index(way))
        ways[round(share * len(frames)) :] = 0
        return play(frames, ways, torch.Generator().manual_seed(0))

    return apply


def few_classes(n: int) -> Callable[[Tensor], Tensor]:
    """As many clips, of the first `n` classes only, each as often as it takes."""

    def apply(frames: Tensor) -> Tensor:
        kept = frames[torch.arange(len(frames)) % len(CLASSES) < n]
        return kept.repeat(-(-len(frames) // len(kept)), 1, 1, 1, 1)[: len(frames)]

    return apply


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none: a second real set": lambda frames: frames,
    "played backwards": lambda frames: frames.flip(1),
    **{f"blur over {width} pixels": blur(width) for width in (3, 5, 9)},
    **{f"noise of {size} levels": noise(size) for size in (5, 20, 40)},
    **{f"{way}, {round(100 * share)} % of the clips": played(way, share)
       for way in PLAYS[1:] for share in (0.25, 1.0)},
    **{f"{n} of 12 classes only": few_classes(n) for n in (9, 6, 3)},
}  # fmt: skip


def rows(network: FeatureNet) -> list[list[str | float]]:
    """One row per corruption: its name and both distances."""
    real, other = world("test", 0, N)[0], world("test", N, N)[0]
    found: list[list[str | float]] = []
    for name, corrupt in CORRUPTIONS.items():
        result = compute(corrupt(other), real, network)
        found.append([name, result["FCD-trained"], result["KCD-trained"]])
        print(f"{name:32s} {result['FCD-trained']:9.3f} {result['KCD-trained']:9.4f}", flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    network = train(*world("train", 0, 1200), CLASSES, test=world("test", 0, N))
    seconds = time.process_time() - start
    described = network.describe()
    note = (
        f"{N} clips on each side, 16 frames of 32x32; network {described['fingerprint']}, trained in {seconds:.0f} "
        f"seconds of one core, recognises {100 * described['accuracy']:.1f} % of the test clips by class and "
        f"{100 * described['play_accuracy']:.1f} % by way of playing"
    )
    store(
        "scores",
        ["what was done to the clips", "FCD-trained", "KCD-trained"],
        rows(network),
        command="python benchmarks/scores.py",
        note=note,
        details={"network": described, "training_seconds": seconds},
    )


if __name__ == "__main__":
    main()
