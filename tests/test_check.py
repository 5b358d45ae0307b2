"""The check for regressions finds a ratio that fell, and lets noise pass."""

import json
from pathlib import Path

import pytest

from benchmarks import check
from benchmarks.check import AREAS, Area, Compared, compare_area
from benchmarks.measured import Stored

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def put(folder, name, processor="A processor", **details):
    (folder / f"{name}.json").write_text(json.dumps({"machine": {"processor": processor}, "details": details}))


def area(*answers, margin=0.2):
    """An area that was stored as four and three times faster, and what measuring it gives, time after time."""
    left, asked = list(answers), []

    def measure(rounds):
        asked.append(rounds)
        return left.pop(0)

    return Area(margin, lambda stored: {"a": 4.0, "b": 3.0}, measure), asked


def test_noise_passes_and_is_measured_once(tmp_path):
    noisy, asked = area({"a": 3.3, "b": 3.4})
    found = compare_area(noisy, Stored(tmp_path), 3)
    assert [each.fell for each in found] == [False, False] and asked == [3]


def test_a_ratio_that_fell_twice_is_a_regression(tmp_path):
    slower, asked = area({"a": 2.0, "b": 3.0}, {"a": 2.2, "b": 2.9})
    found = compare_area(slower, Stored(tmp_path), 3)
    assert found == [Compared("a", 4.0, 2.2, 0.2), Compared("b", 3.0, 3.0, 0.2)]
    assert [each.fell for each in found] == [True, False] and asked == [3, 6]


def test_one_bad_moment_is_measured_again(tmp_path):
    once, _ = area({"a": 1.0, "b": 3.0}, {"a": 3.9, "b": 1.0})
    assert not any(each.fell for each in compare_area(once, Stored(tmp_path), 3))


def test_a_way_that_is_gone_has_fallen(tmp_path):
    gone, _ = area({"a": 4.0}, {"a": 4.0})
    assert [each.fell for each in compare_area(gone, Stored(tmp_path), 1)] == [False, True]


@pytest.mark.parametrize("ratio, code", [(3.9, 0), (1.5, 1)])
def test_the_command_prints_a_table_and_ends_with_its_code(ratio, code, tmp_path, monkeypatch, capsys):
    put(tmp_path, "codebook", results=[{"vectors": check.VECTORS, "ratio_of_minima": 4.0}])
    now = {f"codebook, {check.VECTORS} vectors": ratio}
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setitem(AREAS, "codebook", Area(0.15, AREAS["codebook"].stored, lambda rounds: now))
    assert check.main(["--only", "codebook", "vqgan", "--results", str(tmp_path)]) == code
    said = capsys.readouterr().out
    assert "vqgan: nothing is stored to compare with; run: python benchmarks/vqgan.py" in said
    assert "note: codebook was stored on A processor" in said
    assert f"| 4.00x | {ratio:.2f}x | {ratio / 4 - 1:+.0%} | -15% | {'FELL' if code else 'good'} |" in said
    assert f"{code} of 1 ratios fell" in said


def test_what_is_stored_is_read_as_what_is_measured(tmp_path):
    times = {"times_faster_by_least": 2.5}
    row = {
        "model": "default",
        "batch": 4,
        "position": 960,
        "seconds": {"published": times, "plain": times, "fp16": times},
    }
    put(tmp_path, "sampling", steps=[row, {**row, "position": 1}])
    steps = [{"size": size, "way": "fp32", **times} for size in ("demo", check.TRAINED)]
    put(tmp_path, "training", transformer=steps, vqgan=[])
    put(tmp_path, "vqgan", ways=[{"what": "decode", "side": side, "way": "bf16", **times} for side in (64, 128)])
    rates = {"mpeg4: published": [10.0, 20.0], "mpeg4: ours": [50.0, 30.0], "codes: shards": [9.0]}
    put(tmp_path, "loader", rates=rates)
    found = {name: each.stored(Stored(tmp_path)) for name, each in AREAS.items()}
    assert found["sampling"] == {"a code, default model, 4 videos, fp16": 2.5}
    assert found["training"] == {"training step, 4 layers, fp32": 2.5}
    assert found["vqgan"] == {"VQGAN, decode, bf16": 2.5}
    assert found["loader"] == {"clips, mpeg4: ours": 2.5}


def test_the_stored_results_hold_what_is_compared():
    stored = Stored(RESULTS)
    known = [name for name in AREAS if stored.result(name)]
    assert {"sampling", "codebook", "loader"} <= set(known)
    assert [name for name in known if not AREAS[name].stored(stored)] == []
