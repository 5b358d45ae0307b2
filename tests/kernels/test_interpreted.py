"""The Triton kernels against their definitions, in Triton's interpreter, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tats import kernels

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", ["attention", "nearest_code", "draw_code"])
def test_kernels_in_the_interpreter(part):
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "interpreted" / f"{part}.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter is on")
def test_a_kernel_on_a_cpu_needs_the_interpreter():
    q = torch.randn(1, 1, 4, 16)
    with kernels.implementation("fused"), pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        kernels.attention(q, q, q)
