"""Pictures in zip files: one per split, several partitions, classes, and what is refused."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tats.data.config import DataConfig
from tats.data.frames import FrameFolder, picture_videos
from tats.data.module import VideoData
from tats.flags import UserError
from tats.metrics.protocols import find
from tats.metrics.sides import FileClips

DRAW = np.random.default_rng(0)


def picture(level, size=(12, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path, videos, n_frames=6, extra=None, name="{:06d}.png"):
    """A zip file of pictures whose brightness is ten times their number plus the number of their video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, video in enumerate(videos):
            for frame in range(n_frames):
                archive.writestr(f"{video}/{name.format(frame)}", picture(10 * frame + number))
        for file, content in (extra or {}).items():
            archive.writestr(file, content)
    return path


def config_of(path, **settings):
    return DataConfig(**{"data_path": str(path), "sequence_length": 3, "resolution": 8, "batch_size": 2,
                         "num_workers": 0, **settings})  # fmt: skip


def levels(clip):
    return ((clip["video"][0, :, 4, 4] + 0.5) * 255).round().int().tolist()


def test_a_zip_file_per_split_is_found_without_a_flag(tmp_path):
    labels = {"labels": [["a/000000.png", 1], ["b/000000.png", 0]], "label_names": ["cat", "dog"]}
    for split in ("train", "test"):
        extra = {f"{split}/": "", f"{split}/dataset.json": json.dumps(labels)}
        write_zip(tmp_path / f"{split}.zip", [f"{split}/a", f"{split}/b"], extra=extra)
    data = VideoData(config_of(tmp_path), seed=0)
    source = data.source("train")
    assert data.label_names == ["cat", "dog"] and source.labels.tolist() == [1, 0]
    assert levels(source.read(1, 2, DRAW)) == [21, 31, 41]
    assert len(data.source("test").names) == 2


def test_a_clip_of_a_zip_file_is_cut_as_that_of_a_video_unless_image_folder_is_given(tmp_path):
    path = write_zip(tmp_path / "train.zip", ["v"])
    write_zip(tmp_path / "test.zip", ["v"])
    as_video = FrameFolder(config_of(path.parent, sequence_length=6, sample_every_n_frames=2), "train")
    as_pictures = FrameFolder(config_of(path.parent, sample_every_n_frames=2, image_folder=True), "train")
    assert as_video.starts.tolist() == [1] and levels(as_video.read(0, 0, DRAW)) == [0, 20, 40]
    assert as_pictures.starts.tolist() == [2] and levels(as_pictures.read(0, 1, DRAW)) == [10, 30, 50]


def test_partitions_are_one_data_set_whatever_their_size_is_called(tmp_path):
    for split, videos in (("train", ["a/x", "a/y", "b/x"]), ("test", ["b/y"])):
        for number, video in enumerate(videos):
            listed = {"frame_paths.json": json.dumps({video: [f"frame_{frame:06d}.png" for frame in range(6)]})}
            path = tmp_path / split / "0010x0010" / f"partition_{number:04d}.zip"
            write_zip(path, [video, "left_over"], extra=listed, name="frame_{:06d}.png")
    data = VideoData(config_of(tmp_path), seed=0)
    assert data.source("train").names == ["a/x", "a/y", "b/x"]  # what the lists leave out is left out
    seen = {index for batch in data.train_loader() for index in batch["index"].tolist()}
    assert seen == {0, 1, 2}


def test_equal_names_in_two_partitions_are_two_videos(tmp_path):
    for number in range(2):
        write_zip(tmp_path / f"partition_{number:04d}.zip", ["v", f"w{number}"])
    names = [FrameFolder(config_of(tmp_path, test_share=0.5), split).names for split in ("train", "test")]
    expected = {"partition_0000/v", "partition_0000/w0", "partition_0001/v", "partition_0001/w1"}
    assert set(names[0]) | set(names[1]) == expected and not set(names[0]) & set(names[1])


def test_of_several_sizes_the_resolution_chooses(tmp_path):
    for size in (10, 20):
        write_zip(tmp_path / "train" / f"{size:04d}x{size:04d}" / "partition_0000.zip", [f"v{size}"])
    assert FrameFolder(config_of(tmp_path, resolution=20), "train").names == ["v20"]
    with pytest.raises(UserError, match="0010x0010, 0020x0020: name one of these heights with --resolution"):
        FrameFolder(config_of(tmp_path, resolution=15), "train")


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"frame_paths.json": '{"v": ["frame_000099.png"]}'}, "lists v/frame_000099.png, which is not there"),
        ({"frame_paths.json": "[1]"}, "is not of the form"),
        ({"dataset.json": '{"labels": 3}'}, "not of the form"),
        ({"dataset.json": '{"labels": [["w/000000.png", 0]]}'}, "lists no class for v"),
        ({"dataset.json": '{"labels": [["v/000000.png", 5]], "label_names": ["a"]}'}, "class ids from 5 to 5"),
        ({"../v/000000.png": b""}, "leads out of the folder"),
    ],
)
def test_lists_that_contradict_the_pictures_are_refused(tmp_path, extra, message):
    write_zip(tmp_path / "train.zip", ["v"], extra=extra)
    with pytest.raises(UserError, match=message):
        FrameFolder(config_of(tmp_path), "train")


def test_a_damaged_picture_is_named_with_its_file(tmp_path):
    path = write_zip(tmp_path / "train.zip", ["v"])
    content = bytearray(path.read_bytes())
    at = content.index(b"v/000003.png") + 40  # inside the picture: its checksum no longer fits
    content[at : at + 4] = b"xxxx"
    path.write_bytes(content)
    source = FrameFolder(config_of(tmp_path), "train")
    with pytest.raises(UserError, match=r"train\.zip: v/000003\.png"):
        source.read(0, 1, DRAW)


def test_a_source_travels_to_a_worker(tmp_path):
    source = FrameFolder(config_of(write_zip(tmp_path / "train.zip", ["v"]).parent), "train")
    before = source.read(0, 1, DRAW)["video"]
    assert torch.equal(pickle.loads(pickle.dumps(source)).read(0, 1, DRAW)["video"], before)


def test_clips_to_be_judged_may_lie_as_pictures(tmp_path):
    folder = tmp_path / "made"
    for video in ("0", "1"):
        (folder / video).mkdir(parents=True)
        for frame in range(6):
            (folder / video / f"{frame:05d}.png").write_bytes(picture(10 * frame + int(video)))
    (folder / "grid_0.png").write_bytes(picture(3))
    packed = write_zip(tmp_path / "made.zip", ["0", "1"])
    protocol = find("tats")
    for path in (folder, packed, packed.parent / "made"):
        clips = FileClips(path, protocol)
        assert len(clips) == 2 and clips.pixels == "pictures"
        assert clips._whole(1)[:, 0, 0, 0].tolist() == [1, 11, 21, 31, 41, 51]
    assert picture_videos(tmp_path / "nothing") == []
