"""Folders of pictures: order, kinds of pictures, splits, broken ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from tats.data.config import DataConfig
from tats.data.frames import FrameFolder, read_picture
from tats.data.module import VideoData
from tats.flags import UserError

DRAW = np.random.default_rng(0)


def config_of(root, **settings):
    return DataConfig(**{"data_path": str(root), "image_folder": True, "sequence_length": 3, "resolution": 8,
                         "batch_size": 2, "num_workers": 0, **settings})  # fmt: skip


def film(folder, n_frames=6, name="frame_{}.png", mode="RGB", size=(12, 10)):
    """Pictures whose brightness is ten times their number."""
    folder.mkdir(parents=True)
    for number in range(n_frames):
        Image.new("RGB", size, (number * 10,) * 3).convert(mode).save(folder / name.format(number))
    return folder


def brightness(clip):
    return ((clip["video"][0, :, 4, 4] + 0.5) * 255).round().int().tolist()


def test_numbers_sort_as_numbers_and_the_last_window_is_used(tmp_path):
    film(tmp_path / "train" / "v", 12)
    source = FrameFolder(config_of(tmp_path), "train")
    assert source.starts.tolist() == [10]
    assert brightness(source.read(0, 9, DRAW)) == [90, 100, 110]


def test_a_clip_spans_more_pictures_with_a_stride_and_keeps_its_length(tmp_path, capsys):
    film(tmp_path / "train" / "v", 10, "{}.jpg")
    data = VideoData(config_of(tmp_path, sample_every_n_frames=4), seed=0)
    source = data.source("train")
    assert source.starts.tolist() == [2]  # 0, 4, 8 and 1, 5, 9
    assert np.allclose(brightness(source.read(0, 1, DRAW)), [10, 50, 90], atol=2)
    assert "clips of 3 frames, one frame in 4 of a window of 9 frames" in capsys.readouterr().err


@pytest.mark.parametrize("mode, ending", [("L", "png"), ("RGBA", "png"), ("P", "png"), ("LA", "png"), ("I;16", "png"), ("1", "png"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "webp")])  # fmt: skip  # noqa: E501
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, ending):
    path = tmp_path / f"0.{ending}"
    if mode == "I;16":
        Image.fromarray(np.full((6, 6), 200 * 257, np.uint16)).save(path)
    else:
        Image.new("RGB", (6, 6), (255, 255, 255) if mode in "1P" else (200, 200, 200)).convert(mode).save(path)
    pixels = np.asarray(read_picture(path))
    assert pixels.shape == (6, 6, 3)
    assert np.abs(pixels.astype(int) - (255 if mode in "1P" else 200)).max() <= 3


def test_train_and_test_folders_are_the_splits(tmp_path):
    film(tmp_path / "train" / "a" / "one"), film(tmp_path / "train" / "two"), film(tmp_path / "test" / "three")
    data = VideoData(config_of(tmp_path), seed=0)
    assert data.source("train").names == ["a/one", "two"] and data.source("test").names == ["three"]
    assert data.n_classes == 0 and next(iter(data.train_loader()))["label"].tolist() == [0, 0]
    with pytest.raises(UserError, match="has no classes"):
        data.need_classes()


def test_without_them_the_split_is_drawn_by_its_own_seed(tmp_path):
    for number in range(20):
        film(tmp_path / f"v{number:02d}", 3)

    def split(**settings):
        config = config_of(tmp_path, test_share=0.25, **settings)
        return [FrameFolder(config, name).names for name in ("train", "test")]

    train, test = split()
    assert len(train) == 15 and len(test) == 5 and not set(train) & set(test)
    assert split() == [train, test]
    assert split(split_seed=1) != [train, test]
    with pytest.raises(UserError, match="cannot be split, with --test_share 0"):
        FrameFolder(config_of(tmp_path, test_share=0.0), "test")


def test_folders_too_short_are_left_out_and_named(tmp_path, capsys):
    film(tmp_path / "train" / "long"), film(tmp_path / "train" / "short", 2)
    assert FrameFolder(config_of(tmp_path), "train").names == ["long"]
    assert "left out 1 of 2 videos shorter than 3 frames: short" in capsys.readouterr().err


def test_broken_pictures_stop_or_are_left_out_with_their_names(tmp_path, capsys):
    for number in range(100):
        film(tmp_path / "train" / f"v{number:03d}", 3, size=(4, 4))
    (tmp_path / "train" / "v007" / "frame_2.png").write_bytes(b"no picture")
    assert len(FrameFolder(config_of(tmp_path), "train").names) == 99
    assert "left out 1 of 100 folders that cannot be read: v007: " in capsys.readouterr().err
    (tmp_path / "train" / "v008" / "thumbnail.png").write_bytes(b"no picture")
    with pytest.raises(
        UserError, match=r"2 of 100 .* v008: pictures are sorted by the number .* thumbnail\.png has none"
    ):
        FrameFolder(config_of(tmp_path), "train")


def test_a_picture_that_breaks_in_the_middle_is_named_when_it_is_read(tmp_path):
    film(tmp_path / "train" / "v", 5)
    path = tmp_path / "train" / "v" / "frame_2.png"
    path.write_bytes(path.read_bytes()[:40])
    data = VideoData(config_of(tmp_path), seed=0)
    with pytest.raises(UserError, match=r"frame_2\.png"):
        list(data.train_loader())
    with pytest.raises(UserError, match="1 of 1 folders cannot be read"):
        FrameFolder(config_of(tmp_path, check_videos="all"), "train")


def test_missing_folders_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="holds no folder of pictures"):
        FrameFolder(config_of(tmp_path), "train")
    film(tmp_path / "train" / "v")
    with pytest.raises(UserError, match="has no folder test/"):
        FrameFolder(config_of(tmp_path), "test")


def test_one_channel_of_pictures_is_brightness(tmp_path):
    film(tmp_path / "train" / "v", 3, mode="L")
    clip = FrameFolder(config_of(tmp_path, image_channels=1), "train").read(0, 0, DRAW)
    assert clip["video"].shape == (1, 3, 8, 8) and isinstance(clip["video"], torch.Tensor)
