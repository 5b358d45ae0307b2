"""What scores cost: clips per second through I3D, distances of their features, and the memory of many videos.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --stream 10000       # that many videos through the small network; used by the first

The published way is written down here as it was: clips in batches of 16 through a network whose normalisations are
passes of their own, all features in one array, float32, and the square root of a covariance from its singular vectors.
Weights are random with a seed; times depend on them no more than on real ones. Writes `results/metrics.json` and
`results/metrics_distances.json`, tables of `docs/scores.md`.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import store
from tats.metrics.features import RandomNet
from tats.metrics.frechet import Moments, frechet_distance, kernel_distance
from tats.metrics.i3d import I3D, preprocess
from tats.metrics.networks import I3DFeatures
from tats.metrics.scores import compute

CLIPS = 32
VIDEOS = 10_000
SHAPE = (16, 128, 128, 3)
LIMIT_MB = 2000


def seeded_i3d() -> I3D:
    """I3D with random weights of the size that keeps the size of what flows through."""
    torch.manual_seed(0)
    network = I3D().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("conv3d.weight"):
            value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return network


def videos(count: int, at_once: int = 8) -> Iterator[Tensor]:
    """Clips uint8 [n, 16, 128, 128, 3]: one picture of noise that moves, another way in every clip."""
    noise = torch.randint(256, (256, 256, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for first in range(0, count, at_once):
        batch = torch.empty(min(at_once, count - first), *SHAPE, dtype=torch.uint8)
        for k, clip in enumerate(batch):
            for t in range(SHAPE[0]):
                row, column = (first + k) * 7 % 97 + t, (first + k) * 13 % 89 + (first + k) % 3 * t
                clip[t] = noise[row : row + 128, column : column + 128] // (1 + (first + k) % 3)
        yield batch


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time, and what it made."""
    start = time.process_time()
    made = run()
    return time.process_time() - start, made


def published_root(matrix: Tensor) -> Tensor:
    """The published square root of a covariance, float32, from its singular vectors."""
    u, s, v = torch.svd(matrix)
    root = torch.where(s < 1e-10, s, s.sqrt())
    return u @ torch.diag(root) @ v.t()


def published_distance(a: Tensor, b: Tensor) -> float:
    """The published Frechet distance: both square roots in float32."""
    first, second = torch.cov(a.t()), torch.cov(b.t())
    root = published_root(first)
    trace = torch.trace(published_root(root @ second @ root))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + torch.trace(first) + torch.trace(second) - 2 * trace)


@torch.inference_mode()
def clips_per_second() -> list[list[Any]]:
    """32 clips through I3D, both ways in turn, three rounds."""
    network = seeded_i3d()
    judge = I3DFeatures(network)
    frames = torch.cat(list(videos(CLIPS)))
    ways: dict[str, Callable[[], Tensor]] = {
        "published": lambda: torch.cat([network(preprocess(frames[k : k + 16])) for k in range(0, CLIPS, 16)]),
        "ours": lambda: torch.cat([judge.features(part) for part in frames.split(16)]),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    made: dict[str, Tensor] = {}
    for _ in range(3):
        for name, way in ways.items():
            spent, made[name] = seconds(way)
            times[name].append(spent)
            print(f"I3D, {name}: {spent:.1f} s", flush=True)
    apart = float((made["ours"] - made["published"]).abs().max() / made["published"].abs().max())
    if apart > 1e-5:
        raise SystemExit(f"both ways must compute the same, they lie {apart:.2g} apart")
    medians = {name: sorted(each)[1] for name, each in times.items()}
    first = medians["published"]
    return [[f"I3D, {name}", CLIPS, spent, CLIPS / spent, first / spent] for name, spent in medians.items()]


def distances() -> list[list[Any]]:
    """Frechet and kernel distances of features, with what they lie away from float64 of the same formula."""
    rows: list[list[Any]] = []
    for n, width in ((256, 400), (2048, 400)):
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
        a, b = (torch.randn(n, width, generator=generator, dtype=torch.float64) @ mix + k * 0.1 for k in (0, 1))
        exact = frechet_distance(a, b)
        spent, value = seconds(lambda: published_distance(a.float(), b.float()))  # noqa: B023
        rows.append([f"Frechet, {n} clips: published, float32", spent, abs(value - exact) / exact])
        spent, value = seconds(lambda: frechet_distance(a, b))  # noqa: B023
        rows.append([f"Frechet, {n} clips: ours, from features", spent, abs(value - exact) / exact])
        sides = (Moments(), Moments())
        for side, features in zip(sides, (a, b)):
            for part in features.split(16):
                side.add(part)
        spent, value = seconds(lambda: sides[0].distance(sides[1]))  # noqa: B023
        rows.append([f"Frechet, {n} clips: ours, from streamed moments", spent, abs(value - exact) / exact])
        spent, _ = seconds(lambda: kernel_distance(a, b))  # noqa: B023
        rows.append([f"kernel, {n} clips: ours", spent, None])
    return rows


def stream(count: int) -> dict[str, Any]:
    """A score of `count` generated against as many real videos, gone through once and never held."""
    network = RandomNet()
    half = count // 2
    start = time.process_time()
    found = compute(videos(count - half), videos(half), network)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"videos": count, "seconds": spent, "peak_mb": peak, "line": found["line"]}


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--stream"]:
        print(json.dumps(stream(int(sys.argv[2]))))
        return
    command = [sys.executable, __file__, "--stream"]
    small, large = (
        json.loads(subprocess.run([*command, str(count)], capture_output=True, text=True, check=True).stdout)
        for count in (200, VIDEOS)
    )
    if large["peak_mb"] > LIMIT_MB:
        raise SystemExit(f"{VIDEOS} videos took {large['peak_mb']:.0f} MB, more than {LIMIT_MB}")
    rows = clips_per_second()
    for found in (small, large):
        rate = found["videos"] / found["seconds"]
        rows.append(
            [f"small network, {found['videos']} videos streamed", found["videos"], found["seconds"], rate, None]
        )
    note = (
        f"Clips of 16 x 128 x 128, one thread, processor time, median of 3 rounds in turn. Peak memory of the whole "
        f"process, resident: {small['peak_mb']:.0f} MB for 200 videos, {large['peak_mb']:.0f} MB for {VIDEOS:,}; held "
        f"as float32, as published, {VIDEOS:,} videos take {VIDEOS * 16 * 128 * 128 * 3 * 4 / 1e9:.0f} GB (computed)"
    )
    columns = ["what", "clips", "seconds", "clips per second", "times faster"]
    details = {"streamed": [small, large]}
    store("metrics", columns, rows, command="python benchmarks/metrics.py", note=note, details=details)
    store(
        "metrics_distances",
        ["distance of features of width 400", "seconds", "relative error"],
        distances(),
        command="python benchmarks/metrics.py",
        note="One thread, processor time. The error is that against the formula in float64",
    )


if __name__ == "__main__":
    main()
