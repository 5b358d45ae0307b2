"""Sampling: the published algorithm, the plain model, torch.compile and the engine in every number format, in one run.

    python benchmarks/sampling.py                         # writes benchmarks/results/sampling.json
    python benchmarks/sampling.py --size ci               # seconds: checks only that all ways agree
    python benchmarks/sampling.py --size full             # windows of all layers, every step of them
    python benchmarks/sampling.py --no_compile            # without torch.compile, which takes minutes to compile

A step shows the transformer one code per video behind a random past and draws the next one. A window is what a sliding
window does per latent frame: it shows three frames at once, then draws the fourth code by code. Weights are random.
One thread and processor time, because other programs share this machine; the order of the ways alternates. The floor
is the larger of two times at rates measured in the same run: for what has to be read (weights in their format, keys and
values in theirs) and for what has to be computed. Nothing is timed before the published algorithm has passed its
reference case and the logits of all ways agree with it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.limits import Limits, floor, measured_limits
from benchmarks.sampling_ways import (
    CACHE8,
    TOP_K,
    TOP_P,
    can_compile,
    check,
    compare,
    compiled_step,
    compiles,
    engines_of,
    lend,
    make_model,
    random_past,
    step_ways,
    summary,
)
from benchmarks.tables import store
from tats import flags
from tats.flags import arg

if TYPE_CHECKING:
    from benchmarks.published_sampler import PublishedSampler
    from tats.gpt.model import GPT


@dataclass(frozen=True)
class Config:
    """Times one step of sampling and one latent frame of a sliding window."""

    size: str = arg("cpu", "how much is measured", ["ci", "cpu", "full"])
    rounds: int = arg(5, "timed rounds after one that is thrown away")
    no_compile: bool = arg(False, "leave torch.compile out")


@dataclass(frozen=True)
class Sizes:
    """What one --size measures: models with their batches, and the layers of the model that slides."""

    models: dict[str, tuple[int, ...]]
    window_layers: int
    window_batches: tuple[int, ...]
    window_steps: int


SIZES = {
    "ci": Sizes({"ci": (1, 4)}, 2, (1, 4), 4),
    "cpu": Sizes({"demo": (1, 4, 16), "default": (1, 4, 16)}, 4, (1, 4), 8),
    "full": Sizes({"demo": (1, 4, 16), "default": (1, 4, 16)}, 24, (1, 4), 255),
}


def reference_case() -> None:
    """Hold the published algorithm as it is written here against what the published system computed.

    Raises:
        AssertionError: it gives other ids than the reference case `sampling_base`.
    """
    import torch

    from benchmarks.published_sampler import PublishedSampler
    from tats import checkpoint
    from tests.reference_cases import Case

    case = Case("sampling_base")
    sampler = PublishedSampler(checkpoint.load_transformer(case.file("gpt.ckpt"), case.file("vqgan.ckpt")))
    best: Callable[[torch.Tensor], torch.Tensor] = lambda probabilities: probabilities.argmax(-1, keepdim=True)
    for start, kind in (("c", "greedy"), ("prefix", "greedy_prefix")):
        tokens = torch.from_numpy(case.inputs[start])
        case.check(
            f"{kind}/tokens", sampler.sample(tokens, int(case.inputs["steps"]) + 1 - tokens.shape[1], choose=best)
        )
    u, cond = torch.from_numpy(case.inputs["uniforms"]), torch.from_numpy(case.inputs["c"])
    for name, setting in case.meta["settings"].items():
        numbers = iter(u)
        fall = lambda p, numbers=numbers: (p.double().cumsum(-1) <= next(numbers)[:, None]).sum(-1, keepdim=True)
        case.check(f"{name}/tokens", sampler.sample(cond, len(u), choose=fall, **setting))


def positions_of(gpt: "GPT") -> list[int]:
    """Where steps are timed: at the beginning, in the middle and near the end of a window."""
    return sorted({1, gpt.config.block_size * 500 // 1024, gpt.config.block_size * 960 // 1024})


def steps(name: str, batches: tuple[int, ...], config: Config, limits: Limits) -> Iterator[dict[str, Any]]:
    """Every batch and position of one model."""
    gpt = make_model(name)
    packed = engines_of(gpt, max(batches[:2]))
    compiled = None if config.no_compile or not can_compile() else compiled_step(gpt)
    for batch in batches:
        room, engines = random_past(gpt, batch), {}
        for way, engine in packed.items():
            engines[way] = engine.resized(batch)
            lend(engines[way].cache, room, 0)  # at once: rooms of five engines would not fit beside each other
        for position in positions_of(gpt):
            ways = step_ways(gpt, batch, position, engines, compiled, room)
            if not compiles(ways):
                del ways["compiled"]
                compiled = None
            errors = check(ways)
            found: dict[str, dict[str, Any]] = {**summary(compare(ways, config.rounds))}
            for way in engines:
                eight = way == CACHE8
                cached = (
                    1 + 4 * gpt.config.n_head / gpt.config.n_embd if eight else 4
                )  # bytes, a scale per token and head
                least, by = floor(limits, gpt, batch, position, way.split(",")[0], cached)
                found[way] |= {"share_of_floor": least / found[way]["median"], "floor": least, "floor_by": by}
            yield {"model": name, "batch": batch, "position": position, "errors": errors, "seconds": found}
            print(name, batch, position, {k: f"{v['times_faster']:.2f}x" for k, v in found.items()}, flush=True)


def window_times(
    published: "PublishedSampler", engines: dict[str, Any], batch: int, count: int
) -> dict[str, dict[str, float]]:
    """Seconds for three known latent frames at once, and the mean of `count` steps spread over the fourth."""
    import torch

    from tats.gpt.draw import Draw

    config = published.config
    frame = config.latent_shape[1] * config.latent_shape[2]
    known = torch.randint(config.code_offset, config.vocabulary, (batch, 1 + 3 * frame))
    draw, u = Draw(TOP_K, TOP_P), torch.rand(batch, dtype=torch.float64)
    found: dict[str, dict[str, float]] = {}
    start = time.process_time()
    _, shown = published.forward(known, None, 0)
    prefill, spent = time.process_time() - start, 0.0
    places = [known.shape[1] + k * (frame - 1) // count for k in range(count)]
    for place in places:
        past = [shown, torch.randn(*shown.shape[:-2], place - known.shape[1], shown.shape[-1])]
        start = time.process_time()
        logits, _ = published.forward(known[:, :1], past, place)
        published.choose(logits, 1.0, TOP_K, TOP_P, lambda p: torch.multinomial(p, 1))
        spent += time.process_time() - start
    found["published"] = {"prefill": prefill, "step": spent / count}
    for name, engine in engines.items():
        engine.reset()
        start = time.process_time()
        engine(known, engine.order[: known.shape[1]])
        prefill, spent = time.process_time() - start, 0.0
        for place in places:
            engine.cache.length = place
            start = time.process_time()
            draw(engine(known[:, :1], engine.order[place : place + 1]), u)
            spent += time.process_time() - start
        found[name] = {"prefill": prefill, "step": spent / count}
    for times in found.values():
        times["window"] = times["prefill"] + (frame - 1) * times["step"]
    return found


def windows(name: str, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """One latent frame of a sliding window, for every batch; the faster of two runs of each way."""
    import torch

    from benchmarks.published_sampler import PublishedSampler

    gpt = make_model(name, sizes.window_layers)
    published = PublishedSampler(gpt)
    packed = engines_of(gpt, 1)
    for batch in sizes.window_batches:
        engines = {way: engine.resized(batch) for way, engine in packed.items()}
        with torch.no_grad():
            runs = [window_times(published, engines, batch, sizes.window_steps) for _ in range(2)]
        found = {way: min((run[way] for run in runs), key=lambda times: times["window"]) for way in runs[0]}
        for times in found.values():
            times["times_faster"] = found["published"]["window"] / times["window"]
        yield {"model": name, "layers": sizes.window_layers, "batch": batch, "seconds": found}
        print("window", name, batch, {k: f"{v['times_faster']:.2f}x" for k, v in found.items()}, flush=True)


def steps_table(found: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: how many times faster every way is, and the engine's shares of the floor."""
    ways = list(found[0]["seconds"])[1:]
    engines = [way for way in ways if "floor" in found[0]["seconds"][way]]
    columns = ["model", "videos", "position", "published, ms", *(f"{way}, times faster" for way in ways)]
    columns += [f"{way}, share of floor" for way in engines]
    rows = []
    for r in found:
        seconds = r["seconds"]
        faster = [round(seconds[way]["times_faster"], 2) if way in seconds else None for way in ways]
        near = [
            f"{seconds[way]['share_of_floor']:.0%}" + "*" * (seconds[way]["floor_by"] == "arithmetic")
            for way in engines
        ]
        milliseconds = round(seconds["published"]["median"] * 1000, 2)
        rows.append([r["model"], r["batch"], r["position"], milliseconds, *faster, *near])
    return columns, rows


def keep(found: list[dict[str, Any]], slid: list[dict[str, Any]], config: Config, about: dict[str, Any]) -> None:
    """Store the results and the two tables that documents show of them."""
    load = f"load of the machine {about['load'][0]:.1f} before and {about['load'][1]:.1f} after"
    compiled = "" if "compiled" in found[0]["seconds"] else "; torch.compile was left out"
    note = (
        f"One step with its draw, one thread, processor time, medians of {config.rounds} rounds in turn{compiled}; "
        f"floor: what must be read (weights in their format, keys and values) or, where that takes longer (*), what "
        f"must be computed; {about['limits_told']}; {load}"
    )
    command = "python benchmarks/sampling.py" + (" --size full" if config.size == "full" else "")
    command += " --no_compile" if config.no_compile else ""
    store("sampling", *steps_table(found), command=command, note=note, details={**about, "steps": found})
    columns = ["layers", "videos", "way", "known frames, s", "step, ms", "latent frame, s", "times faster"]
    rows = [
        [r["layers"], r["batch"], way, t["prefill"], t["step"] * 1000, t["window"], round(t["times_faster"], 2)]
        for r in slid
        for way, t in r["seconds"].items()
    ]
    note = (
        f"Three known latent frames of 256 codes at once, then a fourth code by code (mean of "
        f"{SIZES[config.size].window_steps} steps spread over it, times 255); default width; one thread, processor "
        f"time, the faster of two runs; {load}"
    )
    store("sampling_window", columns, rows, command=command, note=note, details={**about, "windows": slid})


def main() -> None:
    """Measure, print, store."""
    config = flags.parse(Config)
    import torch

    torch.set_num_threads(1)
    reference_case()
    sizes, before, limits = SIZES[config.size], os.getloadavg()[0], measured_limits()
    found: list[dict[str, Any]] = []
    with torch.no_grad():
        for name, batches in sizes.models.items():
            found += steps(name, batches, config, limits)
        slid = list(windows("ci" if config.size == "ci" else "default", sizes))
    if config.size == "ci":
        return
    about = {"limits": asdict(limits), "limits_told": limits.told(), "load": [before, os.getloadavg()[0]]}
    keep(found, slid, config, about)


if __name__ == "__main__":
    flags.run(main)
