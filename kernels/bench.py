"""Checks the Triton kernels on this GPU, then times them beside their rivals, and stores what it found.

    python kernels/bench.py              # writes benchmarks/results/gpu_NAME.json, NAME that of the GPU
    python kernels/bench.py --out DIR

Needs torch and triton only, and no network. What is checked: outputs and gradients against the definition in float64; a
kernel may be twice as far from it as the definition in the tested format is. What fails is not timed. Times are medians
of calls between CUDA events, each way in turn. After --seconds what is left is not measured and counts as not passed.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tats.kernels.attention import attention_reference
from tats.kernels.decode_attention import new_tokens_reference, quantized
from tats.kernels.dispatch import IMPLEMENTATIONS
from tats.kernels.draw_code import probabilities
from tats.kernels.nearest_code.reference import nearest_code_reference
from torch import Tensor

from tats import kernels

ROOT = Path(__file__).resolve().parent.parent
Ways = dict[str, Callable[[], Any]]
ROUNDS = 30  # timed calls of each way


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


def attention_case(B: int, N: int, L: int, D: int, ends: tuple[int, int]) -> tuple[float, Ways]:
    """Attention of a window with its backward.  -> share of the allowance, what to time"""
    shape = (B, N, L, D)
    *inputs, above = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    small = [x[:1, :2] for x in inputs]

    def results(attend: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        return with_gradients(attend, [x.to(dtype) for x in small], above[:1, :2].to(dtype))

    exact = results(lambda *x: attention_reference(*x, *ends), torch.float64)
    share = 0.0
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        eager = results(lambda *x: attention_reference(*x, *ends), dtype)
        with kernels.implementation("fused"):
            fast = results(lambda *x: kernels.attention(*x, *ends), dtype)
        share = max(share, *map(within, exact, eager, fast))
    ways = ways_of(lambda: with_gradients(lambda *x: kernels.attention(*x, *ends), inputs, above))
    return share, {**ways, **attention_rivals(inputs, above, ends)}


def attention_rivals(inputs: list[Tensor], above: Tensor, ends: tuple[int, int]) -> Ways:
    """FlexAttention and torch.compile of the definition, forward and backward."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    L = above.shape[2]

    def seen(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        anchor = (column < ends[0]) | (column >= L - ends[1])
        return anchor | ((row >= column) & (row >= ends[0]) & (row < L - ends[1]))

    mask = create_block_mask(seen, None, None, L, L, device="cuda")
    flex, plain = torch.compile(flex_attention), torch.compile(attention_reference)
    return {
        "FlexAttention": lambda: with_gradients(lambda q, k, v: flex(q, k, v, block_mask=mask), inputs, above),
        "torch.compile": lambda: with_gradients(lambda *x: plain(*x, *ends), inputs, above),
    }


def decode_case(B: int, N: int, L: int, D: int, filled: int, eight: bool) -> tuple[float, Ways]:
    """One new token over a cache of which `filled` are there."""
    q = torch.randn(B, N, 1, D, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, B, N, L, D, device="cuda", dtype=torch.bfloat16)
    lengths = torch.full((B,), filled, device="cuda")
    scales = None
    if eight:
        (k, k_scale), (v, v_scale) = quantized(k), quantized(v)
        scales = k_scale, v_scale
    else:
        k[:, :, filled:] = v[:, :, filled:] = float("nan")
    wide = (k, v) if eight else (k.double(), v.double())
    exact = new_tokens_reference(q.double(), *wide, lengths.tolist(), scales)
    eager = new_tokens_reference(q, k, v, lengths.tolist(), scales)
    call = lambda: kernels.decode_new_tokens(q, k, v, lengths, scales)
    share = within(exact, eager, forced("fused", call)())
    ways = ways_of(call)
    if not eight:  # the engine's way, where all rows have one length that the host knows
        ways["SDPA of one length"] = forced("torch", lambda: kernels.decode_attention(q[:, :, 0], k, v, filled))
    compiled = torch.compile(forced("torch", call), dynamic=False)
    return share, {**ways, "torch.compile": compiled}


def nearest_case(n: int, n_codes: int, width: int) -> tuple[float, Ways]:
    """The nearest of `n_codes` codes; the chosen ones must not lie further away than the definition's."""
    vectors, codes = torch.randn(n, width, device="cuda"), torch.randn(n_codes, width, device="cuda")
    call = lambda: kernels.nearest_code(vectors, codes)
    some = vectors[:2048].double()

    def far(found: Tensor) -> Tensor:
        return (some - codes[found[:2048]].double()).square().sum(1)

    best = far(nearest_code_reference(some, codes.double()))
    eager, fast = far(nearest_code_reference(vectors[:2048], codes)), far(forced("fused", call)())
    compiled = torch.compile(nearest_code_reference)
    return within(best, eager, fast), {**ways_of(call), "torch.compile": lambda: compiled(vectors, codes)}


def draw_case(B: int, n: int, top_k: int, top_p: float) -> tuple[float, Ways]:
    """A draw per row; every code must own the number that drew it, up to the rounding of a float32 sum."""
    logits, u = 3 * torch.randn(B, n, device="cuda"), torch.rand(B, device="cuda", dtype=torch.float64)
    call = lambda: kernels.draw_code(logits, u, 1.0, top_k, top_p)
    probs = probabilities(logits, 1.0, top_k, top_p).double()
    sums = probs.cumsum(1)
    code = forced("fused", call)()[:, None]
    above = sums.gather(1, code)[:, 0] / sums[:, -1]
    below = above - probs.gather(1, code)[:, 0] / sums[:, -1]
    outside = torch.maximum(below - u, u - above).clamp_min(0).max()
    share = float(outside) / 1e-5 if bool((probs.gather(1, code) > 0).all()) else float("inf")
    return share, ways_of(call)


def cases() -> list[tuple[str, int, str, Callable[[], tuple[float, Ways]]]]:
    """(op, width, size in words, how to make it), at the sizes of the default, the interpolating and the demo model."""
    found: list[tuple[str, int, str, Callable[[], tuple[float, Ways]]]] = []
    for B, N, L, D, ends in [(8, 16, 1024, 64, (0, 0)), (8, 16, 1280, 64, (257, 255)), (8, 4, 320, 32, (0, 0))]:
        size = f"{B}x{N}x{L}x{D}, anchors {ends[0]} and {ends[1]}, bf16, with backward"
        found.append(("attention", D, size, partial(attention_case, B, N, L, D, ends)))
    for B in (1, 8, 64):
        for eight in (False, True):
            size = f"{B}x16x1024x64, 512 filled, {'8 bit' if eight else 'bf16'}"
            found.append(("decode_attention", 64, size, partial(decode_case, B, 16, 1024, 64, 512, eight)))
    for n in (1024, 65536):
        found.append(("nearest_code", 256, f"{n} vectors, 16384x256", partial(nearest_case, n, 16384, 256)))
    for B in (1, 16, 64):
        found.append(("draw_code", 0, f"{B}x16384, top-k 2048, top-p 0.92", partial(draw_case, B, 16384, 2048, 0.92)))
    return found


def timed(ways: Ways, until: float) -> dict[str, float]:
    """Milliseconds of every way: medians of calls in turn, after three that do not count."""
    ways = {name: way for name, way in ways.items() if name in IMPLEMENTATIONS or runs(name, way)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")  # larger than any second-level cache
    for round_ in range(ROUNDS + 3):
        if round_ > 8 and time.monotonic() > until:
            break
        for name, way in ways.items():
            flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            way()
            end.record()
            end.synchronize()
            if round_ >= 3:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def runs(name: str, way: Callable[[], Any]) -> bool:
    """True where a rival compiles and runs here; else it is named and left out."""
    try:
        way()
    except (RuntimeError, ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"left out: {name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return False
    return True


def measure(op: str, width: int, size: str, make: Callable[[], tuple[float, Ways]], until: float) -> dict[str, Any]:
    """One case: checked, then timed.  What fails is told in words and does not end the run."""
    row: dict[str, Any] = {"op": op, "width": width, "size": size, "passed": False, "won": False, "ms": {}, "why": ""}
    if time.monotonic() > until:
        return {**row, "why": "no time was left"}
    torch.manual_seed(0)
    try:
        share, ways = make()
        row["share_of_allowance"] = share
        row["passed"] = share <= 1
        if row["passed"]:
            row["ms"] = timed(ways, until)
            row["won"] = min(row["ms"], key=row["ms"].__getitem__) == "fused"
        else:
            row["why"] = f"{share:.3g} times as far from the exact result as is allowed"
    except (RuntimeError, ValueError, TypeError, ImportError, AttributeError) as error:  # a compiler's, or of a rival
        row |= {"passed": False, "won": False, "why": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        torch.cuda.empty_cache()
    return row


def main(argv: list[str]) -> int:
    """Checks and times everything; returns the exit code, 1 where a kernel did not pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result")
    parser.add_argument("--seconds", type=float, default=400, help="begin no case after that many")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked or measured, nothing was written")
        return 0
    from benchmarks.tables import cell, store

    gpu, until = torch.cuda.get_device_name(), time.monotonic() + args.seconds
    rows = []
    for op, width, size, make in cases():
        rows.append(measure(op, width, size, make, until))
        row = rows[-1]
        told = ", ".join(f"{name} {ms:.4g} ms" for name, ms in row["ms"].items()) or row["why"]
        print(f"{op}, {size}: {'passed' if row['passed'] else 'NOT passed'}; {told}", flush=True)
    columns = ["op", "size", "check", *IMPLEMENTATIONS, "best rival", "fused, times faster"]
    path = store(
        "gpu_" + re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_"),
        columns,
        [table_row(row) for row in rows],
        command="make bench-gpu",
        note="Milliseconds, medians of calls in turn, second-level cache cleared before each; best rival: "
        "FlexAttention, torch.compile or torch's own attention of one length",
        details={"gpu": gpu, "kernels": rows},
        folder=args.out,
    )
    for row in rows:
        print(" | ".join(map(cell, table_row(row))))
    print(f"wrote {path}")
    return 0 if all(row["passed"] for row in rows) else 1


def table_row(row: dict[str, Any]) -> list[Any]:
    """A case as a row of the table."""
    ms = dict(row["ms"])
    rivals = {name: value for name, value in ms.items() if name not in IMPLEMENTATIONS}
    best = min(rivals, key=rivals.__getitem__, default=None)
    told = None if best is None else f"{rivals[best]:.4g} ({best})"
    ratio = min(value for name, value in ms.items() if name != "fused") / ms["fused"] if ms else None
    check = "passed" if row["passed"] else "not passed"
    return [row["op"], row["size"], check, *(ms.get(name) for name in IMPLEMENTATIONS), told, ratio]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
