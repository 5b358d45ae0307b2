"""Stored results of GPUs decide which kernels run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.kernels import dispatch

from tats import kernels

ROOT = Path(__file__).resolve().parent.parent.parent


def stored(folder, *rows, gpu="A GPU"):
    kept = [dict(zip(("op", "width", "passed", "won"), row)) for row in rows]
    (folder / "gpu_a.json").write_text(json.dumps({"details": {"gpu": gpu, "kernels": kept}}))


def test_a_kernel_runs_where_it_passed_and_won_at_every_size_of_its_width(tmp_path):
    stored(
        tmp_path,
        ("attention", 64, True, True),
        ("attention", 64, True, True),
        ("attention", 32, True, True),
        ("attention", 32, True, False),
        ("nearest_code", 256, False, True),
    )

    def verdict(*asked):
        return dispatch.verdict(*asked, results=tmp_path)

    assert verdict("attention", "A GPU", 64).name == "fused"
    assert verdict("attention", "A GPU", 32) == (
        "torch",
        "the kernel of attention at width 32 is not the fastest on A GPU",
    )
    assert verdict("attention", "A GPU").name == "torch"
    assert "did not pass" in verdict("nearest_code", "A GPU", 256).why
    assert "untried on Another" in verdict("attention", "Another", 64).why
    assert "untried" in verdict("attention", "A GPU", 128).why
    assert dispatch.untried(tmp_path) == ("decode_attention", "draw_code")


def test_cpu_tensors_take_torch_and_wrong_names_are_refused():
    assert [kernels.which(op).name for op in dispatch.OPS] == ["torch"] * len(dispatch.OPS)
    with pytest.raises(ValueError, match="decode_attention"):
        kernels.which("attend")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_measurement_says_so_and_writes_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "kernels" / "bench.py"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no CUDA device" in done.stdout and not (tmp_path / "out").exists()
