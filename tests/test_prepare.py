"""`tats prepare`: what it makes is what training sees, whatever stops it on the way."""

import json
import os
import shutil
import signal
import time
import zipfile

import h5py
import numpy as np
import pytest
from films import film_folders, whole_film

from tats import prepare as verb
from tats.data import prepare_parts, prepare_plan
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.prepare import prepare
from tats.flags import UserError
from tats.prepare_config import PrepareConfig

DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return film_folders(tmp_path_factory.mktemp("films"), {"ape": 2, "bee": 1}, 9, codec="mpeg4")


def make(films, out, form="hdf5", **settings):
    return prepare(str(films), str(out), **{"form": form, "resolution": 16, "workers": 1, **settings})


def source_of(path, split="train", **settings):
    config = DataConfig(
        **{"data_path": str(path), "sequence_length": 5, "resolution": 16, "num_workers": 0, **settings}
    )
    return VideoData(config, seed=0).source(split)


def content(folder):
    """Every file of a folder but those that tell when and how it was made."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".parts" not in path.parts and path.name != "report.json"
    }


def test_hdf5_holds_what_training_sees(films, tmp_path):
    (path,) = make(films, tmp_path / "out")
    read, prepared = source_of(films), source_of(path)
    assert prepared.label_names == read.label_names == ["ape", "bee"]
    assert prepared.labels.tolist() == read.labels.tolist() == [0, 0, 1]
    for video in range(3):
        ours, theirs = prepared.read(video, 2, DRAW)["video"], read.read(video, 2, DRAW)["video"]
        assert (ours - theirs).abs().max() <= 0.501 / 255  # the nearest level
    assert len(source_of(path, "test").starts) == 3


def test_batches_of_prepared_frames_are_the_same_as_levels_and_as_video(films, tmp_path):
    (path,) = make(films, tmp_path / "out")
    config = DataConfig(data_path=str(path), sequence_length=5, resolution=16, batch_size=3, num_workers=0)
    plain, raw = (next(iter(VideoData(config, seed=0).train_loader(raw=raw))) for raw in (False, True))
    assert raw["frames"].dtype.itemsize == 1 and raw["frames"].shape == (3, 5, 16, 16, 3) and "video" not in raw
    assert plain["video"].shape == (3, 3, 5, 16, 16)
    assert (plain["video"] == raw["frames"].permute(0, 4, 1, 2, 3).float().div(255).sub(0.5)).all()


@pytest.mark.parametrize("form", ["folders", "zip", "zips"])
def test_pictures_are_the_frames_of_the_hdf5_file_in_every_form(films, tmp_path, form):
    (path,) = make(films, tmp_path / "hdf5")
    make(films, tmp_path / form, form, picture="png", num_partitions=2)
    first, second = source_of(path), source_of(tmp_path / form, image_folder=form == "folders")
    assert second.label_names == ["ape", "bee"] and second.labels.tolist() == [0, 0, 1]
    for video in range(3):
        ours, theirs = (source.read(video, 3, DRAW, raw=True)["frames"] for source in (first, second))
        assert (ours == theirs).all()


def test_zip_files_have_the_layouts_of_those_who_defined_them(films, tmp_path):
    make(films, tmp_path / "zip", "zip")
    with zipfile.ZipFile(tmp_path / "zip" / "train.zip") as archive:
        names = archive.namelist()
        labels = json.loads(archive.read("train/dataset.json"))
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert names[0] == "train/" and {"train/ape__0/", "train/ape__0/000000.jpg", "train/bee__0/000008.jpg"} <= set(
        names
    )
    assert dict(labels["labels"])["bee__0/000000.jpg"] == 1 and labels["label_names"] == ["ape", "bee"]
    made = make(films, tmp_path / "zips", "zips", num_partitions=2)
    assert made[1] == tmp_path / "zips" / "train" / "0016x0016" / "partition_0001.zip" and len(made) == 4
    with zipfile.ZipFile(made[0]) as archive:
        listed = json.loads(archive.read("frame_paths.json"))
    assert list(listed) == ["ape/0", "ape/1"] and listed["ape/0"][8] == "frame_000008.jpg"


def test_pictures_keep_their_size_without_a_resolution(films, tmp_path):
    make(films, tmp_path / "out", "folders", resolution=None, picture="png")
    from PIL import Image

    picture = np.asarray(Image.open(tmp_path / "out" / "train" / "ape__1" / "000004.png"))
    assert np.array_equal(picture, whole_film(films / "train" / "ape" / "1.mp4")[4])


def test_a_stopped_call_goes_on_and_ends_as_if_it_had_not_been_stopped(films, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_plan, "PART_BYTES", 1)  # every video is a part
    make(films, tmp_path / "whole", "zips", num_partitions=2)
    done, kept = [], prepare_parts.make

    def stop_at_the_third(job):
        done.append(str(job.part))
        return "the disk is full" if len(done) == 3 else kept(job)

    monkeypatch.setattr("tats.data.prepare.make", stop_at_the_third)
    with pytest.raises(UserError, match=r"the disk is full \(part train_00002\). What is done is kept"):
        make(films, tmp_path / "stopped", "zips", num_partitions=2)
    made = make(films, tmp_path / "stopped", "zips", num_partitions=2)
    assert done[3:] == ["train_00002", "test_00003", "test_00004", "test_00005"]
    assert "2 of 6 parts are there from before" in capsys.readouterr().err
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    assert (
        make(films, tmp_path / "stopped", "zips", num_partitions=2) == made and len(done) == 7
    )  # nothing is made again


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_call_leaves_nothing_half_done(films, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_plan, "PART_BYTES", 1)
    settings = {"form": "folders", "resolution": None, "picture": "png"}
    make(films, tmp_path / "whole", **settings)
    child = os.fork()
    if child == 0:
        real = prepare_parts.encoded

        def slow(frame, how):
            if (how.work / "train_00000.json").exists():
                time.sleep(3600)  # in the middle of the second video
            return real(frame, how)

        prepare_parts.encoded = slow
        try:
            make(films, tmp_path / "killed", **settings)
        finally:
            os._exit(1)
    waiting = tmp_path / "killed" / ".parts" / "train_00000.json"
    while not waiting.exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before its first part was done"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (tmp_path / "killed" / "train" / "ape__1").exists()
    make(films, tmp_path / "killed", **settings)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not list((tmp_path / "killed" / ".parts").glob(".*"))  # what the killed one left is gone


def test_machines_that_share_the_work_make_what_one_makes(films, tmp_path, capsys):
    make(films, tmp_path / "one", num_partitions=2)
    assert make(films, tmp_path / "two", num_partitions=2, partition=1) == []
    assert "partitions 0 are missing" in capsys.readouterr().err
    (path,) = make(films, tmp_path / "two", num_partitions=2, partition=0)
    with h5py.File(path) as ours, h5py.File(tmp_path / "one" / "videos.h5") as theirs:
        assert set(ours) == set(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_unreadable_files_are_left_out_and_named_at_the_end(films, tmp_path, capsys, monkeypatch):
    mine = shutil.copytree(films, tmp_path / "films")
    (mine / "train" / "bee" / "broken.mp4").write_bytes(b"no film")
    real = prepare_parts.read_all

    def breaks_off(path):
        for number, frame in enumerate(real(path)):
            if str(path).endswith("train/ape/0.mp4") and number == 4:
                raise prepare_parts.ReadError(f"{path}: frame 4 is damaged")
            yield frame

    monkeypatch.setattr(prepare_parts, "read_all", breaks_off)
    (path,) = make(mine, tmp_path / "out")
    assert "train: 2 of 4 files could not be read and are left out" in capsys.readouterr().err
    with h5py.File(path) as file:
        assert file["train_idx"][:].tolist() == [0, 9] and file["train_data"].shape[0] == 18
        assert [name.decode() for name in file["train_name"][:]] == ["ape/1.mp4", "bee/0.mp4"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())["splits"]["train"]
    assert [line.split(":")[0] for line in report["unreadable"]] == ["bee/broken.mp4", "ape/0.mp4"]


def test_the_report_counts_what_is_there(films, capsys):
    verb.main(["--data_path", str(films), "--num_workers", "1"])
    text = capsys.readouterr().out
    assert "train: 3 videos, 27 frames" in text and "sizes: 64x48: 3" in text and "frames per second: 25: 3" in text
    assert "classes: ape: 2, bee: 1" in text and "lengths in frames: below 16: 3" in text


def test_a_folder_without_splits_is_shared_out(films, tmp_path):
    (path,) = make(films / "train", tmp_path / "out", test_share=0.34)
    assert len(source_of(path).starts) == 2 and len(source_of(path, "test").starts) == 1


def test_what_lies_there_already_is_not_overwritten(films, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds work\.txt, which `tats prepare` has not made"):
        make(films, tmp_path / "mine")
    make(films, tmp_path / "out")
    with pytest.raises(UserError, match="--resolution 16 there, 32 now"):
        make(films, tmp_path / "out", resolution=32)


def test_room_is_looked_for_before_hours_are_spent(films, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("tats.data.room.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"54 frames take about 83 kB, and 1.0 kB are free on that disk"):
        make(films, tmp_path / "out")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"form": "hdf5"}, "needs --out"),
        ({"form": "codes", "out": "o"}, "needs --vqgan_ckpt"),
        ({"form": "zip", "out": "o", "flips": True}, "--flips is for codes"),
        ({"form": "zip", "out": "o", "stft": True}, "two calls"),
        ({"partition": 2, "num_partitions": 2}, "partitions count from 0 to 1"),
        ({"quality": 0}, "between 1 and 100"),
        ({"resolution": 0}, "--resolution must be at least 1"),
        ({"form": "codes", "out": "o", "vqgan_ckpt": "v", "resolution": 8}, "leave --resolution out"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        PrepareConfig(data_path="videos", **settings)
