"""The measurement that decides which kernels run: its checks, its result, and what is made of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.kernels import dispatch
from tats.kernels.bench import INTERPRETER, Clock, Deadline, goals_of, measure, table_row
from tats.kernels.bench_cases import Case, within

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.timeout(1800)
def test_all_of_it_runs_in_the_interpreter_and_its_result_is_read(tmp_path):
    pytest.importorskip("triton")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "kernels" / "bench.py"), "--ci", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = tmp_path.glob("gpu_*.json")
    stored = json.loads(path.read_text())
    assert stored["details"]["gpu"] == INTERPRETER and set(stored["details"]["limits"]) == {"copied", "bf16", "fp32"}
    goals = {row["goal"]: row["value"] for row in stored["details"]["goals"]}
    wanted = {"decode, bf16, 1", "decode, int8, 2", "prefill", "16 frames", "1024 frames", "training"}
    assert wanted <= set(goals) and all(goals[name] > 0 for name in wanted)
    assert dispatch.untried(tmp_path) == ()
    assert dispatch.verdict("captured_step", INTERPRETER, 128, results=tmp_path).why.startswith(
        "the kernel of captured"
    )
    for op, width in (("attention", 32), ("decode_attention", 32), ("nearest_code", 8), ("draw_code", 0)):
        choice = dispatch.verdict(op, INTERPRETER, width, results=tmp_path)
        assert choice.name == "torch" and "is not the fastest" in choice.why  # it passed, and the interpreter is slow


def row_of(share, **ways):
    made = (share, {name: (lambda: None) for name in ways or ("reference", "torch", "fused")})
    return measure(Case("attention", 64, "a size", lambda device: made), Clock("cpu"), Deadline(60), 2)


def test_what_fails_its_check_is_not_timed():
    assert row_of(0.9)["passed"] and set(row_of(0.9)["ms"]) == {"reference", "torch", "fused"}
    failed = row_of(1.1)
    assert not failed["passed"] and not failed["won"] and failed["ms"] == {}
    assert "1.1 times as far from the exact result as is allowed" in failed["why"]
    assert table_row(failed)[2:] == ["not passed", None, None, None, None, None]


def test_an_error_of_a_kernel_is_told_and_ends_nothing():
    def broken(device):
        raise RuntimeError("no such instruction")

    row = measure(Case("draw_code", 0, "a size", broken), Clock("cpu"), Deadline(60))
    assert not row["passed"] and row["why"] == "RuntimeError: no such instruction"


def test_after_the_deadline_nothing_has_passed():
    row = measure(Case("draw_code", 0, "a size", lambda device: (0.0, {})), Clock("cpu"), Deadline(0))
    assert (row["passed"], row["why"]) == (False, "no time was left")


def test_a_result_that_is_not_a_number_fails():
    exact = torch.ones(3)
    assert within(exact, exact, exact) == 0
    assert within(exact, exact, exact + 1e-3) > 1
    assert within(exact, exact, torch.tensor([1.0, float("nan"), 1.0])) == float("inf")


def test_rows_of_kernels_speak_of_goals():
    ms = {"fused": 2.0, "torch": 5.0, "SDPA, dense mask": 4.0}
    rows = [
        {"op": "attention", "size": "8x16x1280x64, anchors 257 and 255", "ms": ms},
        {"op": "nearest_code", "size": "65536 vectors", "ms": {"fused": 3.0}, "mib": 100.0},
        {"op": "nearest_code", "size": "1024 vectors", "ms": {"fused": 1.0}, "mib": 1.0},
    ]
    assert goals_of(rows) == [
        {"goal": "attention over SDPA", "value": 2.0},
        {"goal": "attention over FlexAttention", "value": None},
        {"goal": "nearest code", "value": 3.0},
        {"goal": "nearest code, memory", "value": 100.0},
    ]
