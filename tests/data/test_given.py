"""Given videos are found in every form that data may have, and read at the frames that are asked for."""

import numpy as np
import pytest
import torch
from films import film_folders, picture, whole_film, write_film

from tats.data.code_index import Index
from tats.data.code_writer import CodeWriter
from tats.data.given import GivenCodes, GivenFrames, open_given
from tats.flags import UserError
from tats.video import preprocess


def shards(folder, split="test", n_codes=50):
    """Three videos of two classes; of video 1 two windows, of which the later one stands first."""
    clip = {"sequence_length": 8, "sample_every_n_frames": 1, "resolution": 8, "image_channels": 3, "window_stride": 4}
    index = Index(n_codes, (2, 3, 3), "abcdef", clip, ["x", "y"], ["x/0", "x/1", "y/2"])
    writer = CodeWriter(folder / split, index)
    codes = torch.arange(4 * 18).view(4, 2, 3, 3) % n_codes
    writer.add(codes, [0, 1, 1, 2], [0, 4, 0, 0], [0, 0, 0, 1])
    writer.close()
    return codes


def test_videos_are_found_with_classes_lengths_and_rates(tmp_path):
    root = film_folders(tmp_path, {"bikes": 1, "bunny": 2}, n_frames=9, rate=12)
    given = open_given(root, "test")
    assert isinstance(given, GivenFrames)
    assert given.names == ["bikes/0.mp4", "bunny/0.mp4", "bunny/1.mp4"]
    assert given.classes == ["bikes", "bunny", "bunny"] and given.class_names == ["bikes", "bunny"]
    assert given.lengths == [9, 9, 9] and given.rates == [12.0, 12.0, 12.0]
    folder = open_given(root / "test" / "bunny")
    assert folder.names == ["0.mp4", "1.mp4"] and folder.classes == ["bunny", "bunny"]
    one = open_given(root / "test" / "bikes" / "0.mp4")
    assert (one.names, one.classes, one.lengths) == (["0.mp4"], ["bikes"], [9])
    assert folder.class_names == one.class_names == ["bikes", "bunny"]


@pytest.mark.parametrize("frames", [range(2, 6), range(1, 9, 3)])
def test_frames_of_a_video_are_preprocessed_as_clips_of_training_are(tmp_path, frames):
    path = write_film(tmp_path / "x.mp4", n_frames=9)
    expected = preprocess(whole_film(path)[frames.start : frames.stop : frames.step], 16)
    assert torch.equal(open_given(path).video(0, frames, 16, 3), expected)


def test_pictures_in_one_folder_are_one_video_and_folders_of_them_are_many(tmp_path):
    from PIL import Image

    for name in ("red/a", "red/b"):
        (tmp_path / name).mkdir(parents=True)
        for number in (10, 9, 8):
            Image.fromarray(picture(number, 16, 16)).save(tmp_path / name / f"{number}.png")
    given = open_given(tmp_path)
    assert (given.names, given.classes, given.lengths) == (["red/a", "red/b"], ["red", "red"], [3, 3])
    one = open_given(tmp_path / "red" / "a")
    assert (one.classes, one.lengths) == (["red"], [3])
    expected = preprocess(np.stack([picture(9, 16, 16), picture(10, 16, 16)]), 16)  # numbers, not letters, sort them
    assert torch.equal(one.video(0, range(1, 3), 16, 3), expected)
    assert one.video(0, range(0, 3), 8, 1).shape == (1, 3, 8, 8)


def test_hdf5_is_told_apart_by_what_it_holds(tmp_path):
    import h5py

    with h5py.File(tmp_path / "videos.h5", "w") as file:
        file["test_data"] = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
        file["test_idx"] = np.array([0, 4])
    given = open_given(tmp_path / "videos.h5")
    assert isinstance(given, GivenFrames) and given.lengths == [4, 5] and given.classes == [None, None]
    assert ((given.video(1, range(3, 5), 6, 3)[0, :, 0, 0] + 0.5) * 255).round().tolist() == [7, 8]
    with h5py.File(tmp_path / "codes.h5", "w") as file:
        file["test_data"] = np.arange(9)[:, None, None] * np.ones((1, 2, 2), np.int64)
        file["test_idx"] = np.array([0, 4])
        file.attrs["n_codes"] = 37
    given = open_given(tmp_path / "codes.h5")
    assert isinstance(given, GivenCodes) and given.latents == [4, 5] and given.n_codes == 37
    assert given.codes(0, 2)[:, 0, 0].tolist() == [2, 3]
    with pytest.raises(UserError, match="no table train_data"):
        open_given(tmp_path / "videos.h5", "train")


@pytest.mark.parametrize("at", [".", "test"])
def test_of_codes_the_last_window_of_every_video_is_taken(tmp_path, at):
    codes = shards(tmp_path)
    given = open_given(tmp_path / at)
    assert isinstance(given, GivenCodes)
    assert given.names == ["x/0", "x/1", "y/2"] and given.classes == ["x", "x", "y"] and given.latents == [2, 2, 2]
    assert torch.equal(given.codes(1, 2), codes[1]) and torch.equal(given.codes(2, 1), codes[3, 1:])
    assert (given.n_codes, given.side, given.vqgan, given.class_names) == (50, (3, 3), "abcdef", ["x", "y"])


def test_videos_beside_their_sounds_are_found(tmp_path):
    (tmp_path / "stft" / "test").mkdir(parents=True)
    write_film(tmp_path / "video" / "test" / "a.mp4", n_frames=5)
    given = open_given(tmp_path)
    assert (given.names, given.lengths, given.classes) == (["a.mp4"], [5], ["all"])


def test_what_is_not_there_or_not_read_is_named(tmp_path):
    shards(tmp_path / "codes", "train")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    for path, said in {
        "codes": "--observed_split train",
        "empty": "holds no video, no picture and no codes",
        "notes.txt": "neither a video .* nor an HDF5 file",
        "broken.mp4": "broken.mp4: ",
        "nothing.mp4": "no such file or folder",
    }.items():
        with pytest.raises(UserError, match=said):
            open_given(tmp_path / path)


def test_a_folder_of_broken_videos_is_refused(tmp_path):
    write_film(tmp_path / "a.mp4", n_frames=5)
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match=r"1 of 2 files cannot be read.*b\.mp4"):
        open_given(tmp_path)
