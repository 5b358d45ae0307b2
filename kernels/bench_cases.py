"""What `kernels/bench.py` checks and times: every kernel at the sizes of the models, beside its rivals.

A case first computes with the kernel and with the definition in float64, in every number format, and says how far the
kernel lies from it as a share of what is allowed; then it gives the ways to time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tats.kernels.attention import attention_reference
from tats.kernels.attention.reference import anchor_mask
from tats.kernels.decode_attention import new_tokens_reference, quantized, widened
from tats.kernels.dispatch import IMPLEMENTATIONS
from tats.kernels.draw_code import pick, probabilities
from tats.kernels.nearest_code.reference import nearest_code_reference
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tats import kernels

Ways = dict[str, Callable[[], Any]]
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One size of one op: its width (0: it has none), its size in words, and how to check it and what to time."""

    op: str
    width: int
    size: str
    make: Callable[[str], tuple[float, Ways]]
    """Device -> distance to the exact result as a share of the allowance, and the ways to time."""


def forced(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with one implementation of every op."""

    def run() -> Any:
        with kernels.implementation(name):
            return call()

    return run


def ways_of(call: Callable[[], Any]) -> Ways:
    """The call in every implementation."""
    return {name: forced(name, call) for name in IMPLEMENTATIONS}


def within(exact: Tensor, eager: Tensor, fast: Tensor) -> float:
    """Distance to the exact result as a share of what is allowed: twice the definition's own, and rounding."""
    size = max(1.0, float(exact.abs().max()))
    allowed = 2 * float((eager - exact).abs().max()) + 1e-6 * size
    far = float((fast - exact).abs().max())
    return far / allowed if far == far else float("inf")


def with_gradients(attend: Callable[..., Tensor], inputs: list[Tensor], above: Tensor) -> list[Tensor]:
    """Output of an attention and gradients of its inputs."""
    given = [x.detach().requires_grad_() for x in inputs]
    out = attend(*given)
    return [out.detach(), *torch.autograd.grad(out, given, above)]


def attention_case(B: int, N: int, L: int, D: int, ends: tuple[int, int], device: str) -> tuple[float, Ways]:
    """Attention of a window with its backward, with anchors in front and at the end."""
    shape = (B, N, L, D)
    *inputs, above = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(4))
    small = [x[:1, :2] for x in inputs]

    def results(attend: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        return with_gradients(attend, [x.to(dtype) for x in small], above[:1, :2].to(dtype))

    exact = results(lambda *x: attention_reference(*x, *ends), torch.float64)
    share = 0.0
    for dtype in (*HALVES, torch.float32):
        eager = results(lambda *x: attention_reference(*x, *ends), dtype)
        with kernels.implementation("fused"):
            fast = results(lambda *x: kernels.attention(*x, *ends), dtype)
        share = max(share, *map(within, exact, eager, fast))
    ways = ways_of(lambda: with_gradients(lambda *x: kernels.attention(*x, *ends), inputs, above))
    mask = anchor_mask(L, *ends, device=device)
    ways["SDPA, dense mask"] = lambda: with_gradients(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask), inputs, above
    )
    return share, {**ways, **attention_rivals(inputs, above, ends)}


def attention_rivals(inputs: list[Tensor], above: Tensor, ends: tuple[int, int]) -> Ways:
    """FlexAttention and torch.compile of the definition, forward and backward; compiled when they are first called."""
    L = above.shape[2]
    kept: dict[str, Any] = {}

    def seen(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        anchor = (column < ends[0]) | (column >= L - ends[1])
        return anchor | ((row >= column) & (row >= ends[0]) & (row < L - ends[1]))

    def flex() -> list[Tensor]:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not kept:
            kept["mask"] = create_block_mask(seen, None, None, L, L, device=above.device)
            kept["call"] = torch.compile(flex_attention, dynamic=False)
        return with_gradients(lambda q, k, v: kept["call"](q, k, v, block_mask=kept["mask"]), inputs, above)

    plain = torch.compile(attention_reference, dynamic=False)
    return {
        "FlexAttention": flex,
        "torch.compile": lambda: with_gradients(lambda *x: plain(*x, *ends), inputs, above),
    }


def cached(B: int, N: int, T: int, L: int, D: int, lengths: Tensor, eight: bool, dtype: torch.dtype) -> tuple[Any, ...]:
    """New tokens and a cache that holds NaN behind every row's length: q, k, v, their scales or None."""
    q = torch.randn(B, N, T, D, device=lengths.device, dtype=dtype)
    k, v = torch.randn(2, B, N, L, D, device=lengths.device, dtype=dtype)
    scales = None
    if eight:
        (k, k_scale), (v, v_scale) = quantized(k), quantized(v)
        scales = k_scale, v_scale
    for row, length in enumerate(lengths.tolist()):
        for x in scales or (k, v):
            x[row, :, length:] = float("nan")
    return q, k, v, scales


def decode_share(N: int, L: int, D: int, filled: int, eight: bool, device: str) -> float:
    """The check of decoding: one and three new tokens, rows of different lengths, in every number format."""
    share = 0.0
    for T, dtype in [(1, torch.bfloat16), (1, torch.float16), (1, torch.float32), (3, torch.bfloat16)]:
        lengths = torch.tensor([T, filled, L], device=device)
        q, k, v, scales = cached(3, N, T, L, D, lengths, eight, dtype)
        wide = (k, v) if eight else (k.double(), v.double())
        exact = new_tokens_reference(q.double(), *wide, lengths.tolist(), scales)
        eager = new_tokens_reference(q, k, v, lengths.tolist(), scales)
        call = partial(kernels.decode_new_tokens, q, k, v, lengths, scales)
        share = max(share, within(exact, eager, forced("fused", call)()))
    return share


def masked(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scales: tuple[Tensor, Tensor] | None) -> Tensor:
    """One new token per row as a compiler likes it: the whole cache under a mask.  q [B, N, 1, D] -> [B, N, 1, D]"""
    if scales is not None:
        k, v = widened(k, scales[0], q.dtype), widened(v, scales[1], q.dtype)
    seen = (torch.arange(k.shape[2], device=q.device) < lengths[:, None])[:, None, :, None]  # [B, 1, L, 1]
    return scaled_dot_product_attention(q, k.where(seen, 0), v.where(seen, 0), attn_mask=seen.mT)


def decode_case(B: int, N: int, L: int, D: int, filled: int, eight: bool, device: str) -> tuple[float, Ways]:
    """One new token over a cache of which `filled` are there."""
    lengths = torch.full((B,), filled, device=device)
    q, k, v, scales = cached(B, N, 1, L, D, lengths, eight, torch.bfloat16)
    call = lambda: kernels.decode_new_tokens(q, k, v, lengths, scales)
    ways = ways_of(call)
    if not eight:  # where all rows have one length that the host knows
        ways["SDPA of one length"] = forced("torch", lambda: kernels.decode_attention(q[:, :, 0], k, v, filled))
    compiled = torch.compile(masked, dynamic=False)
    ways["torch.compile"] = lambda: compiled(q, k, v, lengths, scales)
    return decode_share(N, L, D, filled, eight, device), ways


def nearest_case(n: int, n_codes: int, width: int, device: str) -> tuple[float, Ways]:
    """The nearest of `n_codes` codes; the chosen ones must not lie further away than the definition's."""
    vectors, codes = torch.randn(n, width, device=device), torch.randn(n_codes, width, device=device)
    call = lambda: kernels.nearest_code(vectors, codes)
    some = vectors[:2048].double()

    def far(found: Tensor) -> Tensor:
        return (some - codes[found[:2048]].double()).square().sum(1)

    best = far(nearest_code_reference(some, codes.double()))
    eager, fast = far(nearest_code_reference(vectors[:2048], codes)), far(forced("fused", call)())
    compiled = torch.compile(nearest_code_reference, dynamic=False)
    return within(best, eager, fast), {**ways_of(call), "torch.compile": lambda: compiled(vectors, codes)}


def draw_share(logits: Tensor, u: Tensor, temperature: float, top_k: int, top_p: float) -> float:
    """The check of a draw: every code owns the number that drew it, up to the rounding of a float32 sum."""
    call = partial(kernels.draw_code, logits, u, temperature, top_k, top_p)
    probs = probabilities(logits, temperature, top_k, top_p).double()
    sums = probs.cumsum(1)
    code = forced("fused", call)()[:, None]
    above = sums.gather(1, code)[:, 0] / sums[:, -1]
    below = above - probs.gather(1, code)[:, 0] / sums[:, -1]
    outside = torch.maximum(below - u, u - above).clamp_min(0).max()
    return float(outside) / 1e-5 if bool((probs.gather(1, code) > 0).all()) else float("inf")


def draw_case(B: int, n: int, top_k: int, top_p: float, device: str) -> tuple[float, Ways]:
    """A draw per row."""
    logits, u = 3 * torch.randn(B, n, device=device), torch.rand(B, device=device, dtype=torch.float64)
    settings = [(1.0, top_k, top_p), (0.7, 0, 1.0), (1.3, top_k, 1.0), (1.0, 0, top_p)]
    share = max(draw_share(logits, u, *each) for each in settings)
    share = max(share, draw_share(logits.bfloat16(), u, *settings[0]))
    call = lambda: kernels.draw_code(logits, u, 1.0, top_k, top_p)
    compiled = torch.compile(lambda: pick(probabilities(logits, 1.0, top_k, top_p), u), dynamic=False)
    return share, {**ways_of(call), "torch.compile": compiled}


def cases() -> Iterator[Case]:
    """The sizes of the default, the interpolating and the demo model, the ones that matter most first."""
    sizes = [(8, 16, 1280, 64, (257, 255)), (8, 16, 1024, 64, (0, 0)), (8, 4, 320, 32, (0, 0))]
    yield Case("nearest_code", 256, "65536 vectors, 16384x256", partial(nearest_case, 65536, 16384, 256))
    for B, N, L, D, ends in sizes:
        size = f"{B}x{N}x{L}x{D}, anchors {ends[0]} and {ends[1]}, bf16, with backward"
        yield Case("attention", D, size, partial(attention_case, B, N, L, D, ends))
    for eight in (False, True):
        for B in (64, 8, 1):
            size = f"{B}x16x1024x64, 512 filled, {'8 bit' if eight else 'bf16'}"
            yield Case("decode_attention", 64, size, partial(decode_case, B, 16, 1024, 64, 512, eight))
    for B in (64, 8, 1):
        yield Case("draw_code", 0, f"{B}x16384, top-k 2048, top-p 0.92", partial(draw_case, B, 16384, 2048, 0.92))
    yield Case("nearest_code", 256, "1024 vectors, 16384x256", partial(nearest_case, 1024, 16384, 256))


def tiny_cases() -> Iterator[Case]:
    """Sizes for Triton's interpreter, which takes milliseconds per tile: only the checks mean something."""
    for ends in ((0, 0), (9, 7)):
        yield Case("attention", 32, f"1x1x70x32, anchors {ends}", partial(attention_case, 1, 1, 70, 32, ends))
    for eight in (False, True):
        yield Case("decode_attention", 32, f"2x1x70x32, 8 bit: {eight}", partial(decode_case, 2, 1, 70, 32, 40, eight))
    yield Case("nearest_code", 8, "65 vectors, 130x8", partial(nearest_case, 65, 130, 8))
    yield Case("draw_code", 0, "2x100, top-k 20, top-p 0.9", partial(draw_case, 2, 100, 20, 0.9))
