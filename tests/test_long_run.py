"""Long videos from command to file: constant memory, on after a kill, lengths in frames."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.endless import flags_of, measure, save_models
from tats import checkpoint
from tats.flags import UserError
from tats.long_run import latent_length
from tats.media import read_frames
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


def run(script, flags, code=0):
    """Run a script; what it says on standard error."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("script", ["sample_long.py", "sample_hierarchical.py"])
def test_eight_times_the_frames_take_the_memory_of_the_short_video(models, script):
    short, long = (measure(script, models, frames)["mib"] for frames in (512, 4096))
    assert long <= 1.1 * short


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="forks processes")
def test_runs_that_are_killed_end_with_the_same_codes_and_files():
    command = [sys.executable, str(ROOT / "tests/reliability/killed_samplers.py"), "--kills", "3", "--staged"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": killed with") == 6
    assert done.stdout.count("files equal") >= 2  # one more for each run that was faster than its killer


def test_every_output_shows_the_codes_and_a_second_call_makes_only_what_is_missing(models, tmp_path):
    flags = [*flags_of("sample_long.py", models, tmp_path / "out", 96), "--n_sample", 2, "--batch_size", 2]
    run("sample_long.py", [*flags, "--save_as", "frames", "gif", "--save_arrays"])
    codes = np.load(tmp_path / "out" / "codes.npz")["codes"]
    assert codes.shape == (2, 12, 2, 2)
    vqgan = checkpoint.load_vqgan(models / "vqgan")
    with torch.inference_mode():
        whole = vqgan.decode(torch.from_numpy(codes).long()).clamp(-0.5, 0.5) + 0.5  # [2, 3, 96, 16, 16]
    expected = (whole * 255).movedim(1, -1).numpy()
    (array,) = (tmp_path / "out").rglob("*_eval.npy")
    assert np.abs(np.load(array) - expected).max() <= 1.01  # levels are truncated
    films = array.parent.parent.parent / "videos" / "ucf101" / array.name.removesuffix("_eval.npy")
    assert np.array_equal(read_frames(films / "generation_1"), np.load(array)[1])
    stamp = (films / "generation_0.gif").stat().st_mtime_ns
    (films / "generation_1.gif").unlink()
    said = run("sample_long.py", [*flags, "--save_as", "frames", "gif", "--save_arrays"])
    assert "2 of 2 videos are there already" in said
    assert (films / "generation_1.gif").exists() and (films / "generation_0.gif").stat().st_mtime_ns == stamp
    said = run("sample_long.py", [*flags, "--temporal_sample_pos", 3], code=2)
    assert "context 2 then, 3 now" in said


@pytest.mark.parametrize(
    "frames, sample_length, step, expected",
    [
        (None, 7, None, 7),
        (None, 8, 4, 9),
        (96, 1, None, 12),
        (8 * 9, 1, 4, 9),
        (8 * 5, 1, 4, 5),
        (100, 1, None, "Nearest: 96 or 104"),
        (3, 1, None, "Nearest: 8"),
        (80, 1, 4, "Nearest: 72 or 104"),
        (8, 1, 4, "Nearest: 40"),
        (1, 1, 4, "Nearest: 40"),
        (0, 1, None, "counts frames"),
        (None, 0, None, "counts latent frames"),
        (None, 6, 4, "Nearest: 4 or 8"),
        (None, 3, 4, "Nearest: 4"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_with_the_nearest(frames, sample_length, step, expected):
    with torch.device("meta"):
        vqgan = VQGAN(VQGANConfig(n_hiddens=16, downsample=(8, 8, 8)))
    if isinstance(expected, int):
        assert latent_length(frames, sample_length, vqgan, step) == expected
    else:
        with pytest.raises(UserError, match=expected):
            latent_length(frames, sample_length, vqgan, step)


def test_group_normalisation_says_so_before_anything_is_sampled(models, tmp_path):
    config = VQGANConfig(n_codes=64, embedding_dim=4, n_hiddens=16, downsample=(8, 8, 8), norm_type="group",
                         resolution=16, sequence_length=32)  # fmt: skip
    checkpoint.save(VQGAN(config).eval(), tmp_path / "group")
    flags = [str(flag) for flag in flags_of("sample_long.py", models, tmp_path / "out", 96)]
    flags[flags.index("--vqgan_ckpt") + 1] = str(tmp_path / "group")
    assert "--decode_group_norm_in_pieces" in run("sample_long.py", flags, code=2)
    assert not list((tmp_path / "out").glob("codes*"))
    run("sample_long.py", [*flags, "--decode_group_norm_in_pieces"])
    (film,) = (tmp_path / "out").rglob("*.mp4")
    assert len(read_frames(film)) == 96
