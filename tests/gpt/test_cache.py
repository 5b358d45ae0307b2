"""The cache: windows of different lengths in one batch, keys and values in 8 bits, and the room that they take."""

import pytest
import torch
from gpt_parts import tiny_gpt
from tats.kernels.decode_attention import blas, new_tokens_reference, quantized, widened
from tats.kernels.decode_attention.bags import BagCache, available

from benchmarks import sampling
from tats.flags import UserError
from tats.gpt import cache as caches
from tats.gpt.cache import FEW, KVCache
from tats.gpt.config import GPTConfig
from tats.gpt.engine import Engine, prepared

EIGHT_BITS = pytest.mark.skipif(not available(32), reason="this build of torch has no FBGEMM")


@pytest.mark.parametrize("by_numpy", [False, True])
def test_windows_of_one_batch_may_have_seen_differently_many_positions(monkeypatch, by_numpy):
    monkeypatch.setattr(blas, "faster", lambda *arguments: by_numpy)
    gpt = tiny_gpt((5, 4, 4))
    tokens = torch.randint(3, 40, (3, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = gpt(tokens)[:, :, 3:]
    engine, have = Engine(gpt, 3), torch.tensor([5, 20, 11])
    for row, length in enumerate(have.tolist()):
        made = engine(tokens[row : row + 1, :length], engine.order[:length], rows=[row], row=None)
        assert torch.allclose(made, plain[row : row + 1, :length])
    every = torch.arange(3)
    for _ in range(4):
        assert torch.equal(engine.cache.lengths, have)
        made = engine(tokens[every, have][:, None], have[:, None])
        assert torch.allclose(made, plain[every, have])
        have += 1
    some, at = torch.tensor([2, 0]), torch.stack([torch.arange(15, 20), torch.arange(9, 14)])
    made = engine(tokens[some[:, None], at], at, rows=some, row=None)
    assert torch.allclose(made, plain[some[:, None], at])
    engine.reset([1])
    made = engine(tokens[1:2, :7], engine.order[:7], rows=[1])
    assert torch.allclose(made, plain[1:2, 6]) and engine.cache.lengths.tolist() == [14, 7, 20]
    engine.rewind([7, 7, 7])
    assert engine.cache.lengths is None
    made = engine(tokens[:, 7:8], engine.order[7:8])
    assert torch.allclose(made, plain[:, 7])


def test_windows_that_begin_are_not_mixed_with_others_where_there_are_anchors():
    engine = Engine(tiny_gpt((3, 2, 2), n_unmasked=4), 2)
    engine(torch.full((1, 5), 3), engine.order[:5], rows=[0])
    with pytest.raises(ValueError, match="anchors"):
        engine(torch.full((2, 3), 3), torch.stack([engine.order[5:8], engine.order[:3]]))


def test_a_full_window_takes_no_more():
    engine = Engine(tiny_gpt(), 1)
    with pytest.raises(ValueError, match="room for 20 positions, 21 were written"):
        engine(torch.zeros(1, 21, dtype=torch.long), torch.zeros(21, dtype=torch.long))


@EIGHT_BITS
@pytest.mark.parametrize("length", [10, 300])  # within one block of keys, and beyond it
def test_sums_of_8_bit_rows_are_attention_over_the_8_bit_cache(length):
    torch.manual_seed(0)
    k, v = torch.randn(2, 3, 2, length, 32)
    k[0, 0, 3] = 0
    cache, half = BagCache(1, 3, 2, length, 32), length // 2
    cache.write(0, [0, 1, 2], [0, 0, 0], k[:, :, :half], v[:, :, :half])
    for at in range(half, length - 1):
        cache.write(0, [0, 1, 2], [at] * 3, k[:, :, at : at + 1], v[:, :, at : at + 1])
    cache.write(0, [2, 0], [length - 1] * 2, k[[2, 0], :, -1:], v[[2, 0], :, -1:])
    (k8, k_scale), (v8, v_scale) = quantized(k), quantized(v)
    for rows, ends in [
        ([0, 1, 2], [length - 1] * 3),
        ([0, 1, 2], [1] * 3),
        ([2, 0], [length, half + 1]),
        ([1, 1, 1], [3, 4, 5]),
    ]:
        q = torch.randn(len(rows), 2, 32)
        cache.aim(rows, ends)
        scales = k_scale[rows], v_scale[rows]
        exact = new_tokens_reference(q[:, :, None].double(), k8[rows], v8[rows], ends, scales)[:, :, 0]
        assert (cache.look(0, q) - exact).abs().max() <= 2e-6
    for found, eight, scale in zip(cache.widened(0, 1, length - 1), (k8, v8), (k_scale, v_scale)):
        assert torch.equal(found[0], widened(eight, scale, torch.float32)[1, :, : length - 1])


@pytest.mark.parametrize("sums", [pytest.param(True, marks=EIGHT_BITS), False])
def test_logits_over_an_8_bit_cache_are_near_those_over_a_full_one(monkeypatch, sums):
    monkeypatch.setattr(caches, "available", lambda width: sums)
    gpt = sampling.make_model("ci")
    tokens = torch.randint(3, 515, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = gpt(tokens)[:, :, 3:]
    engine = Engine(gpt, 2, cache="int8")
    assert (engine.cache.bags is not None) == sums

    def near(made, wanted):
        return (made - wanted).norm() / wanted.norm() <= 6e-3

    assert near(engine(tokens[:, :20], engine.order[:20]), plain[:, 19])
    assert near(engine(tokens[:, 20:21], engine.order[20:21]), plain[:, 20])
    for more in (FEW, FEW + 4):  # each by itself, and all over a widened cache
        at = engine.order[engine.cache.length :][:more]
        assert near(engine(tokens[:, at], at, row=None), plain[:, at])
    engine.rewind([30, 25])
    at = torch.tensor([[30], [25]])
    assert near(engine(tokens.gather(1, at), at), plain[[0, 1], [30, 25]])


@EIGHT_BITS
def test_8_bits_take_less_than_a_third_of_the_room_of_a_long_window():
    config = GPTConfig(n_layer=2, n_head=1, n_embd=64, block_size=4096)
    full, eight = KVCache(config, 1), KVCache(config, 1, eight=True)
    assert full.nbytes == 2 * 2 * 4096 * 64 * 4
    assert eight.nbytes < full.nbytes / 3.4
    assert KVCache(config, 1, device="meta", eight=True).nbytes < full.nbytes / 3.4  # as on a GPU


def test_8_bits_are_taken_by_themselves_only_where_they_are_faster_and_weights_are_in_8_bits(monkeypatch):
    gpt = tiny_gpt()
    for faster in (False, True):
        monkeypatch.setattr("tats.gpt.engine.eight_is_faster", lambda *arguments, faster=faster: faster)
        assert prepared(gpt, 1, precision="int8").cache.eight == faster
        assert not prepared(gpt, 1, precision="fp16").cache.eight
        assert prepared(gpt, 1, precision="fp16", cache="int8").cache.eight
        assert not prepared(gpt, 1, precision="int8", cache="full").cache.eight
    with pytest.raises(UserError, match="auto, full, int8"):
        prepared(gpt, 1, cache="4bit")


@EIGHT_BITS
def test_long_windows_of_wide_models_are_faster_in_8_bits_on_a_cpu_however_many_there_are():
    cpu, large = torch.device("cpu"), GPTConfig(n_layer=1, n_head=16, n_embd=1024, block_size=1024)
    assert caches.eight_is_faster(large, cpu)
    assert not caches.eight_is_faster(GPTConfig(n_layer=1, n_head=4, n_embd=128, block_size=256), cpu)
    assert not caches.eight_is_faster(GPTConfig(n_layer=1, n_head=1, n_embd=1022, block_size=1024), cpu)  # not by 4
