"""Sounds of long videos, one after the other: --audio, and the entries of --schedule that name a sound."""

import json

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt
from sound_parts import likeness, noise, run, save_models, write_wav

from tats import checkpoint
from tats.codes_file import Journal
from tats.data.sound import sound_pictures
from tats.data.spectrogram import RATE, spectrogram
from tats.flags import UserError
from tats.gpt.api import sample_hierarchical_codes, sample_long_codes
from tats.gpt.course import Change
from tats.listening import Division
from tats.media import read_frames, write_video
from tats.sound import read_sound

LENGTH = 12  # latent frames of the long videos, of 4 frames each, at 16 per second: 3 seconds
SCHEDULE = """
- {from_frame: 0, sound: low.wav}
- {from_frame: 16, sound: sub/high.wav, label: red_circle}
- {from_frame: 32, label: red_square}
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of the models by sound, and of a pair by sound for a hierarchy."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    coarse = tiny_gpt((3, 2, 2), stride=4, key="stft", n_cond=18, code_offset=11)  # of clips of 9 latent frames
    checkpoint.save(coarse.float(), folder / "coarse")
    between = tiny_gpt((5, 2, 2), n_unmasked=4, key="stft", n_cond=10, code_offset=11)
    checkpoint.save(between.float(), folder / "between")
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder with two sounds, the second of another rate, and a schedule that names them."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "sub").mkdir()
    write_wav(folder / "low.wav", noise(1.5))
    write_wav(folder / "sub" / "high.wav", noise(2.2, 22050, 900), 22050)
    write_wav(folder / "short.wav", noise(0.5))
    write_wav(folder / "nothing.wav", noise(0))
    write_video(folder / "silent.mp4", np.zeros((6, 16, 16, 3), np.uint8), 16)
    (folder / "schedule.yaml").write_text(SCHEDULE)
    return folder


def joined(folder, rate=RATE):
    """What is heard: a second of the first sound, then two of the other."""
    return np.concatenate([read_sound(folder / "low.wav", rate)[:rate], read_sound(folder / "sub/high.wav", rate)])[
        : 3 * rate
    ]


def pictures_of(samples, frames=LENGTH * 4 + 16):
    """The pictures of a sound, and silence behind it: [frames, 64, 16]."""
    found = np.concatenate(list(spectrogram([samples], np.arange(LENGTH * 4 + 1) / 16)))
    return np.concatenate([found, np.zeros((frames - len(found), 64, 16), found.dtype)])


def long_flags(models, gpt="both"):
    given = ["--gpt_ckpt", models / gpt, "--vqgan_ckpt", models / "vqgan", "--stft_vqgan_ckpt", models / "stft"]
    return [*given, "--frames", LENGTH * 4, "--temporal_sample_pos", 2, "--n_sample", 2, "--device", "cpu"]


def made_by(folder):
    with np.load(folder / "codes.npz") as found:
        return torch.from_numpy(found["codes"]).long(), json.loads((folder / "manifest.json").read_text())


def test_a_long_video_follows_the_sounds_of_its_schedule(models, sounds, tmp_path):
    flags = [*long_flags(models), "--schedule", sounds / "schedule.yaml", "--save", tmp_path, "--label", "green_circle"]
    run("sample_long.py", *flags)
    codes, manifest = made_by(tmp_path)
    vqgan, pictures = checkpoint.load_vqgan(models / "stft"), pictures_of(joined(sounds))
    windows = [vqgan.encode(sound_pictures(pictures, 4 * n, 16)[None]) for n in range(LENGTH)]
    given = {"label": 0, "sound": torch.stack(windows, 1), "seeds": [0, 1], "top_k": 2048, "top_p": 0.92}
    changes = [Change(4, label=2), Change(8, label=1)]
    gpt = checkpoint.load_transformer(models / "both")
    own = torch.stack(list(sample_long_codes(gpt, LENGTH, 2, schedule=changes, **given)), 1)
    assert torch.equal(codes, own)
    silent = torch.stack(
        list(sample_long_codes(gpt, LENGTH, 2, schedule=changes, **given | {"sound": windows[-1] * 0})), 1
    )
    assert not torch.equal(codes, silent)
    assert manifest["settings"]["schedule"][1] == {"from_frame": 16, "label": "red_circle", "sound": "sub/high.wav"}
    heard = manifest["videos"][1]["sound"]
    assert [(entry["from_frame"], entry["seconds"]) for entry in heard] == [(0, 1.0), (16, 2.0)]
    assert heard[1]["file"] == str(sounds / "sub" / "high.wav")
    film = tmp_path / manifest["videos"][1]["file"]
    same, late = likeness(read_sound(film, 16000)[:48000], joined(sounds))
    assert same > 0.98 and abs(late) <= 16 and len(read_frames(film)) == 48


def test_one_sound_from_a_flag_is_a_schedule_of_one_entry(models, sounds, tmp_path):
    flags = [*long_flags(models, "gpt"), "--n_sample", 1, "--frames", 24, "--save_as", "gif"]
    run("sample_long.py", *flags, "--audio", sounds / "low.wav", "--save", tmp_path / "flag")
    (tmp_path / "one.yaml").write_text(f"- {{from_frame: 0, sound: {sounds / 'low.wav'}}}")
    run("sample_long.py", *flags, "--schedule", tmp_path / "one.yaml", "--save", tmp_path / "file")
    audio = ["--audio", sounds / "low.wav", "--save", tmp_path / "audio", "--top_p", 0.92, "--frames", 24]
    run("sample_audio_cond.py", *long_flags(models, "gpt")[:6], *audio, "--temporal_sample_pos", 2, "--device", "cpu")
    codes = [made_by(tmp_path / name)[0] for name in ("flag", "file", "audio")]
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])


def test_both_models_of_a_hierarchy_follow_the_sounds(models, sounds, tmp_path):
    (sounds / "pair.yaml").write_text("- {from_frame: 0, sound: low.wav}\n- {from_frame: 16, sound: sub/high.wav}\n")
    flags = ["--ckpt1", models / "coarse", "--ckpt2", models / "between", "--vqgan", models / "vqgan"]
    flags += ["--stft_vqgan_ckpt", models / "stft", "--frames", 36, "--n_sample", 1, "--schedule", sounds / "pair.yaml"]
    run("sample_hierarchical.py", *flags, "--save", tmp_path, "--device", "cpu")
    codes, manifest = made_by(tmp_path)
    pictures = pictures_of(joined(sounds))[:36]
    whole = checkpoint.load_vqgan(models / "stft").encode(
        sound_pictures(np.concatenate([pictures, 0 * pictures]), 0, 72)[None]
    )
    coarse, fine = (checkpoint.load_transformer(models / name) for name in ("coarse", "between"))
    given = {"sound": whole, "seeds": [0], "top_k": 2048, "top_p": 0.8, "top_k_init": 2048, "top_p_init": 0.8}
    assert torch.equal(codes, torch.stack(list(sample_hierarchical_codes(coarse, fine, 9, 1, **given)), 1))
    film = tmp_path / manifest["videos"][0]["file"]
    same, _ = likeness(read_sound(film, 16000)[:36000], joined(sounds)[:36000])
    assert same > 0.98
    vqgan, stft = checkpoint.load_vqgan(models / "vqgan"), checkpoint.load_vqgan(models / "stft")
    assert Division.of(coarse.config, vqgan, stft) == Division(3, 4, 36, 1)
    assert Division.of(fine.config, vqgan, stft) == Division(5, 4, 20, 1)


def test_a_stopped_run_goes_on_and_other_sounds_are_refused(models, sounds, tmp_path, monkeypatch):
    flags = [*long_flags(models), "--schedule", sounds / "schedule.yaml", "--label", 0, "--save_as", "gif"]
    run("sample_long.py", *flags, "--save", tmp_path / "whole")
    append, count = Journal.append, []

    def stops(self, codes):
        count.append(1)
        if len(count) == 7:
            raise KeyboardInterrupt
        append(self, codes)

    monkeypatch.setattr(Journal, "append", stops)
    with pytest.raises(KeyboardInterrupt):
        run("sample_long.py", *flags, "--save", tmp_path / "cut")
    monkeypatch.undo()
    run("sample_long.py", *flags, "--save", tmp_path / "cut")
    assert torch.equal(made_by(tmp_path / "cut")[0], made_by(tmp_path / "whole")[0])
    (tmp_path / "sub").mkdir()
    write_wav(tmp_path / "low.wav", noise(1.5))
    write_wav(tmp_path / "sub" / "high.wav", noise(2.2, 22050, 300), 22050)
    (tmp_path / "schedule.yaml").write_text(SCHEDULE)
    with pytest.raises(UserError, match=r"made with other settings \(sound_codes"):
        run("sample_long.py", *flags, "--schedule", tmp_path / "schedule.yaml", "--save", tmp_path / "cut")


@pytest.mark.parametrize("gpt, lines, flags, words", [
    ("gpt", "[0, none.wav]", [], "entry 1: sound .*none.wav: no such file"),
    ("gpt", "[0, 3]", [], "sound is the path of a file, got 3"),
    ("gpt", "[0, low.wav] [16, short.wav]", [],
     r"entry 2 \(from_frame 16\): short.wav: it lasts 0.50 seconds, and is to be heard for 2.00"),
    ("gpt", "[0, silent.mp4]", [], r"entry 1 \(from_frame 0\): silent.mp4: .* has no audio track"),
    ("gpt", "[0, nothing.wav]", [], r"nothing.wav: .*no sound at all"),
    ("gpt", "[0, schedule.yaml]", [], "schedule.yaml: .* cannot be read"),
    ("gpt", "[0, .]", [], "is a folder"),
    ("gpt", "[16, sub/high.wav]", [], "the first frames have none: --audio is needed"),
    ("gpt", "", [], "the first frames have none: --audio is needed"),
    ("gpt", "[0, low.wav]", ["--audio", "{sounds}/low.wav"], "as --audio does: leave one out"),
    ("gpt", "", ["--audio", "{sounds}/short.wav"], "--audio .*short.wav: it lasts 0.50 seconds"),
    ("gpt", "", ["--audio", "nowhere.wav"], "--audio nowhere.wav: nowhere.wav does not exist"),
    ("gpt", "[0, sub/high.wav] [18, low.wav]", [], "Nearest: 16 or 20"),
    ("gpt", "[0, sub/high.wav]", ["--stft_vqgan_ckpt", "{models}/vqgan", "--frames", "32"],
     "--stft_vqgan_ckpt does not go with"),
    ("label", "[4, low.wav]", [], "it gives a sound, this transformer takes label"),
    ("label", "", ["--audio", "{sounds}/low.wav"], "--audio is for transformers conditioned on sound"),
    ("label", "", ["--stft_vqgan_ckpt", "{models}/stft"], "--stft_vqgan_ckpt is for transformers"),
])  # fmt: skip
def test_what_is_wrong_with_a_sound_is_said_in_one_line(models, sounds, tmp_path, gpt, lines, flags, words):
    given = [*long_flags(models, gpt), "--save", tmp_path / "out"]
    if gpt == "label":  # no VQGAN of sounds
        given = given[:4] + given[6:]
    if lines:
        entries = [line.strip("[] ").split(", ") for line in lines.split("] ")]
        path = sounds / f"{tmp_path.name}.yaml"
        path.write_text("".join(f"- {{from_frame: {frame}, sound: {sound}}}\n" for frame, sound in entries))
        given += ["--schedule", path]
    given += [flag.format(models=models, sounds=sounds) for flag in flags]
    with pytest.raises(UserError, match=words) as caught:
        run("sample_long.py", *given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_sound_needs_the_vqgan_of_sounds(models, sounds, tmp_path):
    given = [flag for flag in long_flags(models, "gpt") if flag not in ("--stft_vqgan_ckpt", models / "stft")]
    with pytest.raises(UserError, match="--stft_vqgan_ckpt is needed"):
        run("sample_long.py", *given, "--audio", sounds / "low.wav", "--save", tmp_path / "out")
