"""Frame folders, HDF5, STFT windows against the published readers' own numbers."""

import numpy as np
import pytest
from PIL import Image
from reference_cases import Case

from tats.data.codes import CodeFile
from tats.data.config import DataConfig
from tats.data.frames import FrameFolder, load_pictures
from tats.data.hdf5 import VideoFile
from tats.data.sound import read_stft, sound_pictures
from tats.video import preprocess

CASE = Case("data")
CFG = CASE.json("cfg.json")


def picture_folders(root, name):
    """The folders of one sub-case, as PNG files."""
    settings = CFG["frames"][name]
    for i in range(settings["n_videos"]):
        folder = root / "train" / f"v{i}"
        folder.mkdir(parents=True)
        for k, frame in enumerate(CASE.inputs[f"frames_{name}_{i}"]):
            Image.fromarray(frame).save(folder / (settings["pattern"] % k))
    return settings


@pytest.mark.parametrize("name", ["wide", "tall"])
def test_frame_folders_equal_the_published_ones(name, tmp_path, capsys):
    settings = picture_folders(tmp_path, name)
    every, length = settings["every"], settings["sequence_length"]
    config = DataConfig(data_path=str(tmp_path), image_folder=True, sequence_length=length,
                        resolution=settings["resolution"], sample_every_n_frames=every)  # fmt: skip
    source = FrameFolder(config, "train")
    longer = [i for i in range(settings["n_videos"]) if len(CASE.inputs[f"frames_{name}_{i}"]) > length * every]
    CASE.check(f"frames/{name}/kept_videos_sorted", np.array(longer))  # the published reader wants one picture more
    for number, video in enumerate(longer):
        at = source.names.index(f"v{video}")
        clip = source.read(at, settings["start"][number], np.random.default_rng(0))
        CASE.check(f"frames/{name}/video{number}", clip["video"])
        low, high = CASE.outputs[f"frames/{name}/randint_range{number}"].tolist()
        pictures = len(source.pictures[at])
        CASE.check_fact(f"frames/{name}/randint_range{number}", [0, pictures - 1 - length * every], [low, high])
        assert source.starts[at] == pictures - (length - 1) * every > high + 1  # the published range misses the end


def test_a_folder_read_whole_equals_the_published_one(tmp_path):
    settings = picture_folders(tmp_path, "whole")
    CASE.check("frames/whole/kept_videos_sorted", np.arange(settings["n_videos"]))
    files = [tmp_path / "train" / "v0" / (settings["pattern"] % k) for k in range(len(CASE.inputs["frames_whole_0"]))]
    CASE.check("frames/whole/video0", load_pictures(files, settings["resolution"]))


def h5_config(settings, **more):
    wanted = {key: value for key, value in settings["kw"].items() if key != "train"}
    return DataConfig(data_path=str(CASE.path / settings["file"]), **wanted, **more)


@pytest.mark.parametrize("name", [name for name, of in CFG["hdf5"].items() if of["cls"] == "video"])
def test_hdf5_videos_equal_the_published_ones(name):
    settings = CFG["hdf5"][name]
    split = "train" if settings["kw"]["train"] else "test"
    source = VideoFile(h5_config(settings), split)
    dropped = name == "test_nosentinel"  # the published reader loses the last video of a file without end mark
    CASE.check_fact(f"hdf5/{name}/len", len(source.table.first) - dropped, int(CASE.outputs[f"hdf5/{name}/len"]))
    for item, (start,) in settings["items"]:
        video = int(np.flatnonzero(source.videos == item)[0])
        CASE.check(f"hdf5/{name}/item{item}", source.read(video, start, np.random.default_rng(0))["video"])
        published = CASE.outputs[f"hdf5/{name}/randint_ranges{item}"].tolist()
        if not dropped:
            CASE.check_fact(f"hdf5/{name}/randint_ranges{item}", [[0, int(source.starts[video]) - 1]], published)


@pytest.mark.parametrize("name", [name for name, of in CFG["hdf5"].items() if of["cls"] == "vtokens"])
def test_hdf5_codes_equal_the_published_ones(name):
    settings = CFG["hdf5"][name]
    source = CodeFile(h5_config(settings, vtokens=True), "train")
    CASE.check_fact(f"hdf5/{name}/len", len(source.table.first), int(CASE.outputs[f"hdf5/{name}/len"]))
    for item, drawn in settings["items"]:
        video = int(np.flatnonzero(source.videos == item)[0])
        start, y, x = [*drawn, 0, 0][:3]
        clip = source.crop(video, start, y, x)
        CASE.check(f"hdf5/{name}/item{item}", clip["video"])
        rooms = [side - source.side for side in source.table.shape[1:]]
        ranges = [[0, int(source.starts[video]) - 1], *([0, room + 1] for room in rooms if room)]
        published = CASE.outputs[f"hdf5/{name}/randint_ranges{item}"].tolist()
        CASE.check_fact(f"hdf5/{name}/randint_ranges{item}", ranges, published)
        if any(rooms):
            CASE.check(f"hdf5/{name}/cbox{item}", clip["cbox"])
        else:
            reason = "without a crop: the box of the whole picture instead of the number 0"
            CASE.check(f"hdf5/{name}/cbox{item}", np.int64(0), leave_out=True, reason=reason)
            assert clip["cbox"].tolist() == [0, source.side, 0, source.side]


def test_sound_windows_equal_the_published_ones(tmp_path):
    settings = CFG["stft"]
    length, total = settings["sequence_length"], len(CASE.inputs["stft_u8"])
    start = int(settings["random"] * (total - length + 1))
    np.save(tmp_path / "sound.npy", CASE.inputs["stft_u8"] / 255)
    CASE.check("stft/stft", sound_pictures(read_stft(tmp_path / "sound.npy"), start, length))
    frames = CASE.inputs["stft_video_u8"][start : start + length]
    CASE.check("stft/video", preprocess(frames, settings["resolution"], length, settings["every"]))
