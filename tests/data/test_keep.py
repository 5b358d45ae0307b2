"""Videos that are kept in memory give the same clips."""

import torch

from tats.data.clips import VideoFolder
from tats.data.config import DataConfig
from tats.data.shapes import make
from tats.data.shapes_config import ShapesConfig


def test_kept_videos_give_the_same_clips(tmp_path, monkeypatch):
    make(ShapesConfig(out=str(tmp_path / "d"), n_train=2, n_test=0, frames=9, resolution=16, num_workers=1))
    settings = {"data_path": str(tmp_path / "d"), "sequence_length": 4, "resolution": 16, "sample_every_n_frames": 2}
    read = VideoFolder(DataConfig(**settings), "train")
    kept = VideoFolder(DataConfig(**settings, keep_gb=0.1), "train")
    draw = None
    for start in (0, 3, 5):
        for video in (0, 1):
            assert torch.equal(kept.read(video, start, draw)["video"], read.read(video, start, draw)["video"])
    monkeypatch.setattr("tats.data.clips.read_clip", None)  # nothing is decoded any more
    assert kept.read(1, 2, draw)["video"].shape == (3, 2, 16, 16)


def test_beyond_the_room_videos_are_read_every_time(tmp_path):
    make(ShapesConfig(out=str(tmp_path / "d"), n_train=3, n_test=0, frames=5, resolution=16, num_workers=1))
    one = 5 * 16 * 16 * 3
    source = VideoFolder(
        DataConfig(data_path=str(tmp_path / "d"), sequence_length=4, resolution=16, keep_gb=1.5 * one / 1e9), "train"
    )
    for video in (0, 1, 2):
        source.read(video, 0, None)
    assert sorted(source._kept) == [0, 1]
