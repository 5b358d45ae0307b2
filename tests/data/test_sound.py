"""Videos with their sound: windows, pairs of files, and pickles that would run code."""

import pickle

import numpy as np
import pytest
import torch
from films import write_film

from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.sound import SoundVideos, read_stft
from tats.flags import UserError
from tats.reader import ReadError
from tats.video import preprocess

DRAW = np.random.default_rng(0)


class Trap:
    """A pickle that would make a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def root(tmp_path):
    """Two drums in train/ (20 frames, one with 12 pictures of sound), one in test/."""
    for split, name, pictures in (("train", "a", 20), ("train", "b", 12), ("test", "c", 20)):
        write_film(tmp_path / "video" / split / f"{name}.mp4", "mpeg4", 20)
        (tmp_path / "stft" / split).mkdir(parents=True, exist_ok=True)
        sound = np.linspace(0, 1, pictures)[:, None, None] * np.ones((1, 20, 10))
        (tmp_path / "stft" / split / f"{name}.pickle").write_bytes(pickle.dumps(sound))
    return tmp_path


def config_of(root, **settings):
    return DataConfig(**{"data_path": str(root), "stft_data": True, "sequence_length": 6, "resolution": 8,
                         "batch_size": 2, "num_workers": 0, **settings})  # fmt: skip


def test_sound_and_video_are_of_the_same_window(root):
    source = SoundVideos(config_of(root, sample_every_n_frames=2), "train")
    assert source.names == ["a.mp4", "b.mp4"] and source.starts.tolist() == [15, 7]
    clip = source.read(0, 14, DRAW)
    assert clip["stft"].shape == (1, 6, 64, 16) and clip["video"].shape == (3, 3, 8, 8)
    assert torch.allclose(clip["stft"][0, :, 0, 0], torch.linspace(-1, 1, 20)[14:], atol=1e-6)
    assert clip["path"].endswith("video/train/a.mp4")


@pytest.mark.parametrize("below", ["", "stft"])
def test_batches_hold_video_and_sound(root, below):
    batch = next(iter(VideoData(config_of(root / below), seed=0).train_loader()))
    assert batch["video"].shape == (2, 3, 6, 8, 8) and batch["stft"].shape == (2, 1, 6, 64, 16)
    assert len(batch["path"]) == 2 and -1 <= batch["stft"].min() <= batch["stft"].max() <= 1


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_arrays_are_read_from_pickles_of_every_age(tmp_path, protocol, dtype):
    array = (np.arange(24).reshape(2, 3, 4) / 2).astype(dtype)
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(array, protocol))
    assert np.array_equal(read_stft(path), array) and read_stft(path).dtype == dtype
    old = pickle.dumps(array, 0).replace(b"numpy._core", b"numpy.core")  # as numpy 1 wrote it
    path.write_bytes(old)
    assert np.array_equal(read_stft(path), array)


def test_nothing_in_a_pickle_is_run(tmp_path):
    path, made = tmp_path / "a.pickle", tmp_path / "made"
    for content in (Trap(made), [np.zeros((2, 2, 2)), Trap(made)], np.array([[[Trap(made)]]], object)):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ReadError, match=r"a\.pickle: holds .*open; only plain arrays"):
            read_stft(path)
        assert not made.exists()


@pytest.mark.parametrize("content, words", [
    (np.zeros((3, 4)), r"this is float64 \[3, 4\]"),
    ({"stft": 1}, "is an array"),
    (np.zeros((1, 1, 1), object), "this is object"),
])  # fmt: skip
def test_other_content_is_named(tmp_path, content, words):
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ReadError, match=words):
        read_stft(path)


def test_broken_sounds_and_lone_ones_are_named(root, capsys):
    with pytest.raises(UserError, match=r"no folder .*video.*other"):
        SoundVideos(config_of(root), "other")
    short = SoundVideos(config_of(root, sequence_length=15), "train")
    assert short.names == ["a.mp4"] and "shorter than 15 frames: b.pickle" in capsys.readouterr().err
    (root / "stft" / "train" / "b.pickle").write_bytes(b"\x80\x04broken")
    with pytest.raises(UserError, match=r"1 of 2 files cannot be read.*b\.pickle"):
        SoundVideos(config_of(root), "train")
    (root / "stft" / "train" / "d.pickle").write_bytes(pickle.dumps(np.zeros((20, 4, 4))))
    with pytest.raises(UserError, match=r"no video for 1 of 3 sounds: d\.pickle"):
        SoundVideos(config_of(root), "train")


def test_the_video_is_preprocessed_as_any_other(root):
    source = SoundVideos(config_of(root), "test")
    from tats.reader import read_clip, scan

    path = root / "video" / "test" / "c.mp4"
    frames = read_clip(path, scan(path), 3, 6)
    assert torch.equal(source.read(0, 3, DRAW)["video"], preprocess(frames, 8))
