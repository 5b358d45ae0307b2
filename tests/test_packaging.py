"""The wheel, the console script, the make targets and what continuous integration calls."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of what it is made from, built without looking at any index."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("tats", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    out = tmp_path_factory.mktemp("wheel")
    argv = ["wheel", ".", "--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", str(out)]
    done = subprocess.run([sys.executable, "-m", "pip", *argv], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_every_module_and_the_kernels(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    expected = {str(path.relative_to(ROOT)) for path in ROOT.glob("tats/**/*.py")}
    expected |= {f"tats/{path.relative_to(ROOT)}" for path in ROOT.glob("kernels/**/*.py")}
    assert expected <= inside, sorted(expected - inside)
    assert not [name for name in inside if name.startswith("kernels/")]


def test_the_kernels_of_the_wheel_are_found_below_tats(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "import tats.kernels, tats.kernels.attention; print(tats.kernels.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "tats" / "kernels" / "__init__.py"


def test_the_wheel_brings_the_command_tats(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "tats = tats.__main__:main" in archive.read(name).decode()


def test_constraints_are_exact_and_cover_the_requirements():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    metadata = (ROOT / "pyproject.toml").read_text()
    block = ast.literal_eval(re.search(r"^dependencies = (\[.*?^\])", metadata, re.S | re.M)[1])
    required = {re.split(r"[<>=;! ]", each)[0].lower() for each in block}
    assert required - pinned <= {"triton"}  # CUDA builds of torch pin their own


def make(*argv, **environment):
    return subprocess.run(
        ["make", *argv], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_make_alone_lists_the_targets():
    done = make()
    assert done.returncode == 0
    for target in ("setup", "demo", "test", "lint", "bench", "parity", "docs", "clean"):
        assert f"make {target} " in done.stdout


def test_an_old_python_is_refused_before_anything_is_made(tmp_path):
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.8.10";; *) exit 1;; esac\n')
    old.chmod(0o755)
    done = make("setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert "is Python 3.8.10, but 3.10 or newer is needed" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_continuous_integration_calls_lint_then_tests_then_the_small_demo():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    calls = [line for line in script.read_text().splitlines() if line.startswith("make")]
    assert calls == ["make lint", "make test", "make demo SIZE=tiny"]


@pytest.mark.parametrize("failing", ["lint", "test", "demo"])
def test_continuous_integration_fails_when_one_of_them_fails(tmp_path, failing):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(
        "".join(f"{target}:\n\t@{'exit 3' if target == failing else 'true'}\n" for target in ("lint", "test", "demo"))
    )
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (tmp_path / "Makefile").write_text("lint test demo:\n\t@true\n")
    assert subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, check=False).returncode == 0
