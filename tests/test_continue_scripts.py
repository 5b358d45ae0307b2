"""The sampling scripts with --continue_from: what is given stands in front, the rest does not know what came after."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.codes_file import Journal
from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.media import read_frames, write_video
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent
SIDE = 16  # of a picture


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny VQGAN, whose codes see every change of a frame, and of transformers over its codes."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"n_codes": 37, "embedding_dim": 4, "n_hiddens": 4, "resolution": SIDE, "sequence_length": 10}
    vqgan = VQGAN(VQGANConfig(downsample=(2, 8, 8), norm_type="batch", **sizes)).eval()
    with torch.no_grad():
        z = vqgan.features(torch.rand(8, 3, 10, SIDE, SIDE) - 0.5).movedim(1, -1).flatten(0, -2)
        vqgan.codebook.embeddings.copy_(z[:37])
    checkpoint.save(vqgan, folder / "vqgan")
    checkpoint.save(tiny_gpt(code_offset=12).float(), folder / "gpt")
    checkpoint.save(tiny_gpt((3, 2, 2), code_offset=12, stride=4).float(), folder / "coarse")
    checkpoint.save(tiny_gpt(n_unmasked=4, code_offset=12).float(), folder / "between")
    return folder


@pytest.fixture
def films(tmp_path):
    """Two videos of the embedded world, and the same two with other frames from the fifth one on."""
    for name in ("seen", "other"):
        for index in range(2):
            frames = render(draw_truth(0, index, frames=12), SIDE)
            if name == "other":
                frames[4:] = 255 - frames[4:]
            path = tmp_path / name / CLASSES[index] / f"{index}.mkv"
            path.parent.mkdir(parents=True)
            write_video(path, frames, 16, pix_fmt="yuv444p", crf=0, options={"g": "1"})
    return tmp_path


def flags_of(script, models):
    if script == "sample_hierarchical":
        given = ["--ckpt1", models / "coarse", "--ckpt2", models / "between", "--vqgan", models / "vqgan"]
        return [*given, "--sample_length", 8]
    given = ["--gpt_ckpt", models / "gpt", "--vqgan_ckpt", models / "vqgan"]
    if script == "sample_long":
        return [*given, "--sample_length", 9, "--temporal_sample_pos", 3]
    return given


def run(script, models, monkeypatch, *flags, labels=("0",)):
    """Run a script in this process; `labels` stand in for the names of classes that tiny checkpoints do not store."""
    more = ["--label", *labels] if labels else []
    argv = [script, *map(str, [*flags_of(script, models), *flags, *more])]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(ROOT / f"{script}.py"))["main"]()


SCRIPTS = ["sample_short", "sample_long", "sample_hierarchical"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_frames_behind_the_given_ones_change_nothing(script, models, films, monkeypatch, capsys):
    made, said = {}, {}
    for name in ("seen", "other"):
        given = ["--continue_from", films / name, "--observed_frames", 4, "--observed_start", 0]
        run(script, models, monkeypatch, *given, "--save", films / "out" / name, "--save_arrays", "--save_videos")
        made[name] = np.load(films / "out" / name / "codes.npz")["codes"]
        said[name] = capsys.readouterr()
    assert np.array_equal(made["seen"], made["other"]) and made["seen"].shape[0] == 2
    assert not np.array_equal(made["seen"][0], made["seen"][1])
    assert "going on from 2 videos, of each 4 frames (2 latent, frames 0 to 3)" in said["seen"].err
    vqgan = checkpoint.load_vqgan(models / "vqgan")
    stored = torch.from_numpy(read_frames(films / "seen" / CLASSES[1] / "1.mkv")[:4])
    with torch.inference_mode():
        own = vqgan.encode(stored.movedim(-1, 0)[None].float() / 255 - 0.5)
    assert np.array_equal(made["seen"][1, :2], own[0].numpy())
    manifest = json.loads((films / "out" / "seen" / "manifest.json").read_text())
    assert manifest["videos"][1]["given"] == {"name": f"{CLASSES[1]}/1.mkv", "first": 0, "last": 3, "unit": "frame"}
    joint = manifest["scores"]["joint"]
    assert joint["n_videos"] == 2 and joint["joint"]["jump"]["total"] == 2 and joint["given"]["jump"]["total"] == 2
    assert joint["new"]["any"]["total"] == 2 * (made["seen"].shape[1] - 3)
    assert "errors of the law at the joint of 2 videos" in said["seen"].out
    check_marks(films / "out" / "seen", manifest)


def check_marks(out, manifest):
    """Given frames carry a border in the films, none in the array."""
    (array,) = (np.load(path) for path in out.glob("numpy_files/*/*.npy"))
    film = read_frames(out / manifest["videos"][0]["file"])
    assert len(film) == array.shape[1] > 4
    assert orange(film) == [True] * 4 + [False] * (len(film) - 4)
    assert orange(array[0]) == [False] * len(film)


def orange(frames):
    """Which frames have much more red than blue in their first row, as the border has after compression too."""
    row = frames[:, 0].astype(int).mean(1)  # [T, 3]
    return (row[:, 0] - row[:, 2] > 80).tolist()


def test_a_stopped_run_goes_on_and_another_video_is_refused(models, films, monkeypatch):
    given = ["--continue_from", films / "seen", "--observed_frames", 4, "--save_arrays"]
    run("sample_long", models, monkeypatch, *given, "--save", films / "whole")
    append, count = Journal.append, []

    def stop(self, codes):
        if len(count) == 5:
            raise KeyboardInterrupt
        count.append(append(self, codes))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "append", stop)
        run("sample_long", models, monkeypatch, *given, "--save", films / "stopped")
    given[1] = films / "other"
    with pytest.raises(UserError, match=r"continue_from .* then, .* now"):
        run("sample_long", models, monkeypatch, *given, "--save", films / "stopped")
    given[1] = films / "seen"
    run("sample_long", models, monkeypatch, *given, "--save", films / "stopped")
    codes = [np.load(films / name / "codes.npz")["codes"] for name in ("whole", "stopped")]
    assert np.array_equal(*codes)
    scores = [json.loads((films / name / "manifest.json").read_text())["scores"] for name in ("whole", "stopped")]
    assert scores[0] == scores[1]


def test_more_continuations_of_one_video_differ_and_scores_are_of_the_embedded_world_alone(
    models, films, monkeypatch, capsys
):
    path = films / "mine" / "x.mkv"
    path.parent.mkdir()
    (films / "seen" / CLASSES[0] / "0.mkv").rename(path)
    given = ["--continue_from", path, "--observed_frames", 6, "--continuations", 3, "--n_sample", 20]
    with pytest.raises(UserError, match=r"x\.mkv lies in a folder 'mine'.*--label"):
        run("sample_short", models, monkeypatch, *given, "--save", films / "out", labels=())
    run("sample_short", models, monkeypatch, *given, "--save", films / "out", "--fps", 8)
    said = capsys.readouterr()
    assert "play 0.5 times as fast" in said.err and "errors of the law" not in said.out
    codes = np.load(films / "out" / "codes.npz")
    assert codes["seeds"].tolist() == [0, 1, 2] and codes["labels"].tolist() == [0, 0, 0]
    assert (codes["codes"][:, :3] == codes["codes"][0, :3]).all() and len(np.unique(codes["codes"], axis=0)) == 3
    with pytest.raises(UserError, match="at most 8 frames"):
        run("sample_short", models, monkeypatch, *given[:2], "--observed_frames", 10, "--save", films / "none")
