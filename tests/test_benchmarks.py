"""Benchmarks hold the published way against what is known of it, and count what a machine must do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import published_vqgan, sampling, sampling_ways, vqgan
from benchmarks.limits import Limits, floor, must_compute, must_read, weights_of
from benchmarks.published_sampler import PublishedSampler

LIMITS = Limits(1000.0, {"fp32": 100.0, "bf16": 200.0, "int8": 400.0})


def test_another_algorithm_does_not_pass_the_reference_case(monkeypatch):
    sampling.reference_case()
    right = PublishedSampler.choose
    wrong = lambda self, logits, *settings: right(self, -logits, *settings)
    monkeypatch.setattr(PublishedSampler, "choose", wrong)
    with pytest.raises(AssertionError, match="sampling_base/greedy/tokens"):
        sampling.reference_case()


def test_logits_that_are_too_far_away_are_not_timed():
    gpt = sampling_ways.make_model("ci")
    ways = sampling_ways.step_ways(gpt, 2, 30, sampling_ways.engines_of(gpt, 2))
    with torch.no_grad():
        found = sampling_ways.check(ways)
        assert set(found) == {"published", "plain", *sampling_ways.ENGINES}
        assert 0 < found["fp16"]["relative_error"] < found["int8"]["relative_error"]
        with pytest.raises(ValueError, match="fp32: logits differ"):
            sampling_ways.check(ways | {"fp32": ways["int8"]})


def test_engines_share_one_past_and_agree_at_every_size():
    config = sampling.Config(size="ci", rounds=1, no_compile=True)
    with torch.no_grad():
        found = list(sampling.steps("ci", (1, 2), config, LIMITS))
    assert [row["batch"] for row in found] == [1, 1, 1, 2, 2, 2]
    assert all(set(row["errors"]) == {"published", "plain", *sampling_ways.ENGINES} for row in found)


def test_the_step_for_torch_compile_is_the_step_of_the_model(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **settings: step)
    gpt = sampling_ways.make_model("ci")
    with torch.no_grad():
        ways = sampling_ways.step_ways(gpt, 2, 5, {}, sampling_ways.compiled_step(gpt))
        assert sampling_ways.check(ways)["compiled"]["relative_error"] < 1e-5


def test_the_floor_is_memory_for_one_video_and_arithmetic_for_many():
    gpt = sampling_ways.make_model("ci")  # 2 layers, 128 wide, 512 codes
    weights = 2 * (12 * 128 * 128 + 13 * 128) + 512 * 128
    assert weights_of(gpt) == weights
    assert must_read(gpt, 3, 9, "int8") == weights + 2 * 4 * 2 * 128 * 3 * 10
    assert must_read(gpt, 3, 9, "bf16", cache_bytes=2) == 2 * weights + 2 * 2 * 2 * 128 * 3 * 10
    assert must_compute(gpt, 3, 9) == 2 * 3 * (weights + 2 * 2 * 128 * 10)
    slow_memory = Limits(1.0, LIMITS.matrix)
    assert floor(slow_memory, gpt, 1, 0, "fp32") == (must_read(gpt, 1, 0, "fp32"), "memory")
    assert floor(LIMITS, gpt, 16, 0, "fp16") == (must_compute(gpt, 16, 0) / 100, "arithmetic")  # computed in float32
    assert floor(LIMITS, gpt, 16, 0, "bf16") == (must_compute(gpt, 16, 0) / 200, "arithmetic")


def test_shares_of_an_arithmetic_floor_are_marked():
    times = {"median": 0.002, "times_faster": 2.0, "share_of_floor": 0.5, "floor_by": "arithmetic", "floor": 0.001}
    seconds = {"published": {"median": 0.004}, "fp32": times, "int8": {**times, "floor_by": "memory"}}
    columns, rows = sampling.steps_table([{"model": "demo", "batch": 1, "position": 5, "seconds": seconds}])
    assert dict(zip(columns, rows[0])) == {
        "model": "demo",
        "videos": 1,
        "position": 5,
        "published, ms": 4.0,
        "fp32, times faster": 2.0,
        "int8, times faster": 2.0,
        "fp32, share of floor": "50%*",
        "int8, share of floor": "50%",
    }


def test_every_way_of_the_vqgan_is_measured_and_agrees():
    config = vqgan.Config(size="ci", sides=(16,), rounds=1)
    found = {(row["what"], row["way"]): row for row in vqgan.measure(config, LIMITS)}
    assert set(found) == {(what, way) for what in ("encode", "decode") for way in vqgan.ALLOWED}
    assert found["decode", "fp32"]["far"] < 1e-5 < found["decode", "bf16"]["far"]
    assert found["encode", "fp32"]["far"] == 0
    model = vqgan.make("ci", 16)
    codes = torch.randint(model.n_codes, (1, 4, 4, 4))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        published_vqgan.decode(model, codes)
    assert found["decode", "fp32"]["operations"] == counted.get_total_flops()


def test_pictures_that_differ_are_not_timed():
    model = vqgan.make("ci", 16)
    made = vqgan.ways(model, 16)["decode"]
    with torch.no_grad(), pytest.raises(ValueError, match="decode, fp32"):
        vqgan.check("decode", made | {"fp32": lambda: made["fp32"]() + 0.01})
