"""The ways to sample that benchmarks compare: the published algorithm, the plain model, torch.compile, the engine.

A way is one step: it shows the transformer one code per video behind a random past and draws the next one.
"""

import shutil
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tats.gpt.cache import KVCache
    from tats.gpt.engine import Engine
    from tats.gpt.model import GPT

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
CACHE8 = "int8, 8-bit cache"  # keys and values in 8 bits too
ENGINES = (*PRECISIONS, CACHE8)
ALLOWED = {"published": 0.0, "plain": 1e-5, "compiled": 1e-5, "fp32": 1e-5, "fp16": 1e-2, "bf16": 3e-2}
ALLOWED |= {"int8": 0.15, CACHE8: 0.15}
MODELS = {  # layers, heads, width, codes, ids of the condition, latent frames, rows, columns
    "ci": (2, 4, 128, 512, 3, (4, 4, 4)),
    "demo": (4, 4, 128, 1024, 12, (4, 8, 8)),
    "default": (24, 16, 1024, 16384, 101, (4, 16, 16)),
}
TOP_K, TOP_P = 2048, 0.92
COMPILERS = ("g++", "clang++")

Way = Callable[[], "torch.Tensor"]  # one step or window; returns the logits behind its last code
Pairs = list[tuple["torch.Tensor", "torch.Tensor"]]  # keys and values [B, N, L_max, D] of every layer


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


def engines_of(gpt: "GPT", batch: int) -> "dict[str, Engine]":
    """The engine in every number format, by the name of its way."""
    from tats.gpt.engine import Engine

    return {
        way: Engine(gpt, batch, precision=way.split(",")[0], cache="int8" if way == CACHE8 else "full")
        for way in ENGINES
    }


def can_compile() -> bool:
    """Whether torch.compile finds a C++ compiler here, which it needs on a CPU."""
    return any(map(shutil.which, COMPILERS))


def compiled_step(gpt: "GPT") -> Callable[..., "torch.Tensor"]:
    """One step over static caches, written so that torch.compile makes one program of it, for any position.

    The weights are frozen into it in layouts of its choice (`freezing`), and it is compiled twice: for one video, and
    for any other number of them. It takes tokens [B, 1], the position int64 [1], the caches and how many places of them
    count, its own included; it returns logits of codes [B, n].
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    config = gpt.config

    def step(tokens: torch.Tensor, at: torch.Tensor, kv: Pairs, end: int) -> torch.Tensor:
        x = gpt.tok_emb(tokens) + gpt.pos_emb[0, at]  # [B, 1, C]
        for block, (keys, values) in zip(gpt.blocks, kv):
            part, normed = block.attn, block.ln1(x)
            q, k, v = (
                linear(normed).unflatten(-1, (config.n_head, -1)).transpose(1, 2)
                for linear in (part.query, part.key, part.value)
            )  # each [B, N, 1, D]
            keys[:, :, end - 1 : end], values[:, :, end - 1 : end] = k, v
            y = scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end])
            x = x + part.proj(y.transpose(1, 2).flatten(2))
            x = x + block.mlp(block.ln2(x))
        return torch.nn.functional.linear(gpt.ln_f(x[:, 0]), gpt.head.weight[config.code_offset :])  # [B, n]

    compiled: Callable[..., torch.Tensor] = torch.compile(
        step, fullgraph=True, dynamic=True, options={"freezing": True}
    )
    return compiled


def compiles(ways: dict[str, Way]) -> bool:
    """Whether the compiled step, where there is one, compiles and runs here; says why it does not."""
    try:
        if "compiled" in ways:
            ways["compiled"]()
    except (RuntimeError, ValueError, TypeError) as error:  # of the compiler, which changes from torch to torch
        print(f"left out: torch.compile: {type(error).__name__}: {str(error)[:300]}", flush=True)
        return False
    return True


def random_past(gpt: "GPT", batch: int) -> "torch.Tensor":
    """Keys and values of every place of a window: [layers, 2, B, N, L_max, D]."""
    import torch

    config = gpt.config
    shape = (config.n_layer, 2, batch, config.n_head, config.block_size, config.n_embd // config.n_head)
    return torch.randn(shape)


def lend(cache: "KVCache", room: "torch.Tensor", position: int) -> None:
    """Let a cache hold the random past up to `position`.

    One of the same number format reads and writes the past itself: sixteen videos of the default size take 3 GB, once.
    """
    if cache.kv and cache.kv[0][0].dtype == room.dtype:
        cache.kv = [(pair[0], pair[1]) for pair in room]
        return
    cache.reset()
    cache.enter(None, position)
    for layer, (keys, values) in enumerate(room[..., :position, :]):
        cache.write(layer, keys, values)
    cache.leave(position)


def published_way(gpt: "GPT", tokens: "torch.Tensor", past: "torch.Tensor") -> Way:
    """The published step behind keys and values [layers, 2, B, N, T, D], the newest of them in a tensor of its own."""
    import torch

    from benchmarks.published_sampler import PublishedSampler

    published = PublishedSampler(gpt)

    def step() -> torch.Tensor:
        logits, _ = published.forward(tokens, [past[..., :-1, :], past[..., -1:, :]], past.shape[-2])
        published.choose(logits.clone(), 1.0, TOP_K, TOP_P, lambda p: torch.multinomial(p, 1))
        return logits[:, -1, gpt.config.code_offset :]

    return step


def step_ways(
    gpt: "GPT",
    batch: int,
    position: int,
    engines: dict[str, Any],
    compiled: Callable[..., "torch.Tensor"] | None = None,
    room: "torch.Tensor | None" = None,
) -> dict[str, Way]:
    """One step at `position` for every way, each behind the same random past and with a draw at its end.

    engines: by name, made for `batch` videos. compiled: what `compiled_step` gave. room: what `random_past` gave; the
    ways share it, each overwrites the keys and values at `position` before it reads them.
    """
    import torch

    from tats.gpt.cache import KVCache
    from tats.gpt.draw import Draw

    config = gpt.config
    room = random_past(gpt, batch) if room is None else room
    draw, u = Draw(TOP_K, TOP_P), torch.rand(batch, dtype=torch.float64)
    tokens = torch.randint(config.code_offset, config.vocabulary, (batch, 1))
    at = torch.tensor([position])

    def drawn(call: Callable[[], torch.Tensor]) -> Way:
        def step() -> torch.Tensor:
            logits = call()
            draw(logits, u)
            return logits

        return step

    cache = KVCache(config, batch)
    lend(cache, room, position)

    def plain() -> torch.Tensor:
        cache.length = position
        return gpt(tokens, at, cache)[:, 0, config.code_offset :]

    def fast(engine: Any) -> Way:
        lend(engine.cache, room, position)

        def step() -> torch.Tensor:
            engine.cache.length = position
            logits: torch.Tensor = engine(tokens, at)
            return logits

        return drawn(step)

    ways: dict[str, Way] = {"published": published_way(gpt, tokens, room[..., :position, :]), "plain": drawn(plain)}
    if compiled is not None:
        pairs = [(pair[0], pair[1]) for pair in room]
        ways["compiled"] = drawn(lambda: compiled(tokens, at, pairs, position + 1))
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
    """Seconds of processor time of every way, in turn, the order alternating; the first round does not count."""
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
