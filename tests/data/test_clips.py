"""Folders of videos: classes, what is left out and said, the index beside the files."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from films import film_folders, whole_film, write_film

from tats.data import index as index_module
from tats.data.clips import VideoFolder
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.flags import UserError
from tats.video import preprocess

DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two classes of two films of 24 frames, train and test."""
    return film_folders(tmp_path_factory.mktemp("films"), {"ape": 2, "bee": 2}, codec="mpeg4")


def config_of(root, **settings):
    return DataConfig(**{"data_path": str(root), "sequence_length": 8, "resolution": 16, "num_workers": 0, **settings})


def test_a_clip_is_the_preprocessed_window_of_its_file(films):
    source = VideoFolder(config_of(films, sample_every_n_frames=2), "train")
    assert source.names == ["ape/0.mp4", "ape/1.mp4", "bee/0.mp4", "bee/1.mp4"]
    assert source.label_names == ["ape", "bee"] and source.labels.tolist() == [0, 0, 1, 1]
    assert source.starts.tolist() == [17] * 4 and source.clips.tolist() == [3] * 4
    clip = source.read(2, 5, DRAW)
    assert torch.equal(clip["video"], preprocess(whole_film(films / "train/bee/0.mp4")[5:13:2], 16))
    assert clip["label"] == 1 and clip["video"].shape == (3, 4, 16, 16)


def test_every_kind_of_file_is_found_and_other_files_are_not(tmp_path):
    for number, suffix in enumerate((".avi", ".mp4", ".mkv", ".mov", ".MP4")):
        write_film(tmp_path / "train" / "a" / "deep" / f"{number}{suffix}", "mpeg4", 8)
    write_film(tmp_path / "train" / "5.webm", "libvpx", 8)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no video")
    shutil.copy(tmp_path / "train" / "a" / "deep" / "0.avi", tmp_path / "train" / "a" / ".hidden.avi")
    source = VideoFolder(config_of(tmp_path), "train")
    assert len(source.names) == 6
    assert source.label_names == ["all", "deep"]  # a file in train/ itself has no class of its own


def test_one_channel_is_brightness(films):
    source = VideoFolder(config_of(films, image_channels=1), "train")
    grey, colour = source.read(0, 3, DRAW)["video"], VideoFolder(config_of(films), "train").read(0, 3, DRAW)["video"]
    assert grey.shape == (1, 8, 16, 16)
    assert torch.allclose(grey[0], (colour * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)).sum(0), atol=1e-6)


def test_the_frames_and_the_window_are_printed(films, capsys):
    assert VideoData(config_of(films, sample_every_n_frames=4), seed=0).n_classes == 2
    assert "clips of 2 frames, one frame in 4 of a window of 8 frames" in capsys.readouterr().err


def test_short_videos_are_left_out_and_named_in_one_line(tmp_path, capsys):
    film_folders(tmp_path, {"ape": 2}, codec="mpeg4")
    write_film(tmp_path / "train" / "ape" / "short.mp4", "mpeg4", 5)
    assert VideoFolder(config_of(tmp_path), "train").names == ["ape/0.mp4", "ape/1.mp4"]
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "left out 1 of 3 videos shorter than 8 frames: ape/short.mp4" in lines[0]
    with pytest.raises(UserError, match="none of 3 videos has the 30 frames"):
        VideoFolder(config_of(tmp_path, sequence_length=30), "train")


def test_one_unreadable_file_in_a_hundred_is_left_out_and_two_stop(tmp_path, capsys):
    first = write_film(tmp_path / "train" / "a" / "000.avi", "mpeg4", 8)
    for number in range(1, 99):
        shutil.copy(first, tmp_path / "train" / "a" / f"{number:03d}.avi")
    (tmp_path / "train" / "a" / "broken.mp4").write_bytes(b"no video at all")
    source = VideoFolder(config_of(tmp_path, index_workers=2), "train")
    assert len(source.names) == 99
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(lines) == 1 and "1 of 100 files that cannot be read: a/broken.mp4: Invalid data" in lines[0]
    (tmp_path / "train" / "a" / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 101 files .* more than 1 in 100: a/broken\.mp4: .*; a/empty\.mp4: "):
        VideoFolder(config_of(tmp_path), "train")


def test_missing_and_empty_folders_are_one_clear_line(tmp_path, films):
    with pytest.raises(UserError, match="--data_path is needed"):
        VideoData(DataConfig(), seed=0).source("train")
    with pytest.raises(UserError, match="no such file or folder"):
        VideoData(config_of(tmp_path / "nowhere"), seed=0).source("train")
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match=r"has no folder train/; it holds videos"):
        VideoData(config_of(tmp_path), seed=0).source("train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train holds no video: looked for \*\.avi"):
        VideoData(config_of(tmp_path), seed=0).source("train")
    shutil.copytree(films / "train", tmp_path / "train", dirs_exist_ok=True)
    with pytest.raises(UserError, match="has no folder test/"):
        VideoData(config_of(tmp_path), seed=0).test_loader()


def test_labels_as_condition_need_two_classes(tmp_path, films):
    VideoData(config_of(films), seed=0).need_classes()
    film_folders(tmp_path, {"only": 1}, 8, codec="mpeg4")
    with pytest.raises(UserError, match=r"only one class, 'only'.*--unconditional"):
        VideoData(config_of(tmp_path), seed=0).need_classes()


def test_labels_of_both_splits_follow_the_train_split(tmp_path, films, capsys):
    shutil.copytree(films, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "test" / "ape")
    write_film(tmp_path / "test" / "cow" / "0.mp4", "mpeg4", 8)
    data = VideoData(config_of(tmp_path), seed=0)
    test = data.source("test")
    assert data.label_names == ["ape", "bee"] and test.labels.tolist() == [1, 1]
    assert "left out 1 of 3 videos of classes that train/ has not: cow" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "test" / "bee")
    with pytest.raises(UserError, match=r"no video is of a class of the train split \(ape, bee\), only of cow"):
        VideoData(config_of(tmp_path), seed=0).source("test")


@pytest.fixture
def scanned(monkeypatch):
    """Names of the files that are scanned."""
    names, scan = [], index_module.scan
    monkeypatch.setattr(index_module, "scan", lambda path, **more: (names.append(path.name), scan(path, **more))[1])
    return names


def test_the_index_is_made_once_and_anew_for_files_that_change(tmp_path, films, scanned):
    shutil.copytree(films, tmp_path, dirs_exist_ok=True)
    (tmp_path / "train" / index_module.NAME).unlink(missing_ok=True)
    config = config_of(tmp_path, sequence_length=5)
    VideoFolder(config, "train")
    assert sorted(scanned) == ["0.mp4", "0.mp4", "1.mp4", "1.mp4"]
    stored = tmp_path / "train" / index_module.NAME
    with np.load(stored, allow_pickle=False) as arrays:
        assert arrays["n_frames"].tolist() == [24] * 4
    scanned.clear()
    VideoFolder(replace(config, sequence_length=8), "train")
    assert scanned == []
    write_film(tmp_path / "train" / "bee" / "1.mp4", "mpeg4", 30)
    write_film(tmp_path / "train" / "bee" / "2.mp4", "mpeg4", 9)
    (tmp_path / "train" / "ape" / "0.mp4").unlink()
    source = VideoFolder(config, "train")
    assert sorted(scanned) == ["1.mp4", "2.mp4"]
    assert (source.starts + 4).tolist() == [24, 24, 30, 9]
    scanned.clear()
    VideoFolder(replace(config, check_videos="all"), "train")
    assert len(scanned) == 4
    scanned.clear()
    VideoFolder(config, "train")
    assert scanned == []
    stored.write_bytes(stored.read_bytes()[:100])
    VideoFolder(config, "train")
    assert len(scanned) == 4
    assert [name for name in os.listdir(tmp_path / "train") if name.endswith(".tmp")] == []


def test_an_index_that_cannot_lie_beside_the_data_lies_in_the_cache(tmp_path, films, scanned, monkeypatch, capsys):
    shutil.copytree(films, tmp_path / "data")
    (tmp_path / "data" / "train" / index_module.NAME).unlink(missing_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make = index_module.tempfile.NamedTemporaryFile

    def refuse(dir, **more):
        if "cache" not in str(dir):
            raise PermissionError(13, "Permission denied")
        return make(dir=dir, **more)

    monkeypatch.setattr(index_module.tempfile, "NamedTemporaryFile", refuse)
    VideoFolder(config_of(tmp_path / "data"), "train")
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "Permission denied" in lines[0] and "cache" in lines[0]
    assert len(os.listdir(tmp_path / "cache" / "tats")) == 1
    scanned.clear()
    VideoFolder(config_of(tmp_path / "data"), "train")
    assert scanned == []


def test_several_processes_index_as_one_does(tmp_path):
    first = write_film(tmp_path / "a" / "0.avi", "mpeg4", 12)
    names = [f"a/{number}.avi" for number in range(40)]
    for name in names[1:]:
        shutil.copy(first, tmp_path / name)
    (tmp_path / names[7]).write_bytes(b"")
    several = index_module.index_folder(tmp_path, names, workers=2)
    (tmp_path / index_module.NAME).unlink()
    one = index_module.index_folder(tmp_path, names, workers=1)
    assert [(entry.name, entry.problem) for entry in several] == [(entry.name, entry.problem) for entry in one]
    assert one[7].timeline is None and one[8].timeline.n_frames == several[8].timeline.n_frames == 12


def test_real_film_goes_through_the_loader(film_folder):
    data = VideoData(config_of(film_folder, sequence_length=16, resolution=32, batch_size=3), seed=0)
    assert data.label_names == ["bikes", "bunny", "carphone"]
    batch = next(iter(data.train_loader()))
    assert batch["video"].shape == (3, 3, 16, 32, 32)
    assert -0.5 <= batch["video"].min() < -0.2 and 0.2 < batch["video"].max() <= 0.5
    clips = data.test_loader(batch_size=1).dataset
    assert len(clips) == 250 // 16 + 132 // 16 + 120 // 16


@pytest.mark.parametrize("wrong, words", [
    ({"sequence_length": 0}, "--sequence_length must be at least 1, got 0"),
    ({"num_workers": -1}, "--num_workers counts processes"),
    ({"index_workers": 0}, "--index_workers counts processes"),
    ({"image_channels": 2}, "--image_channels must be 1 or 3, got 2"),
    ({"test_share": 1.5}, "--test_share is a share"),
    ({"smap_only": True}, "--smap_only needs --smap_cond"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        DataConfig(**wrong)
