"""Sampling: the published algorithm, the plain model and the engine in every number format, in one run.

    python benchmarks/sampling.py                         # writes benchmarks/results/sampling.json
    python benchmarks/sampling.py --size ci               # seconds: checks only that all ways agree
    python benchmarks/sampling.py --size full             # 16 videos at once too, and windows of all layers
    python benchmarks/sampling.py --compile               # the plain model under torch.compile as well

A step shows the transformer one code per video behind a random past and draws the next one. A window is what a sliding
window does per latent frame: it shows three frames at once, then draws the fourth code by code. Weights are random.
One thread and processor time, because other programs share this machine; the order of the ways alternates. The floor
is what has to be read (weights in their format, keys and values in float32) at the read rate measured in the same run.
Nothing is timed before its logits agree with the published ones.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import store
from tats import flags
from tats.flags import arg

if TYPE_CHECKING:
    import torch

    from benchmarks.published_sampler import PublishedSampler
    from tats.gpt.model import GPT

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
ALLOWED = {"published": 0.0, "plain": 1e-5, "compiled": 1e-5, "fp32": 1e-5, "fp16": 1e-2, "bf16": 3e-2, "int8": 0.15}
MODELS = {  # layers, heads, width, codes, ids of the condition, latent frames, rows, columns
    "ci": (2, 4, 128, 512, 3, (4, 4, 4)),
    "demo": (4, 4, 128, 1024, 12, (4, 8, 8)),
    "default": (24, 16, 1024, 16384, 101, (4, 16, 16)),
}
TOP_K, TOP_P = 2048, 0.92

Way = Callable[[], "torch.Tensor"]  # one step or window; returns the logits behind its last code


@dataclass(frozen=True)
class Config:
    """Times one step of sampling and one latent frame of a sliding window."""

    size: str = arg("cpu", "how much is measured", ["ci", "cpu", "full"])
    rounds: int = arg(5, "timed rounds after one that is thrown away")
    compile: bool = arg(False, "time the plain model under torch.compile too (needs a C++ compiler)")


@dataclass(frozen=True)
class Sizes:
    """What one --size measures: models with their batches, and the layers of the model that slides."""

    models: dict[str, tuple[int, ...]]
    window_layers: int
    window_batches: tuple[int, ...]
    window_steps: int


SIZES = {
    "ci": Sizes({"ci": (1, 4)}, 2, (1, 4), 4),
    "cpu": Sizes({"demo": (1, 4, 16), "default": (1, 4)}, 4, (1, 4), 8),
    "full": Sizes({"demo": (1, 4, 16), "default": (1, 4, 16)}, 24, (1, 4), 255),
}


def make_model(name: str, layers: int | None = None) -> "GPT":
    """A transformer of one of the sizes with random weights."""
    import torch

    from tats.gpt.config import GPTConfig
    from tats.gpt.model import GPT

    n_layer, n_head, n_embd, n_codes, offset, (t, h, w) = MODELS[name]
    torch.manual_seed(0)
    config = GPTConfig(
        n_layer=layers or n_layer, n_head=n_head, n_embd=n_embd, block_size=t * h * w, n_codes=n_codes,
        code_offset=offset, latent_shape=(t, h, w),
    )  # fmt: skip
    return GPT(config).eval()


def read_rate() -> float:
    """Bytes per second that one thread reads."""
    import torch

    x = torch.rand(1 << 26)
    times = []
    for _ in range(6):
        start = time.process_time()
        torch.dot(x, x)
        times.append(time.process_time() - start)
    return x.numel() * 4 / min(times)


def step_ways(gpt: "GPT", batch: int, position: int, compiled: bool, engines: dict[str, Any]) -> dict[str, Way]:
    """One step at `position` for every way, each behind the same random past and with a draw at its end."""
    import torch

    from benchmarks.published_sampler import PublishedSampler
    from tats.gpt.cache import KVCache
    from tats.gpt.draw import Draw

    config = gpt.config
    draw, u = Draw(TOP_K, TOP_P), torch.rand(batch, dtype=torch.float64)
    tokens = torch.randint(config.code_offset, config.vocabulary, (batch, 1))
    shape = (config.n_layer, 2, batch, config.n_head, position, config.n_embd // config.n_head)
    past, published = torch.randn(shape), PublishedSampler(gpt)
    at = torch.tensor([position])

    def published_step() -> torch.Tensor:
        logits, _ = published.forward(tokens, [past[..., :-1, :], past[..., -1:, :]], position)
        published.choose(logits.clone(), 1.0, TOP_K, TOP_P, lambda p: torch.multinomial(p, 1))
        return logits[:, -1, config.code_offset :]

    def filled(cache: KVCache) -> KVCache:
        for layer, (keys, values) in enumerate(cache.kv):
            keys[:, :, :position], values[:, :, :position] = past[layer]
        return cache

    def plain(model: Callable[..., torch.Tensor], cache: KVCache) -> Way:
        def step() -> torch.Tensor:
            cache.length = position
            logits = model(tokens, at, cache)[:, 0, config.code_offset :]
            draw(logits, u)
            return logits

        return step

    def fast(engine: Any) -> Way:
        filled(engine.cache)

        def step() -> torch.Tensor:
            engine.cache.length = position
            logits = engine(tokens, at)
            draw(logits, u)
            return logits

        return step

    ways = {"published": published_step, "plain": plain(gpt, filled(KVCache(config, batch)))}
    if compiled:
        ways["compiled"] = plain(torch.compile(gpt), filled(KVCache(config, batch)))
    return ways | {name: fast(engine) for name, engine in engines.items()}


def check(ways: dict[str, Way]) -> dict[str, dict[str, float]]:
    """How far the logits of every way lie from the published ones; raises ValueError where that is too far."""
    truth, found = ways["published"](), {}
    for name, way in ways.items():
        logits = way()
        far = float((logits - truth).norm() / truth.norm())
        p, q = truth.double().log_softmax(-1), logits.double().log_softmax(-1)
        kl = float((p.exp() * (p - q)).sum(-1).mean())
        found[name] = {"relative_error": far, "kl": kl}
        if far > ALLOWED[name]:
            raise ValueError(f"{name}: logits differ from the published ones by {far:.2g}, allowed {ALLOWED[name]}")
    return found


def compare(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of every way, in turn, the order alternating."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in list(ways.items())[:: 1 if round_ % 2 else -1]:
            start = time.process_time()
            way()
            if round_:
                times[name].append(time.process_time() - start)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, least, and how many times faster than the published way by medians and by least times."""
    first = times["published"]
    return {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "times_faster": statistics.median(first) / statistics.median(values),
            "times_faster_by_least": min(first) / min(values),
        }
        for name, values in times.items()
    }


def must_read(gpt: "GPT", batch: int, position: int, precision: str) -> float:
    """Bytes that one step has to read: every weight but the tables, and all keys and values in float32."""
    config = gpt.config
    weights = sum(p.numel() for p in gpt.blocks.parameters()) + config.n_codes * config.n_embd
    return weights * BYTES[precision] + 2 * 4 * config.n_layer * config.n_embd * batch * (position + 1)


def steps(name: str, batches: tuple[int, ...], config: Config, rate: float) -> Iterator[dict[str, Any]]:
    """Every batch and position of one model."""
    from tats.gpt.engine import Engine

    gpt = make_model(name)
    positions = sorted({1, gpt.config.block_size * 500 // 1024, gpt.config.block_size * 960 // 1024})
    packed = {precision: Engine(gpt, max(batches[:2]), precision=precision) for precision in PRECISIONS}
    for batch in batches:
        engines = {precision: engine.resized(batch) for precision, engine in packed.items()}
        for position in positions:
            ways = step_ways(gpt, batch, position, config.compile, engines)
            errors = check(ways)
            found = summary(compare(ways, config.rounds))
            for precision in PRECISIONS:
                found[precision]["share_of_floor"] = (
                    must_read(gpt, batch, position, precision) / rate / found[precision]["median"]
                )
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
    from tats.gpt.engine import Engine

    gpt = make_model(name, sizes.window_layers)
    published = PublishedSampler(gpt)
    packed = {precision: Engine(gpt, 1, precision=precision) for precision in PRECISIONS}
    for batch in sizes.window_batches:
        engines = {precision: engine.resized(batch) for precision, engine in packed.items()}
        with torch.no_grad():
            runs = [window_times(published, engines, batch, sizes.window_steps) for _ in range(2)]
        found = {way: min((run[way] for run in runs), key=lambda times: times["window"]) for way in runs[0]}
        for times in found.values():
            times["times_faster"] = found["published"]["window"] / times["window"]
        yield {"model": name, "layers": sizes.window_layers, "batch": batch, "seconds": found}
        print("window", name, batch, {k: f"{v['times_faster']:.2f}x" for k, v in found.items()}, flush=True)


def keep(found: list[dict[str, Any]], slid: list[dict[str, Any]], config: Config, about: dict[str, Any]) -> None:
    """Store the results and the two tables that documents show of them."""
    ways = list(found[0]["seconds"])[1:]
    shares = [f"{precision}, share of floor" for precision in PRECISIONS]
    columns = ["model", "videos", "position", "published, ms", *(f"{way}, times faster" for way in ways), *shares]
    rows = []
    for r in found:
        seconds = r["seconds"]
        faster = [round(seconds[way]["times_faster"], 2) for way in ways]
        near = [f"{seconds[precision]['share_of_floor']:.0%}" for precision in PRECISIONS]
        milliseconds = round(seconds["published"]["median"] * 1000, 2)
        rows.append([r["model"], r["batch"], r["position"], milliseconds, *faster, *near])
    load = f"load of the machine {about['load'][0]:.1f} before and {about['load'][1]:.1f} after"
    note = (
        f"One step with its draw, one thread, processor time, medians of {config.rounds} rounds in turn; floor: "
        f"weights in their format and keys and values in float32, read at "
        f"{about['read_bytes_per_second'] / 1e9:.1f} GB/s; {load}"
    )
    command = "python benchmarks/sampling.py" + (" --size full" if config.size == "full" else "")
    command += " --compile" if config.compile else ""
    store("sampling", columns, rows, command=command, note=note, details={**about, "steps": found})
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
    sizes, before, rate = SIZES[config.size], os.getloadavg()[0], read_rate()
    found: list[dict[str, Any]] = []
    with torch.no_grad():
        for name, batches in sizes.models.items():
            found += steps(name, batches, config, rate)
        slid = list(windows("ci" if config.size == "ci" else "default", sizes))
    if config.size == "ci":
        return
    keep(found, slid, config, {"read_bytes_per_second": rate, "load": [before, os.getloadavg()[0]]})


if __name__ == "__main__":
    flags.run(main)
