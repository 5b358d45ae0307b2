"""`tats prepare --stft`: spectrograms of a folder of videos, what is left out, and what a second call does."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from films import write_film

from tats import flags
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.pool import each
from tats.data.prepare_stft import ABOUT, prepare_stft
from tats.data.shapes import SOUND_RATE, make
from tats.data.shapes_config import ShapesConfig
from tats.data.spectrogram import SETTINGS
from tats.flags import UserError
from tats.media import write_video
from tats.prepare import main


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Four videos for training and two for testing, of 24 frames, with clicks."""
    root = tmp_path_factory.mktemp("shapes") / "data"
    make(ShapesConfig(str(root), n_train=4, n_test=2, frames=24, resolution=16, num_workers=1))
    return root


@pytest.fixture
def data(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / "data")


def test_every_click_is_in_the_picture_of_its_frame(data):
    main(["--stft", "--data_path", str(data), "--num_workers", "1"])
    assert json.loads((data / "stft" / ABOUT).read_text()) == SETTINGS
    hits = 0
    for split in ("train", "test"):
        for name, truth in json.loads((data / split / "truth.json").read_text()).items():
            made = np.load((data / "stft" / split / name).with_suffix(".npy"))
            assert made.shape == (24, 64, 16) and made.dtype == np.float16
            loud = {frame for frame in range(24) if made[frame, :, 2:8].max() > 0.6}
            wanted = {reflection["frame"] for reflection in truth["reflections"]}
            assert loud == wanted
            hits += len(wanted)
    assert hits > 3


def test_what_is_made_is_read_as_clips_with_class_and_text(data):
    prepare_stft(str(data), workers=1)
    config = DataConfig(str(data), 8, 16, batch_size=4, num_workers=0, stft_data=True, text_cond=True)
    batch = next(iter(VideoData(config, seed=0).train_loader()))
    assert batch["video"].shape == (4, 3, 8, 16, 16) and batch["stft"].shape == (4, 1, 8, 64, 16)
    assert len(set(batch["label"].tolist())) > 1 and all(text.startswith("a ") for text in batch["text"])
    alone = VideoData(replace(config, sequence_length=24), seed=0, sounds_alone=True)
    sounds = next(iter(alone.train_loader()))["video"]
    assert sounds.shape == (4, 1, 24, 64, 16) and -1 <= sounds.min() < sounds.max() <= 1
    test = VideoData(config, seed=0).source("test")
    assert torch.equal(alone.source("test").read(0, 0, None)["video"][:, 8:16], test.hear(0, 8))


def test_a_second_call_makes_what_is_missing_or_old(data, capsys):
    prepare_stft(str(data), workers=1)
    made = sorted((data / "stft").rglob("*.npy"))
    before = {path: path.stat().st_mtime_ns for path in made}
    made[0].unlink()
    later = before[made[1]] + 10**9
    name = made[1].relative_to(data / "stft").with_suffix(".mp4")
    os.utime(data / name, ns=(later, later))
    capsys.readouterr()
    prepare_stft(str(data), workers=1)
    changed = [path for path in made if path.stat().st_mtime_ns != before[path]]
    assert changed == made[:2] and not list((data / "stft").rglob("*.part"))
    assert "from before" in capsys.readouterr().err


def test_silent_and_broken_videos_are_named_and_the_others_are_made(data, capsys):
    silent = data / "train" / "red_circle" / "silent.mp4"
    write_film(silent, "mpeg4", 8)
    (data / "train" / "red_circle" / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"1 of 6 files cannot be read.*broken\.mp4"):
        prepare_stft(str(data), workers=1)
    assert "1 of 6 videos have no sound: red_circle/silent.mp4" in capsys.readouterr().err
    assert len(list((data / "stft" / "train").rglob("*.npy"))) == 4
    (data / "train" / "red_circle" / "broken.mp4").unlink()
    config = DataConfig(str(data), 8, 16, num_workers=0, stft_data=True)
    assert len(VideoData(config, seed=0).source("train").names) == 4
    assert "left out 1 of 5 videos that have no sound: red_circle/silent.mp4" in capsys.readouterr().err


def test_a_sound_beside_the_video_counts(tmp_path):
    write_film(tmp_path / "train" / "a.mp4", "mpeg4", 25)
    tone = np.sin(np.arange(SOUND_RATE) * 0.3).astype(np.float32)
    write_video(tmp_path / "tone.mp4", np.zeros((25, 16, 16, 3), np.uint8), 25, sound=(tone, SOUND_RATE))
    (tmp_path / "tone.mp4").rename(tmp_path / "train" / "a.m4a")
    prepare_stft(str(tmp_path), workers=1)
    assert np.load(tmp_path / "stft" / "train" / "a.npy")[5:20].max((1, 2)).min() > 0.9


def test_another_folder_receives_links_to_the_videos(data, tmp_path):
    out = tmp_path / "out"
    prepare_stft(str(data), str(out), workers=1)
    assert not (data / "stft").exists() and len(list(out.rglob("*.npy"))) == 6
    config = DataConfig(str(out), 8, 16, num_workers=0, stft_data=True)
    clip = VideoData(config, seed=0).source("test").read(0, 3, np.random.default_rng(0))
    assert clip["video"].shape == (3, 8, 16, 16) and "/video/test/" in clip["path"]
    prepare_stft(str(data), str(out), workers=1)  # the links are there


def test_the_published_layout_is_kept(tmp_path, data):
    (tmp_path / "drums").mkdir()
    shutil.copytree(data / "train", tmp_path / "drums" / "video" / "train")
    assert prepare_stft(str(tmp_path / "drums" / "stft"), workers=1) == tmp_path / "drums"
    assert len(list((tmp_path / "drums" / "stft" / "train").rglob("*.npy"))) == 4


def test_what_cannot_be_prepared_is_refused(data, tmp_path):
    with pytest.raises(UserError, match=r"neither train/ nor test/"):
        prepare_stft(str(tmp_path), workers=1)
    (data / "stft").mkdir()
    (data / "stft" / "old.pickle").write_bytes(b"")
    with pytest.raises(UserError, match="has not written"):
        prepare_stft(str(data), workers=1)
    (data / "stft" / ABOUT).write_text(json.dumps({**SETTINGS, "rate": 8000}))
    with pytest.raises(UserError, match="of another kind"):
        prepare_stft(str(data), workers=1)
    write_film(tmp_path / "twice" / "train" / "a.mp4", "mpeg4", 8)
    shutil.copy(tmp_path / "twice" / "train" / "a.mp4", tmp_path / "twice" / "train" / "a.mkv")
    with pytest.raises(UserError, match=r"share a spectrogram: a\.m"):
        prepare_stft(str(tmp_path / "twice"), workers=1)
    (tmp_path / "twice" / "train" / "a.mkv").unlink()
    shutil.rmtree(tmp_path / "twice" / "stft")
    with pytest.raises(UserError, match="none of 1 videos has a sound"):
        prepare_stft(str(tmp_path / "twice"), workers=1)


def test_training_from_a_folder_without_spectrograms_says_what_makes_them(data):
    with pytest.raises(UserError, match="tats prepare --stft --data_path"):
        VideoData(DataConfig(str(data), stft_data=True), seed=0).source("train")


def test_several_processes_give_results_in_order():
    assert list(each([*range(-3, 3)], abs, 2, "numbers", few=0)) == [3, 2, 1, 0, 1, 2]


def test_processes_multiply_with_one_thread_each_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    names = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"]
    assert list(each(names, os.getenv, 2, "settings", few=0)) == ["1", "2"]
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_process_that_dies_is_reported_with_what_it_may_have_died_of():
    with pytest.raises(UserError, match=r"a process died, at one of: 3"):
        list(each([3, 3, 3], os._exit, 2, "numbers", few=0))


def test_the_verb_refuses_a_second_form(data):
    with pytest.raises(UserError, match="--num_workers 0"):
        main(["--stft", "--data_path", str(data), "--num_workers", "0"])
    assert flags.nearest("--stfd", ["--stft"])
