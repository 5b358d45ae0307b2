"""Texts and semantic maps beside videos, as for the rendered MUGEN videos."""

import json

import numpy as np
import pytest
import torch
from films import write_film

from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.flags import UserError


@pytest.fixture
def root(tmp_path):
    """Two videos of ten frames in train/mugen/."""
    for name in ("one", "two"):
        write_film(tmp_path / "train" / "mugen" / f"{name}.mp4", "mpeg4", 10)
    return tmp_path


def config_of(root, **settings):
    return DataConfig(**{"data_path": str(root), "sequence_length": 4, "resolution": 8, "batch_size": 2,
                         "num_workers": 0, **settings})  # fmt: skip


def texts_of(root, turns=8, **settings):
    source = VideoData(config_of(root, text_cond=True, **settings), seed=0).source("train")
    return [{source.read(video, 0, np.random.default_rng(turn))["text"] for turn in range(turns)} for video in (0, 1)]


def test_captions_lie_beside_the_videos(root):
    (root / "train" / "captions.json").write_text(json.dumps({"mugen/one.mp4": "a", "mugen/two.mp4": ["b", "c"]}))
    assert texts_of(root) == [{"a"}, {"b", "c"}]
    batch = next(iter(VideoData(config_of(root, text_cond=True), seed=0).train_loader()))
    assert len(batch["text"]) == 2 and set(batch["text"]) <= {"a", "b", "c"}


def test_the_published_annotations_are_understood(root):
    entries = [
        {
            "video": {"video_file": "far/away/one.mp4"},
            "annotations": [{"type": "auto", "text": "a"}, {"type": "audio"}],
        },
        {"video": {"video_file": "two.mp4"}, "annotations": [{"text": "b"}, {"text": "c"}]},
    ]
    (root / "texts.json").write_text(json.dumps({"metadata": {}, "data": entries}))
    assert texts_of(root, text_path=str(root / "texts.json")) == [{"a"}, {"b", "c"}]


@pytest.mark.parametrize("content, words", [
    (None, r"--text_cond needs .*captions\.json"),
    ("{", "is not JSON"),
    ("[1]", "must hold an object"),
    ('{"data": [{"video": {}}]}', "must hold an object"),
    ('{"mugen/one.mp4": "a", "mugen/two.mp4": " "}', r"no text for 1 of 2 videos: mugen/two\.mp4"),
])  # fmt: skip
def test_missing_and_wrong_texts_are_one_line(root, content, words):
    if content is not None:
        (root / "train" / "captions.json").write_text(content)
    with pytest.raises(UserError, match=words):
        texts_of(root)


def write_maps(root, n_frames=10, dtype=np.uint8):
    folder = root / "maps" / "train" / "mugen"
    folder.mkdir(parents=True, exist_ok=True)
    maps = np.arange(n_frames).reshape(-1, 1, 1) % 5 * np.ones((1, 48, 64), int)
    for name in ("one", "two"):
        np.save(folder / f"{name}.npy", maps.astype(dtype))


def test_semantic_maps_follow_the_window_of_the_video(root):
    write_maps(root)
    config = config_of(root, smap_cond=5, smap_path=str(root / "maps"), sample_every_n_frames=2)
    clip = VideoData(config, seed=0).source("train").read(0, 3, np.random.default_rng(0))
    assert clip["video"].shape == (3, 2, 8, 8) and clip["video_smap"].shape == (5, 2, 8, 8)
    assert clip["video_smap"].argmax(0)[:, 0, 0].tolist() == [3, 0]
    only = config_of(root, smap_cond=5, smap_only=True, smap_path=str(root / "maps"), sample_every_n_frames=2)
    alone = VideoData(only, seed=0).source("train").read(0, 3, np.random.default_rng(0))
    assert torch.equal(alone["video"], clip["video_smap"]) and "video_smap" not in alone


def test_missing_and_wrong_maps_are_named(root):
    with pytest.raises(UserError, match="needs --smap_path"):
        VideoData(config_of(root, smap_cond=5), seed=0).source("train")
    config = config_of(root, smap_cond=5, smap_path=str(root / "maps"))
    with pytest.raises(UserError, match=r"no map for 2 of 2 videos, such as .*one\.npy"):
        VideoData(config, seed=0).source("train")
    for wrong in ({"n_frames": 3}, {"dtype": np.int64}):
        write_maps(root, **wrong)
        with pytest.raises(UserError, match=r"one\.npy: must be uint8"):
            VideoData(config, seed=0).source("train").read(0, 0, np.random.default_rng(0))
    write_maps(root)
    few = config_of(root, smap_cond=3, smap_path=str(root / "maps"))
    with pytest.raises(UserError, match=r"one\.npy: ids hold class 4, but there are 3 classes"):
        VideoData(few, seed=0).source("train").read(0, 1, np.random.default_rng(0))
