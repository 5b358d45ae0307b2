"""Several processes make the videos of one run, and one that dies takes no other's with it."""

import json
import os
import signal
import time

import numpy as np
import process_parts
import pytest
import torch
from films import film_folders
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.data.code_index import read_index
from tats.data.code_writer import described
from tats.launched import Launched, launched
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

pytestmark = pytest.mark.timeout(4000)  # several processes on a machine that may be busy


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The flags that name a tiny VQGAN and a transformer by class over its codes."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = VQGANConfig(n_codes=37, embedding_dim=4, n_hiddens=2, downsample=(2, 4, 4), norm_type="batch",
                         resolution=8, sequence_length=10)  # fmt: skip
    checkpoint.save(VQGAN(config).eval(), folder / "vqgan")
    checkpoint.save(tiny_gpt().float(), folder / "gpt")
    return ["--gpt_ckpt", folder / "gpt", "--vqgan_ckpt", folder / "vqgan", "--device", "cpu"]


def arrays(folder):
    return {name: np.load(folder / "codes.npz")[name] for name in ("codes", "seeds", "labels", "index")}


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_three_processes_make_what_one_makes(models, tmp_path):
    flags = [*models, "--n_sample", 5, "--batch_size", 2, "--top_k", 9, "--save_videos", "--save_arrays"]
    for size in (1, 3):
        folder = tmp_path / str(size)
        process_parts.run(size, process_parts.script, "sample_short.py", *flags, "--save", folder, folder=folder)
    assert equal(arrays(tmp_path / "1"), arrays(tmp_path / "3"))
    films = [sorted(path.name for path in (tmp_path / size).rglob("generation*.mp4")) for size in ("1", "3")]
    assert films[0] == films[1] and len(films[0]) == 5
    left = [np.load(next((tmp_path / size).rglob("*_eval.npy"))) for size in ("1", "3")]
    np.testing.assert_allclose(*(each.astype(int) for each in left), atol=1)
    manifest = json.loads((tmp_path / "3" / "manifest.json").read_text())
    assert [video["seed"] for video in manifest["videos"]] == [0, 1, 2, 3, 4]
    assert not [path.name for path in (tmp_path / "3").iterdir() if path.suffix in (".lock", ".journal", ".part")]


def test_a_process_that_dies_loses_no_video_of_the_others_and_any_number_makes_the_rest(models, tmp_path):
    def long(size, folder, frames=40):
        flags = [*models, "--n_sample", 4, "--batch_size", 1, "--temporal_sample_pos", 2, "--sample_length", frames]
        return size, process_parts.script, "sample_long.py", *flags, "--save", folder

    folder = tmp_path / "killed"
    folder.mkdir()
    started = process_parts.start(*long(2, folder), folder=folder)
    journal = folder / "codes_00001.journal"  # the second process's first video
    end = time.monotonic() + process_parts.LIMIT
    while not journal.exists() and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(started[1].pid, signal.SIGKILL)
    codes = process_parts.finish(started)
    assert codes == [0, -signal.SIGKILL], codes
    assert {path.name for path in folder.glob("codes_*.npz")} >= {"codes_00000.npz", "codes_00002.npz"}
    process_parts.run(*long(3, folder), folder=folder)
    process_parts.run(*long(1, tmp_path / "alone"), folder=tmp_path / "alone")
    assert equal(arrays(folder), arrays(tmp_path / "alone"))
    films = [sorted(path.name for path in each.rglob("generation*.mp4")) for each in (folder, tmp_path / "alone")]
    assert films[0] == films[1] and len(films[0]) == 4


@pytest.mark.parametrize("whole", [[], ["--whole"]])
def test_codes_of_a_data_set_are_made_in_parts_that_any_number_of_processes_finishes(models, tmp_path, whole):
    film_folders(tmp_path / "films", {"ape": 5, "bee": 4}, 14, codec="mpeg4")
    cut = whole or ["--sequence_length", 10, "--window_stride", 2]
    flags = ["--vqgan_ckpt", models[3], "--data_path", tmp_path / "films", "--device", "cpu", "--num_workers", 0, *cut]
    for size in (1, 3):
        folder = tmp_path / str(size)
        process_parts.run(size, process_parts.tokens, *flags, "--out", folder / "codes", folder=folder)
    index, joined = (read_index(tmp_path / size / "codes" / "train") for size in ("1", "3"))
    assert described(index) == described(joined) and len(joined.shards) > 1
    for rows in ("video", "start", "label", "lengths"):
        assert getattr(index, rows) == getattr(joined, rows)
    data = [(tmp_path / size / "codes" / "train") for size in ("1", "3")]
    bytes_of = [b"".join(path.read_bytes() for path in sorted(folder.glob("codes_*.bin"))) for folder in data]
    assert bytes_of[0] == bytes_of[1]
    assert sorted(path.name for path in data[1].iterdir() if path.suffix != ".bin") == ["index.json"]

    again = tmp_path / "3" / "codes" / "train"  # as if the third process had died before its second part was done
    part = again / "parts" / "00000"
    part.mkdir(parents=True)
    (again / "index.json").unlink()
    process_parts.run(2, process_parts.tokens, *flags, "--out", tmp_path / "3" / "codes", folder=tmp_path / "3")
    assert described(read_index(again)) == described(index) and not (again / "parts").exists()


def test_judges_say_that_one_of_them_has_ended(tmp_path):
    codes = process_parts.finish(process_parts.start(2, process_parts.leave_early, str(tmp_path), folder=tmp_path))
    assert codes == [0, 3], (tmp_path / "error_0.txt").read_text()
    assert "one of the 2 processes has ended" in (tmp_path / "said.txt").read_text()


def test_what_launchers_say():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert launched(torchrun) == Launched(5, 8, 1, 4, "torchrun") and launched(torchrun).machines == 2
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NNODES": "2"}
    assert launched(slurm) == Launched(3, 4, 1, 2, "SLURM")
    assert launched({**slurm, "SLURM_JOB_NAME": "bash"}) == launched({}) == Launched()
