"""--schedule: a long video changes its condition on the way, from a file; what does not go is said before sampling."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt

import tats
from tats import checkpoint
from tats.changes import read_schedule
from tats.flags import UserError
from tats.gpt.course import Change
from tats.gpt.sample_config import LongConfig, LongOutputConfig
from tats.output import Store
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent
LABELS = [("label", 1, 3)]


def tiny_vqgan():
    torch.manual_seed(0)
    sizes = {"n_codes": 37, "embedding_dim": 4, "n_hiddens": 2, "downsample": (2, 4, 4), "resolution": 8}
    return VQGAN(VQGANConfig(**sizes, norm_type="batch", sequence_length=10)).eval()


def written(folder, text):
    path = folder / "schedule.yaml"
    path.write_text(text)
    return str(path)


def changes_of(folder, text, gpt=None, total=12):
    """The changes that a file makes of videos of `total` latent frames, two frames each."""
    config = (gpt or tiny_gpt(conditions=LABELS, empty=True)).config
    config = replace(config, label_names=["red", "green", "blue"])
    return read_schedule(written(folder, text)).changes(config, LongOutputConfig(), tiny_vqgan(), total)


def test_entries_become_changes_by_latent_frame(tmp_path):
    text = (
        "- {from_frame: 0, label: green}\n- {from_frame: 8, label: 2, cfg_scale: 3}\n- {from_frame: 22, cfg_scale: 0}\n"
    )
    wanted = [Change(0, label=1), Change(4, label=2, cfg_scale=3.0), Change(11, cfg_scale=0.0)]
    assert changes_of(tmp_path, text) == wanted
    assert read_schedule(None).entries == [] and read_schedule(None).settings == {}


def test_what_holds_from_the_start_takes_the_place_of_the_flags(tmp_path):
    schedule = read_schedule(written(tmp_path, "- {from_frame: 0, label: green}\n"))
    assert schedule.begun(LongConfig()).output.label == ["green"]
    with pytest.raises(UserError, match="gives the label of the first frames, as --label does: leave one out"):
        schedule.begun(LongConfig(output=LongOutputConfig(label=["1"])))
    later = read_schedule(written(tmp_path, "- {from_frame: 8, label: green}\n"))
    assert later.begun(LongConfig(output=LongOutputConfig(label=["1"]))).output.label == ["1"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("- {from_frame: 7, label: 1}", "entry 1 .from_frame 7.: a latent frame is 2 frames.* Nearest: 6 or 8"),
        ("- {from_frame: 24, label: 1}", "the videos have 24 frames, nothing is left to change"),
        ("- {from_frame: 4, label: yellow}", "knows no class 'yellow'; its classes are red, green, blue"),
        ("- {from_frame: 4, label: 3}", "label 3: this transformer knows classes 0 to 2"),
        ("- {from_frame: 4, text: a cat}", "it gives a text, this transformer takes label"),
        ("- {from_frame: 4, sound: a.wav}", "entry 1: sound .*a.wav: no such file"),
        ("- {from_frame: 4, sound: schedule.yaml}", "it gives a sound, this transformer takes label"),
        ("- {from_frame: 4, label: yes}", "label is a class by name or id, got True; quotes make any word a text"),
        ("- {from_frame: 4, cfg_scale: high}", "cfg_scale is a number, 0 or more"),
        ("- {from_frame: 4, cfg_scale: -1}", "cfg_scale is a number, 0 or more .1: no guidance., got -1"),
        ("- {from_frame: 4}", "nothing changes from frame 4 on"),
        ("- {from_frame: 4.0, label: 1}", "from_frame counts frames of the video from 0, got 4.0"),
        ("- {label: 1}", "from_frame counts frames of the video from 0, got None"),
        ("- {from_frame: 4, lable: 1}", "'lable' is none of .* did you mean 'label'"),
        (
            "- {from_frame: 4, label: 1}\n- {from_frame: 4, label: 2}",
            "entry 2 is from frame 4 on, the one before it from 4",
        ),
        ("- 4", "expected from_frame and what changes there, got 4"),
        ("from_frame: 4", "expected a list of entries"),
        ("", "expected a list of entries such as .* got nothing"),
        ("- {from_frame: [", "not a readable YAML file"),
    ],
)
def test_a_schedule_that_does_not_go_is_refused_by_the_line_that_is_wrong(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        changes_of(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="--schedule"):
        read_schedule(str(tmp_path / "none.yaml"))


def test_sentences_are_read_with_the_byte_pairs_of_the_checkpoint(tmp_path):
    from tats.gpt.vocabulary import train

    pairs = train(["a red circle moves", "a blue square moves"], 300)
    gpt = tiny_gpt(key="text", conditions=[("text", 20, len(pairs))])
    config = replace(gpt.config, bpe=pairs.json)
    schedule = read_schedule(written(tmp_path, "- {from_frame: 4, text: a blue circle}\n"))
    (change,) = schedule.changes(config, LongOutputConfig(), tiny_vqgan(), 12)
    assert torch.equal(change.text, pairs.tokenize(["a blue circle"], 20)[0])
    schedule = read_schedule(
        written(tmp_path, "- {from_frame: 4, text: a blue circle and a red square and a circle}\n")
    )
    with pytest.raises(UserError, match=r"entry 1 \(from_frame 4\)"):
        schedule.changes(config, LongOutputConfig(), tiny_vqgan(), 12)


def run(script, *flags, code=0):
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_scripts_follow_a_schedule_and_write_it_down(tmp_path):
    gpt = tiny_gpt(conditions=LABELS, empty=True).float()
    checkpoint.save(tiny_vqgan(), tmp_path / "vqgan")
    checkpoint.save(gpt, tmp_path / "gpt")
    path = written(tmp_path, "- {from_frame: 8, label: 2, cfg_scale: 2}\n")
    flags = ["--gpt_ckpt", tmp_path / "gpt", "--vqgan_ckpt", tmp_path / "vqgan", "--save", tmp_path / "out"]
    flags += ["--frames", 16, "--temporal_sample_pos", 2, "--n_sample", 3, "--save_as", "gif", "--schedule", path]
    run("sample_long.py", *flags)
    with np.load(tmp_path / "out" / "codes.npz") as found:
        codes, labels, schedule = found["codes"], found["labels"].tolist(), json.loads(str(found["schedule"]))
    changes = [Change(4, label=2, cfg_scale=2.0)]
    made = tats.sample_long_codes(gpt, 8, 2, label=[0, 1, 2], seeds=[0, 1, 2], top_k=2048, top_p=0.92, schedule=changes)
    assert np.array_equal(codes, torch.stack(list(made), 1).numpy()) and labels == [0, 1, 2]
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["schedule"] == schedule == [{"from_frame": 8, "label": "2", "cfg_scale": 2.0}]
    other = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    other["schedule"] = read_schedule(written(tmp_path, "- {from_frame: 8, label: 1, cfg_scale: 2}\n")).entries
    with pytest.raises(UserError, match=r"made with other settings \(schedule"):
        Store(tmp_path / "out", other, {})
