"""HDF5 with frames and with codes: end marks, the last window, crops, captions, maps, tables that do not fit."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from tats.data.codes import CodeFile
from tats.data.config import DataConfig
from tats.data.hdf5 import VideoFile
from tats.data.loader import Clips, Failure, collate
from tats.data.module import VideoData
from tats.flags import UserError

DRAW = np.random.default_rng(0)
LENGTHS = (5, 4, 9)


def write(path, lengths=LENGTHS, mark=True, shape=(6, 6, 3), idx=None, data=None, **attributes):
    """Both splits alike; frame n has the value n everywhere."""
    total = sum(lengths)
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            numbers = np.arange(total).reshape(-1, *([1] * len(shape))) * np.ones((1, *shape), int)
            file[f"{split}_data"] = numbers.astype(np.uint8 if len(shape) == 3 else np.int64) if data is None else data
            first = np.cumsum([0, *lengths]) if idx is None else np.array(idx)
            file[f"{split}_idx"] = first if mark or idx is not None else first[:-1]
        file.attrs.update(attributes)
    return path


def config_of(path, **settings):
    return DataConfig(**{"data_path": str(path), "sequence_length": 4, "resolution": 6, "batch_size": 3,
                         "num_workers": 0, **settings})  # fmt: skip


def numbers(video):
    return ((video[0, :, 0, 0] + 0.5) * 255).round().int().tolist()


@pytest.mark.parametrize("mark", [True, False])
def test_the_end_mark_is_optional_and_every_window_is_used(tmp_path, mark):
    source = VideoFile(config_of(write(tmp_path / "videos.h5", mark=mark)), "train")
    assert source.starts.tolist() == [2, 1, 6] and source.clips.tolist() == [1, 1, 1]
    assert numbers(source.read(1, 0, DRAW)["video"]) == [5, 6, 7, 8]  # a video of just one window
    assert numbers(source.read(2, 5, DRAW)["video"]) == [14, 15, 16, 17]  # the last window of the file
    thinned = VideoFile(config_of(tmp_path / "videos.h5", sample_every_n_frames=3), "train")
    assert numbers(thinned.read(2, 5, DRAW)["video"]) == [14, 17]


def test_short_videos_are_left_out_and_named(tmp_path, capsys):
    source = VideoFile(config_of(write(tmp_path / "videos.h5", (3, 8, 1))), "train")
    assert source.videos.tolist() == [1] and numbers(source.read(0, 0, DRAW)["video"]) == [3, 4, 5, 6]
    assert "left out 2 of 3 videos shorter than 4 frames: video 0, video 2" in capsys.readouterr().err


@pytest.mark.parametrize("idx, words", [
    ([1, 5, 18], "entry 0 is 1"),
    ([0, 9, 5, 18], "entry 2 is 5"),
    ([0, 5, 30], "entry 2 is 30"),
    ([[0, 18]], "must be a row of integers"),
    ([0.0, 18.0], "must be a row of integers"),
])  # fmt: skip
def test_tables_that_contradict_each_other_are_refused(tmp_path, idx, words):
    with pytest.raises(UserError, match=words):
        VideoFile(config_of(write(tmp_path / "videos.h5", idx=idx)), "train")


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        VideoFile(config_of(tmp_path / "text.h5"), "train")
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["train_data"] = np.zeros((4, 6, 6, 3), np.uint8)
    with pytest.raises(UserError, match="has no table train_idx; it has train_data"):
        VideoFile(config_of(tmp_path / "bare.h5"), "train")
    write(tmp_path / "codes.h5", shape=(6, 6))
    with pytest.raises(UserError, match="integers of 4 dimensions, is int64"):
        VideoFile(config_of(tmp_path / "codes.h5"), "train")


def test_an_open_file_travels_to_other_processes_and_stays_usable(tmp_path):
    source = VideoFile(config_of(write(tmp_path / "videos.h5")), "train")
    before = source.read(0, 0, DRAW)["video"]
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.read(0, 0, DRAW)["video"], before)
    assert torch.equal(source.read(0, 0, DRAW)["video"], before)


def test_workers_read_the_same(tmp_path):
    write(tmp_path / "videos.h5")
    loaders = []
    for workers in (0, 2):
        data = VideoData(config_of(tmp_path / "videos.h5", num_workers=workers), seed=2)
        data.source("train").read(0, 0, DRAW)  # the file is open here when the workers start
        loaders.append(list(data.train_loader()))
    for a, b in zip(*loaders, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_captions_are_drawn_from_the_line_of_the_video(tmp_path):
    config = config_of(write(tmp_path / "videos.h5"), text_cond=True)
    with pytest.raises(UserError, match=r"--text_cond needs .*train_text_description\.txt"):
        VideoFile(config, "train")
    (tmp_path / "train_text_description.txt").write_text("one\tuno\ntwo\nthree\ttrois\tdrei\n")
    source = VideoFile(config, "train")
    assert {source.read(2, 0, np.random.default_rng(i))["text"] for i in range(30)} == {"three", "trois", "drei"}
    assert source.read(1, 0, DRAW)["text"] == "two"
    (tmp_path / "train_text_description.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="2 lines for 3 videos"):
        VideoFile(config, "train")


def test_semantic_maps_come_from_a_second_file(tmp_path):
    write(tmp_path / "videos.h5")
    write(tmp_path / "maps.h5", data=(np.arange(18).reshape(-1, 1, 1, 1) % 3 * np.ones((1, 6, 6, 1))).astype(np.uint8))
    config = config_of(tmp_path / "videos.h5", smap_cond=3, smap_path=str(tmp_path / "maps.h5"))
    clip = VideoFile(config, "train").read(0, 1, DRAW)
    assert clip["video"].shape == (3, 4, 6, 6) and clip["video_smap"].shape == (3, 4, 6, 6)
    assert clip["video_smap"].argmax(0)[:, 0, 0].tolist() == [1, 2, 0, 1]
    assert set(clip["video_smap"].unique().tolist()) == {-0.5, 0.5}
    only = config_of(tmp_path / "videos.h5", smap_cond=3, smap_only=True, smap_path=str(tmp_path / "maps.h5"))
    assert torch.equal(VideoFile(only, "train").read(0, 1, DRAW)["video"], clip["video_smap"])
    write(tmp_path / "maps.h5", (18,), data=np.zeros((18, 6, 6, 1), np.uint8))
    with pytest.raises(UserError, match="do not hold the same videos"):
        VideoFile(config, "train")


def codes_file(path, **attributes):
    rng = np.random.default_rng(0)
    return write(path, shape=(6, 5), data=rng.integers(0, 40, (18, 6, 5)), n_codes=40, **attributes)


def test_crops_of_codes_tell_their_box(tmp_path):
    path = codes_file(tmp_path / "codes.h5")
    source = CodeFile(config_of(path, vtokens=True, spatial_length=4), "train")
    with h5py.File(path) as file:
        stored = file["train_data"][:]
    boxes = set()
    for seed in range(40):
        clip = source.read(2, 5, np.random.default_rng(seed))
        y0, y1, x0, x1 = clip["cbox"].tolist()
        assert np.array_equal(clip["video"].numpy(), stored[14:18, y0:y1, x0:x1])
        boxes.add((y0, x0))
    assert boxes == {(y, x) for y in range(3) for x in range(2)}
    assert source.latent_shape == (4, 4, 4) and source.n_codes == 40


def test_codes_come_as_batches_and_do_not_name_their_vqgan(tmp_path, capsys):
    data = VideoData(config_of(codes_file(tmp_path / "codes.h5"), vtokens=True, spatial_length=5, resolution=5), seed=0)
    batch = next(iter(data.train_loader()))
    assert batch["video"].shape == (3, 4, 5, 5) and batch["video"].dtype == torch.int64
    assert batch["cbox"].shape == (3, 4)
    assert data.n_codes == 40 and data.latent_shape == (4, 5, 5) and data.fingerprint is None
    data.need_vqgan("abc")
    assert "does not tell which VQGAN" in capsys.readouterr().err


def test_crops_larger_than_the_codes_and_codes_out_of_range_are_refused(tmp_path):
    path = codes_file(tmp_path / "codes.h5")
    with pytest.raises(UserError, match="--spatial_length 15 does not fit"):
        CodeFile(config_of(path, vtokens=True), "train")
    write(path, shape=(6, 5), data=np.full((18, 6, 5), 40), n_codes=40)
    with pytest.raises(UserError, match=r"codes 40 to 40 do not lie in \[0, 40\)"):
        CodeFile(config_of(path, vtokens=True, spatial_length=4), "train").read(0, 0, DRAW)


@pytest.mark.parametrize("settings", [{}, {"sample_every_n_frames": 3}, {"resolution": 4}])
def test_frames_of_a_batch_are_those_of_its_clips(tmp_path, settings):
    source = VideoFile(config_of(write(tmp_path / "videos.h5"), **settings), "train")
    clips = Clips(source, 7, train=True, raw=True)
    places = [(1, 2), (0, 0), (1, 1), (4, 2)]
    batch, alone = collate(clips.__getitems__(places)), collate([clips[place] for place in places])
    assert batch.keys() == alone.keys() and ("frames" in batch) == ("resolution" not in settings)
    assert all(torch.equal(batch[key], alone[key]) for key in alone)


def test_a_batch_of_frames_that_can_not_be_read_fails(tmp_path):
    clips = Clips(VideoFile(config_of(write(tmp_path / "videos.h5")), "train"), 7, train=True, raw=True)
    with h5py.File(tmp_path / "videos.h5", "r+") as file:
        del file["train_data"]
    failed = collate(clips.__getitems__([(0, 0), (0, 1)]))
    assert isinstance(failed, Failure) and "videos.h5" in failed.message
