"""Files of videos, written piece by piece."""

import numpy as np
import pytest
import torch

from tats.codes_file import Video
from tats.films import ArrayFile, Films
from tats.flags import UserError
from tats.gpt.sample_config import OutputConfig
from tats.media import VideoWriter, read_frames
from tats.video import from_frames, to_frames

VIDEOS = [Video(0, 7, 0, "a red/circle"), Video(1, 8, 1, "b.c"), Video(2, 9)]


def config(tmp_path, **more):
    return OutputConfig(save=str(tmp_path / "out"), dataset="shapes", **more)


def video(n=3, frames=6, size=16):
    """Videos float [n, 3, T, H, W] of large patches."""
    patches = np.random.default_rng(0).integers(0, 256, (n, frames, 2, 2, 3), np.uint8)
    return from_frames(torch.from_numpy(patches.repeat(size // 2, 2).repeat(size // 2, 3)))


def pieces(whole, n=4):
    return (whole[:, :, start : start + n] for start in range(0, whole.shape[2], n))


def test_every_kind_of_file_shows_the_same_frames(tmp_path):
    films = Films(config(tmp_path, save_as=["mp4", "gif", "frames", "gif"], save_arrays=True), "run", VIDEOS, 6)
    assert films.lacking(VIDEOS) == VIDEOS
    films.write(VIDEOS, pieces(video()))
    expected = to_frames(video()).numpy()
    for n, each in enumerate(VIDEOS):
        for kind, allowed in (("frames", 0), ("gif", 0), ("mp4", 40)):
            assert np.abs(read_frames(films.path(each, kind)).astype(int) - expected[n]).max() <= allowed
    assert np.array_equal(np.load(films.finish()), expected)
    assert films.lacking(VIDEOS) == []
    assert films.entry(VIDEOS[0]) == "videos/shapes/run/generation_a red_circle_0.mp4"
    assert sorted(path.name for path in films.folder.iterdir()) == [
        "generation_2", "generation_2.gif", "generation_2.mp4",
        "generation_a red_circle_0", "generation_a red_circle_0.gif", "generation_a red_circle_0.mp4",
        "generation_b.c_1.gif", "generation_b.c_1.mp4", "generation_b_c_1", "grid_00000.mp4",
    ]  # fmt: skip


def test_only_what_is_lacking_is_written(tmp_path):
    films = Films(config(tmp_path), "run", VIDEOS, 6)
    films.write(VIDEOS[:1], pieces(video(1)))
    stamp = films.path(VIDEOS[0], "mp4").stat().st_mtime_ns
    assert films.lacking(VIDEOS) == VIDEOS[1:]
    films.write(VIDEOS, pieces(video()))
    assert films.path(VIDEOS[0], "mp4").stat().st_mtime_ns == stamp and films.lacking(VIDEOS) == []


def test_half_written_files_of_a_killed_run_go_away(tmp_path):
    films = Films(config(tmp_path, save_as=["mp4", "frames"]), "run", VIDEOS, 6)
    for kind in films.kinds:
        writer = VideoWriter(films.path(VIDEOS[0], kind), 16)  # never closed, as after a kill
        writer.write(video(1)[0])
    assert len(list(films.folder.iterdir())) == 2
    films.write(VIDEOS[:1], pieces(video(1)))
    assert sorted(path.name for path in films.folder.iterdir()) == [
        "generation_a red_circle_0", "generation_a red_circle_0.mp4",
    ]  # fmt: skip


def test_files_for_people_are_marked_and_arrays_are_not(tmp_path):
    seen = []

    def mark(frames, first):
        seen.append((first, frames.shape[1]))
        return torch.zeros_like(frames)

    films = Films(config(tmp_path, save_as=["frames"], save_arrays=True), "run", VIDEOS, 6, mark=mark)
    films.write(VIDEOS, pieces(video()))
    assert seen == [(0, 4), (4, 2)] and not read_frames(films.path(VIDEOS[1], "frames")).any()
    assert np.array_equal(np.load(films.finish()), to_frames(video()).numpy())


@pytest.mark.parametrize(
    "given, otherwise, kinds",
    [
        ({}, False, ["mp4"]),
        ({}, True, []),
        ({"save_arrays": True}, False, []),
        ({"save_arrays": True, "save_videos": True}, False, ["mp4"]),
        ({"save_arrays": True, "save_as": ["gif"]}, True, ["gif"]),
    ],
)
def test_files_are_written_when_asked_for_or_when_nothing_else_is(tmp_path, given, otherwise, kinds):
    assert Films(config(tmp_path, **given), "run", VIDEOS, 6, otherwise=otherwise).kinds == kinds


def test_an_array_is_written_in_any_order_and_is_whole_or_not_there(tmp_path):
    array = ArrayFile(tmp_path / "a.npy", 2, 5)
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 4, 3), np.uint8)
    array.write(1, 3, frames[1, 3:])
    array.write(0, 0, frames[0])
    with pytest.raises(ValueError, match="2 rows"):
        array.finish()
    array.write(1, 0, frames[1, :3])
    array.missing.clear()
    assert not (tmp_path / "a.npy").exists()
    assert np.array_equal(np.load(array.finish()), frames)
    assert ArrayFile(tmp_path / "a.npy", 2, 5).missing == set()
    assert ArrayFile(tmp_path / "a.npy", 3, 5).missing == {0, 1, 2}


def test_an_unknown_kind_is_refused():
    from tats import flags
    from tats.gpt.sample_config import LongConfig

    with pytest.raises(UserError, match="takes one of mp4, gif, frames; got 'avi'"):
        flags.parse(LongConfig, ["--save_as", "avi"])
