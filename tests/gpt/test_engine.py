"""The engine against the plain model, in every number format; and what must not change a result."""

from dataclasses import replace

import pytest
import torch
from gpt_parts import tiny_gpt
from tats.kernels.decode_attention import blas, decode_attention_blas, decode_attention_reference
from tats.kernels.draw_code import pick

from benchmarks import sampling
from tats.flags import UserError
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine, only_packed, prepared
from tats.gpt.model import GPT
from tats.gpt.packed import PRECISIONS, Eighth, Halved, Plain, Reordered, Widened, fastest, pack, rounded

ALLOWED = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 3e-2, "int8": 0.15}


def unroll(engine, tokens, start):
    """Logits behind every token from `start` on, the tokens in front shown at once: [B, L - start + 1, n]."""
    engine.reset()
    rows = [engine(tokens[:, :start], engine.order[:start])]
    rows += [engine(tokens[:, at : at + 1], engine.order[at : at + 1]) for at in range(start, tokens.shape[1])]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_engine_gives_the_logits_of_the_plain_model(precision, batch):
    gpt = sampling.make_model("ci")
    tokens = torch.randint(3, 515, (batch, 64), generator=torch.Generator().manual_seed(1))
    engine = Engine(gpt, batch, precision=precision)
    with torch.no_grad():
        plain = gpt(tokens)[:, 29:, 3:]
    made = unroll(engine, tokens, 30)
    assert made.dtype == torch.float32
    assert (made - plain).norm() / plain.norm() <= ALLOWED[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_windows_of_a_model_in_float64_run_in_every_format(precision):
    gpt = tiny_gpt()
    tokens = torch.arange(20)[None] + 3
    with torch.no_grad():
        plain = gpt(tokens)[:, 9:, 3:]
    made = unroll(Engine(gpt, 1, precision=precision), tokens, 10)
    assert made.dtype == (torch.float64 if precision == "fp32" else torch.float32)
    assert (made - plain).norm() / plain.norm() <= (1e-12 if precision == "fp32" else ALLOWED[precision])


@pytest.mark.parametrize("n, k", [(48, 32), (640, 256)])  # kept in float32, and packed
@pytest.mark.parametrize("precision, allowed", [("fp32", 2e-6), ("fp16", 1e-3), ("bf16", 1e-2), ("int8", 2e-2)])
def test_packed_layers_multiply(precision, allowed, n, k):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(n, k), torch.randn(n), torch.randn(5, k)
    exact = x.double() @ weight.double().T + bias
    for one in (bias, None):
        y = pack(weight, one, precision, rows=5)(x)
        assert (y - (exact if one is not None else exact - bias)).norm() / exact.norm() <= allowed


@pytest.mark.parametrize("kind", [Plain, Reordered, Halved, Eighth, Widened])
def test_every_kind_of_layer_takes_any_number_of_rows(kind):
    torch.manual_seed(0)
    weight, x = torch.randn(96, 64), torch.randn(40, 64)
    layer = kind(weight, None, torch.float32)
    for rows in (1, 2, 16, 40):
        exact, into = x[:rows] @ weight.T, torch.randn(rows, 96)
        assert (layer(x[:rows]) - exact).norm() / exact.norm() <= 2e-2
        assert (layer.add(x[:rows], into.clone()) - into - exact).norm() / exact.norm() <= 2e-2


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_small_layers_hold_the_rounded_weights_whatever_the_number_of_rows(precision):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(3, 64)
    steps, scale = rounded(weight)
    kept = steps * scale[:, None] if precision == "int8" else weight.to(PRECISIONS[precision]).float()
    assert all(fastest(precision, 96, 64, rows, 1) is Widened for rows in (1, 4, 500))
    assert torch.allclose(pack(weight, bias, precision, rows=1)(x), x @ kept.T + bias, atol=1e-5)


def test_8_bit_rows_do_not_depend_on_their_neighbours():
    torch.manual_seed(0)
    layer = Eighth(torch.randn(64, 128), torch.randn(64), torch.int8)
    x = torch.randn(20, 128) * torch.tensor([1.0, 100.0, 0.01, 0.0]).repeat(5)[:, None]
    for some in (x, x[:4]):  # more rows than go through numpy, and fewer
        together = layer(some)
        assert torch.isfinite(together).all()
        assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(4))


def test_8_bit_weights_are_at_most_half_a_step_away():
    weight = torch.cat([torch.randn(5, 30), torch.zeros(1, 30)])
    steps, scale = rounded(weight)
    assert steps.dtype == torch.int8 and steps.min() >= -127
    assert ((steps * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()


def test_weights_beyond_fp16_are_refused():
    with pytest.raises(UserError, match="bf16"):
        pack(torch.full((4, 4), 1e5), None, "fp16", rows=1)


def test_packed_weights_are_kept_until_the_model_changes():
    gpt = sampling.make_model("ci")
    first = prepared(gpt, 1)
    again = prepared(gpt, 3)
    assert again.layers is first.layers and again.cache is not first.cache and again.batch == 3
    tokens = torch.zeros(1, 1, dtype=torch.long)
    before = first(tokens, first.order[:1])
    with torch.no_grad():
        gpt.blocks[0].attn.proj.bias.add_(1.0)
    other = prepared(gpt, 1)
    assert other.layers is not first.layers
    assert not torch.allclose(other(tokens, other.order[:1]), before)


def test_a_model_that_only_samples_lets_go_of_its_own_weights():
    gpt, tokens = sampling.make_model("ci"), torch.arange(10)[None]
    wanted = unroll(Engine(gpt, 1, precision="int8"), tokens, 5)
    only_packed(gpt, precision="int8")
    assert {name for name, _ in gpt.named_parameters() if "emb" not in name} == {
        "ln_f.weight",
        "ln_f.bias",
        "head.weight",
    }
    assert gpt.head.weight.numel() == 0
    assert torch.equal(unroll(prepared(gpt, 1, precision="int8"), tokens, 5), wanted)
    with pytest.raises(ValueError, match="load it again"):
        prepared(gpt, 1)
    assert torch.equal(unroll(prepared(gpt, 1, precision="int8"), tokens, 5), wanted)


def test_a_step_allocates_nothing_that_grows_with_its_position(monkeypatch):
    monkeypatch.setattr(blas, "faster", lambda *arguments: True)
    config = replace(sampling.make_model("ci").config, block_size=256, latent_shape=(4, 8, 8))
    engine, token = Engine(GPT(config), 2), torch.zeros(2, 1, dtype=torch.long)
    allocated = []
    for position in (70, 250):
        engine.cache.length = position
        with torch.profiler.profile(profile_memory=True) as seen:
            engine(token, engine.order[position : position + 1])
        allocated.append(sum(max(event.cpu_memory_usage, 0) for event in seen.events()))
    assert allocated[1] <= allocated[0]


@pytest.mark.parametrize("length", [1, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_by_blas_reads_nothing_behind_the_end(length, dtype):
    torch.manual_seed(0)
    q, room = torch.randn(2, 3, 32, dtype=dtype), torch.full((600,), float("nan"), dtype=dtype)
    k, v = torch.randn(2, 2, 3, 100, 32, dtype=dtype)
    k[:, :, length:] = v[:, :, length:] = float("nan")
    exact = decode_attention_reference(q.double(), k.double(), v.double(), length)
    eager = decode_attention_reference(q, k, v, length)
    for given in (None, room):
        fast = decode_attention_blas(q, k, v, length, given)
        assert (fast - exact).abs().max() <= 2 * (eager - exact).abs().max() + 1e-6


@pytest.mark.parametrize("top_k, top_p", [(None, None), (0, 0.8), (300, 0.92), (300, 1.0), (5, 0.5), (9000, 0.9)])
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_the_draw_of_one_row_is_the_draw_from_its_probabilities(top_k, top_p, spread):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(16, 2000, generator=generator, dtype=torch.float64) * spread
    u = torch.rand(16, generator=generator, dtype=torch.float64)
    u[0], u[1] = 0.0, 1 - 2**-53
    draw = Draw(top_k, top_p, 0.9)
    assert torch.equal(draw(logits, u), pick(draw.probabilities(logits), u))
    assert draw(logits.float(), u).dtype == torch.long


def test_equals_at_the_bounds_of_the_draw():
    logits = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, -3.0]])
    last = torch.tensor([1 - 1e-9], dtype=torch.float64)
    assert Draw(3)(logits, last) == 5  # all that equal the third
    assert Draw(3, 0.3)(logits, last) == 2  # of equals the first two, the second crosses 0.3
    assert Draw(0, 0.42)(logits, last) == 2 and Draw(0, 0.43)(logits, last) == 4  # shares of 0.2103
    both = Draw(3, 0.3)(torch.cat([logits, torch.arange(7.0)[None]]), last)
    assert both.tolist() == [2, 6]
