"""What the models do on a GPU, for `kernels/bench.py`: a step of the engine, a window at once, training, whole clips.

Everything at the default size with random weights, bf16 unless it says otherwise. Needs torch alone. Each part gives
records {"goal": ..., "value": ...} for the goals of `benchmarks/goals.py`; with `tiny` small models on a CPU, so that
tests run every line of it.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.limits import must_read, weights_of
from benchmarks.sampling_ways import TOP_K, TOP_P, make_model
from tats import kernels

if TYPE_CHECKING:
    import torch

    from tats.gpt.engine import Engine
    from tats.gpt.model import GPT

Timer = Callable[[Callable[[], Any]], float]  # milliseconds of one call
Record = dict[str, Any]
FEW, MANY = 3, 50  # calls that a median is taken of
LONG = 1024  # frames of a long video


def recorded(clock: Any, over: Callable[[], bool], tiny: bool = False) -> list[Record]:
    """Rows of the steps that are recorded as CUDA graphs, for `kernels.which` as those of kernels: checked, then timed.

    Checked: a small model in float32 draws the same codes either way. Timed: the third latent frame of a clip in bf16,
    milliseconds; `torch` is step by step, `fused` recorded. Without a GPU both ways are step by step.
    """
    import torch

    ways = {"torch": False, "fused": True} if clock.device == "cuda" else {"torch": None, "fused": None}
    rows: list[Record] = []
    models: dict[str, tuple[int, ...]] = {"ci": (2,)} if tiny else {"default": (1, 8, 64), "demo": (1, 16)}
    try:
        check = [frame(make_model("ci").to(clock.device), 2, "fp32", graph)() for graph in ways.values()]
        passed, why = bool(torch.equal(*check)), "recorded steps draw other codes"
    except (RuntimeError, ValueError, TypeError) as error:  # no GPU has run it before
        passed, why = False, f"{type(error).__name__}: {str(error)[:300]}"
    for name, batches in models.items():
        gpt = make_model(name).to(clock.device)
        codes = gpt.config.latent_shape[1] * gpt.config.latent_shape[2]
        for batch in batches:
            size = f"a latent frame of the {name} model, {batch} videos, bf16"
            row: Record = {"op": "captured_step", "width": gpt.config.n_embd, "size": size, "passed": passed}
            row |= {"won": False, "ms": {}, "why": "" if passed else why, "videos": batch, "codes": codes}
            row["must_read"] = must_read(
                gpt, batch, codes * 5 // 2, "bf16", cache_bytes=2
            )  # in the middle of the frame
            if over():
                row |= {"passed": False, "why": "no time was left"}
            elif passed:
                calls = {way: frame(gpt, batch, "bf16", graph) for way, graph in ways.items()}
                row["ms"] = {way: 1000 * median(clock, call, FEW) for way, call in calls.items()}
                row["won"] = row["ms"]["fused"] < row["ms"]["torch"]
                if clock.device == "cuda":
                    row["host"] = host(calls["fused"])
            rows.append(row)
    return rows


def frame(gpt: "GPT", batch: int, precision: str, graph: bool | None) -> Callable[[], "torch.Tensor"]:
    """Draws the third latent frame of a clip of which two are known."""
    import torch

    from tats.gpt.api import sample_codes

    config = gpt.config
    seeds, generator = range(batch), torch.Generator().manual_seed(0)
    known = torch.randint(config.n_codes, (batch, 2, *config.latent_shape[1:]), generator=generator)
    settings: dict[str, Any] = {"label": [0] * batch, "top_k": TOP_K, "top_p": TOP_P, "precision": precision}
    return lambda: sample_codes(gpt, 3, seeds=seeds, known=known.to(gpt.pos_emb.device), cuda_graph=graph, **settings)


def of_recorded(rows: list[Record], width: int, rates: dict[str, float]) -> Iterator[Record]:
    """What the rows of models of this width say of the goals of decoding, per code, the faster way of both."""
    for row in rows:
        if row["width"] == width and "fused" in row["ms"]:
            seconds = min(row["ms"].values()) / 1000 / row["codes"]
            share = row["must_read"] / rates["copied"] / seconds
            yield {"goal": f"decode, bf16, {row['videos']}", "value": share, "seconds": seconds}
            if row["videos"] == 8 and "host" in row:
                for what, number in row["host"].items():
                    yield {"goal": f"decode, {what}", "value": number / row["codes"]}


def goals(
    clock: Any, rates: dict[str, float], over: Callable[[], bool], rows: list[Record], tiny: bool = False
) -> list[Record]:
    """Every part for which time is left; what fails there is told and ends nothing.

    clock: milliseconds of a call on its `device`. rates: bytes copied and operations of products per second. rows: what
    `recorded` gave. Of two values for the same goal the higher one is kept.
    """
    import torch

    gpt = make_model("ci" if tiny else "default").to(clock.device)
    found = list(of_recorded(rows, gpt.config.n_embd, rates))
    for part in (decoding, prefill, clips, training):
        if over():
            print(f"{part.__name__}: no time was left", flush=True)
            continue
        torch.manual_seed(0)
        try:
            found += part(gpt, clock, rates, tiny)
        except (RuntimeError, ValueError, TypeError) as error:  # no memory, or what no GPU has run before
            if tiny:
                raise
            print(f"{part.__name__}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        if clock.device == "cuda":
            torch.cuda.empty_cache()
    best: dict[str, Record] = {}
    for record in found:
        if record["goal"] not in best or record["value"] > best[record["goal"]]["value"]:
            best[record["goal"]] = record
    return list(best.values())


def median(clock: Timer, way: Callable[[], Any], times: int) -> float:
    """Seconds of a call, the median after three that do not count."""
    return statistics.median([clock(way) for _ in range(times + 3)][3:]) / 1000


def decoding(gpt: "GPT", clock: Any, rates: dict[str, float], tiny: bool) -> Iterator[Record]:
    """One code behind half a window, drawn, for one, few and many videos, in bf16 and in 8 bits.

    8 bits: of the weights alone, or with 8-bit keys and values through the kernel, whichever is faster.
    """
    position, batches, often = gpt.config.block_size // 2, (1, 2) if tiny else (1, 8, 64), FEW if tiny else MANY
    wide: dict[int, float] = {}
    for batch, step in steps(gpt, batches, position, "bf16", "full"):
        wide[batch] = taken = median(clock, step, often)
        floor = must_read(gpt, batch, position, "bf16", cache_bytes=2) / rates["copied"]
        yield {"goal": f"decode, bf16, {batch}", "value": floor / taken, "seconds": taken}
    found: dict[int, dict[str, float]] = {batch: {} for batch in batches}
    for cache, name in (("full", "torch"), ("int8", "torch" if tiny else "fused")):
        for batch, step in steps(gpt, batches, position, "int8", cache):
            with kernels.implementation(name):
                found[batch][cache] = median(clock, step, often)
    for batch, seconds in found.items():
        ratio = wide[batch] / min(seconds.values())
        yield {"goal": f"decode, int8, {batch}", "value": ratio, "seconds_by_cache": seconds}


def steps(
    gpt: "GPT", batches: tuple[int, ...], position: int, precision: str, cache: str
) -> Iterator[tuple[int, Callable[[], Any]]]:
    """A step for every number of videos, over weights that are packed once."""
    from tats.gpt.engine import Engine

    packed = Engine(gpt, 1, precision=precision, cache=cache)
    for batch in batches:
        yield batch, one_step(packed.resized(batch), position)


def one_step(engine: "Engine", position: int) -> Callable[[], Any]:
    """A step of the engine behind `position` random keys and values, with its draw."""
    import torch

    from tats.gpt.draw import Draw

    config, device = engine.config, engine.device
    for pair in engine.cache.kv:
        for room in pair:
            if room.is_floating_point():
                room.normal_()
    token = torch.randint(config.code_offset, config.vocabulary, (engine.batch, 1), device=device)
    at, u = engine.order[position : position + 1], torch.rand(engine.batch, dtype=torch.float64, device=device)
    draw = Draw(TOP_K, TOP_P)

    def step() -> Any:
        engine.cache.length = position
        return draw(engine(token, at), u)

    return step


def host(call: Callable[[], Any]) -> dict[str, float]:
    """How often the host waits for the GPU during a call, and the bytes that it allocates."""
    import torch

    call()
    before = torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(each.message) for each in said)
    return {"waits": waits, "allocated": torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - before}


def prefill(gpt: "GPT", clock: Any, rates: dict[str, float], tiny: bool) -> Iterator[Record]:
    """Three quarters of a window at once, one video."""
    import torch

    from tats.gpt.engine import Engine

    config, length = gpt.config, gpt.config.block_size * 3 // 4
    engine = Engine(gpt, 1, precision="bf16")
    tokens = torch.randint(config.code_offset, config.vocabulary, (1, length), device=engine.device)

    def show() -> Any:
        engine.reset()
        return engine(tokens, engine.order[:length])

    yield {"goal": "prefill", "value": 1000 * median(clock, show, FEW if tiny else MANY), "codes": length}


def clips(gpt: "GPT", clock: Any, rates: dict[str, float], tiny: bool) -> Iterator[Record]:
    """Seconds of a short clip and of a long video, sampled and decoded; of the long one some frames, scaled."""
    import torch

    from benchmarks.vqgan import make
    from tats.gpt.api import sample_codes, sample_long_codes

    vqgan = make("ci" if tiny else "default", 16 if tiny else 128).to(clock.device)
    frames, factor = gpt.config.latent_shape[0], vqgan.config.downsample[0]
    settings: dict[str, Any] = {"label": [0], "top_k": TOP_K, "top_p": TOP_P, "precision": "bf16"}

    def seconds(call: Callable[[], Any]) -> float:
        call()
        began = time.perf_counter()
        call()
        if clock.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def sliding(count: int) -> None:
        for _ in sample_long_codes(gpt, count, frames - 1, **settings):
            pass

    codes = torch.randint(vqgan.n_codes, (1, frames, *gpt.config.latent_shape[1:]), device=clock.device)
    with torch.inference_mode():
        short = seconds(lambda: vqgan.decode(sample_codes(gpt, **settings)))
        decode = seconds(lambda: vqgan.decode(codes))
        first, more = seconds(lambda: sliding(frames)), seconds(lambda: sliding(frames + 2))
    yield {"goal": f"{frames * factor} frames", "value": short}
    latents = LONG // factor
    whole = first + (latents - frames) * max(more - first, 0.0) / 2 + latents / frames * decode
    yield {"goal": f"{LONG} frames", "value": whole, "scaled_from_latent_frames": frames + 2}


def training(gpt: "GPT", clock: Any, rates: dict[str, float], tiny: bool) -> Iterator[Record]:
    """A training step of the transformer, bf16, as a share of the rate of a large matrix product."""
    import torch

    from tats.gpt import objective

    config, batch = gpt.config, 2 if tiny else 16
    codes = torch.randint(config.n_codes, (batch, *config.latent_shape), device=clock.device)
    cond = torch.randint(config.code_offset, (batch, config.n_cond), device=clock.device)
    optimizer = torch.optim.AdamW(gpt.train().parameters(), lr=1e-5, fused=clock.device == "cuda")

    def step() -> None:
        with torch.autocast(clock.device, torch.bfloat16):
            loss, _ = objective.learn(gpt, objective.window(gpt, cond, codes))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    taken = median(clock, step, FEW if tiny else 10)
    gpt.eval()
    work = work_of_training(gpt) * codes.numel()
    yield {"goal": "training", "value": work / taken / rates["bf16"], "codes_per_second": codes.numel() / taken}


def work_of_training(gpt: "GPT") -> float:
    """Operations per code of a training step: forward once and backward twice, half of all pairs in attention."""
    config = gpt.config
    return 6.0 * weights_of(gpt) + 6.0 * config.n_layer * config.n_embd * config.block_size
