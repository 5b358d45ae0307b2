"""Long videos of several lengths from one command: codes, films, and on after a stop."""

import json
import sys

import numpy as np
import pytest
import torch

import sample_long
from benchmarks.endless import save_models
from tats import checkpoint
from tats.codes_file import Journal, Video, read_codes
from tats.flags import UserError
from tats.gpt.api import sample_long_codes
from tats.long_videos import long_videos
from tats.media import read_frames


def run(monkeypatch, capsys, flags):
    """Run sample_long.py in this process; what it says on standard error."""
    monkeypatch.setattr(sys, "argv", ["sample_long.py", *map(str, flags)])
    sample_long.main()
    return capsys.readouterr().err


def test_videos_of_several_lengths_in_one_run_and_on_after_a_stop(tmp_path, monkeypatch, capsys):
    save_models(tmp_path)
    gpt, vqgan = checkpoint.load_pair(tmp_path / "gpt", tmp_path / "vqgan")
    factor, lengths = vqgan.config.downsample[0], [2, 5]
    flags = ["--gpt_ckpt", tmp_path / "gpt", "--vqgan_ckpt", tmp_path / "vqgan", "--save", tmp_path / "out"]
    flags += ["--frames", *(n * factor for n in lengths), "--temporal_sample_pos", 2, "--batch_size", 2, "--top_k", 1]
    flags += ["--device", "cpu", "--decode", "jacobi", "--jacobi_block", 3]
    said = run(monkeypatch, capsys, [*flags, "--n_sample", 3])
    assert "codes of a video per step" in said
    expected = [next(iter(torch.stack(list(sample_long_codes(gpt, lengths[n % 2], 2, seeds=[n], top_k=1)), 1)))
                for n in range(4)]  # fmt: skip
    journal = Journal.create(tmp_path / "out" / "codes_00003.journal", [Video(3, 3)], tuple(expected[3].shape[1:]))
    with journal:  # what a run that was killed has left of the next video
        for frame in expected[3][:3]:
            journal.append(frame[None].numpy())
    said = run(monkeypatch, capsys, [*flags, "--n_sample", 4])
    assert "3 of 4 videos are there already" in said
    assert sorted(path.name for path in (tmp_path / "out").glob("codes*")) == ["codes_00000.npz", "codes_00001.npz"]
    rows = {index: row for path in (tmp_path / "out").glob("codes*") for index, (_, row) in read_codes(path).items()}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["length"] == lengths and manifest["decoding"]["way"] == "jacobi"
    for number, codes in enumerate(expected):
        assert np.array_equal(rows[number].read(), codes.numpy())
        film = tmp_path / "out" / manifest["videos"][number]["file"]
        assert len(read_frames(film)) == lengths[number % 2] * factor
    assert len(long_videos(tmp_path / "out", vqgan)) == 4
    with pytest.raises(UserError, match="--frames of several values does not go with --save_arrays"):
        run(monkeypatch, capsys, [*flags, "--n_sample", 4, "--save_arrays"])
