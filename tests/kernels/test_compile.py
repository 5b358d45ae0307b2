"""The Triton kernels compile to PTX for sm_80 and sm_90, with or without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.mark.timeout(1800)
def test_every_kernel_compiles_for_two_generations_of_gpus(tmp_path):
    triton = pytest.importorskip("triton")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this build of Triton has no part for NVIDIA's GPUs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(HERE / "compile_kernels.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    kernels = {line.split()[0] for line in done.stdout.splitlines()}
    wanted = {"_forward", "_delta", "_key_gradient", "_query_gradient", "_part", "_join", "_nearest", "_draw"}
    assert kernels == wanted
