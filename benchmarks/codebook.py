"""The codebook in training: the published way beside ours, in one run.

    python benchmarks/codebook.py                      # writes benchmarks/results/codebook.json
    python benchmarks/codebook.py --sizes 4096 --rounds 3

The published way, written anew: the whole distance matrix, and a one-hot matrix for counts and sums. One thread and
processor time, because other programs share this machine; the order of the two alternates. Peak memory is that of a
fresh process each, above what it holds before the step. Nothing is timed before the codes agree.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.limits import matrix_rate
from benchmarks.tables import store
from tats import flags
from tats.flags import arg

DECAY, SMOOTHING = 0.99, 1e-7


@dataclass(frozen=True)
class Config:
    """Times one training step of the codebook: assignment, moving averages, commitment and perplexity."""

    sizes: tuple[int, ...] = arg((1024, 4096, 16384), "numbers of vectors")
    n_codes: int = arg(16384, "size of the codebook")
    width: int = arg(256, "width of a vector")
    rounds: int = arg(5, "timed rounds after one that is thrown away")
    probe: str | None = arg(None, "print the peak memory of one step: published or ours", ["published", "ours"])


def state(n: int, config: Config) -> dict[str, Any]:
    """Vectors and a codebook that has seen some: random, never zero."""
    import torch

    torch.manual_seed(n)
    codes = torch.randn(config.n_codes, config.width)
    z = torch.randn(1, config.width, n // 64, 8, 8)
    return {"z": z, "embeddings": codes, "N": torch.rand(config.n_codes) + 0.5, "z_avg": codes.clone()}


def published_step(s: dict[str, Any]) -> Any:
    """One training forward with all distances and one-hot codes; buffers move in place.  -> codes [n]"""
    import torch
    import torch.nn.functional as F

    z, codes = s["z"], s["embeddings"]
    flat = z.movedim(1, -1).flatten(0, 3)  # [n, D]
    distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.t() + codes.t().pow(2).sum(0, keepdim=True)
    found = distances.argmin(1)
    one_hot = F.one_hot(found, len(codes)).type_as(flat)  # [n, K]
    e = F.embedding(found.view(z.shape[0], *z.shape[2:]), codes).movedim(-1, 1)
    commitment = 0.25 * F.mse_loss(z, e)
    counts, sums = one_hot.sum(0), flat.t() @ one_hot  # [K], [D, K]
    s["N"].mul_(DECAY).add_(counts, alpha=1 - DECAY)
    s["z_avg"].mul_(DECAY).add_(sums.t(), alpha=1 - DECAY)
    n = s["N"].sum()
    weights = (s["N"] + SMOOTHING) / (n + len(codes) * SMOOTHING) * n
    codes.copy_(s["z_avg"] / weights[:, None])
    share = one_hot.mean(0)
    torch.exp(-(share * torch.log(share + 1e-10)).sum()) + commitment
    return found


def our_step(s: dict[str, Any]) -> Callable[[], Any]:
    """The same step by `tats.vqgan.codebook`.  -> codes"""
    from tats.vqgan.codebook import Codebook

    codebook = Codebook(*s["embeddings"].shape, restart=False)
    codebook.load_state_dict({name: s[name] for name in ("embeddings", "N", "z_avg")})
    codebook.started  # noqa: B018  (asked once per training, not once per step)

    def step() -> Any:
        found = codebook(s["z"]).codes.flatten()
        s.update(codebook.state_dict())
        return found

    return step


def compare(n: int, config: Config, peaks: bool = True) -> dict[str, Any]:
    """Agreement first, then the processor time of both in alternating order; then the peaks of memory."""
    import torch

    ours, theirs = state(n, config), state(n, config)
    step = our_step(ours)
    with torch.no_grad():
        found = step(), published_step(theirs)
        differing = int((found[0] != found[1]).sum())
        far = float((ours["embeddings"] - theirs["embeddings"]).abs().max())
        times: dict[str, list[float]] = {"published": [], "ours": []}
        ways = [("published", lambda: published_step(theirs)), ("ours", step)]
        for round_ in range(config.rounds + 1):
            for name, way in ways if round_ % 2 else ways[::-1]:
                start = time.process_time()
                way()
                if round_:
                    times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "vectors": n,
        "codes_that_differ": differing,
        "largest_difference_of_embeddings": far,
        "seconds": {name: {"median": medians[name], "min": min(values)} for name, values in times.items()},
        "ratio_of_medians": medians["published"] / medians["ours"],
        "ratio_of_minima": min(times["published"]) / min(times["ours"]),
        "peak_mib": {name: peak(name, n, config) for name in ("published", "ours")} if peaks else {},
    }


def peak(name: str, n: int, config: Config) -> float:
    """Peak memory of one step in a fresh process, in MiB above what the process holds before it."""
    command = [sys.executable, __file__, "--probe", name, "--sizes", str(n)]
    command += ["--n_codes", str(config.n_codes), "--width", str(config.width)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(answer.stdout)


def probe(name: str, n: int, config: Config) -> float:
    """The same, inside that process. A small step comes first, so that libraries are loaded."""
    import ctypes

    import torch

    torch.set_num_threads(1)
    small = Config(n_codes=64, width=config.width)
    with torch.no_grad():
        for way in (published_step, our_step(state(64, small))) if name == "ours" else (published_step,):
            way(state(64, small)) if way is published_step else way()
        s = state(n, config)
        step = our_step(s) if name == "ours" else lambda: published_step(s)
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = memory("VmRSS")
        step()
    return (memory("VmHWM") - before) / 1024


def memory(field: str) -> int:
    """A line of this process's memory status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def keep(results: Sequence[dict[str, Any]], config: Config, load: Sequence[float]) -> None:
    """Store the results and the table that documents show of them."""
    columns = ["vectors", "published, s", "ours, s", "times faster", "published, MiB", "ours, MiB", "codes that differ"]
    rows = [
        [
            r["vectors"],
            r["seconds"]["published"]["median"],
            r["seconds"]["ours"]["median"],
            r["ratio_of_medians"],
            round(r["peak_mib"]["published"]),
            round(r["peak_mib"]["ours"]),
            r["codes_that_differ"],
        ]
        for r in results
    ]
    note = (
        f"One training step of a codebook of {config.n_codes} codes of {config.width} numbers, one thread, processor "
        f"time, median of {config.rounds} rounds in turn; memory above the inputs, each in a fresh process; load "
        f"of the machine {load[0]:.1f} before and {load[1]:.1f} after"
    )
    details = {"results": list(results), "load": list(load), "matrix_product_gflops": matrix_rate() / 1e9}
    store("codebook", columns, rows, command="python benchmarks/codebook.py", note=note, details=details)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare at every size and store the results."""
    config = flags.parse(Config, argv)
    if config.probe is not None:
        print(probe(config.probe, config.sizes[0], config))
        return
    import torch

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    results = [compare(n, config) for n in config.sizes]
    keep(results, config, [load, os.getloadavg()[0]])
    for r in results:
        print(
            f"{r['vectors']} vectors: {r['ratio_of_medians']:.2f} times faster, {r['peak_mib']['ours']:.0f} MiB "
            f"instead of {r['peak_mib']['published']:.0f}, {r['codes_that_differ']} codes differ"
        )


if __name__ == "__main__":
    flags.run(main)
