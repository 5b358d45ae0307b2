"""What --continue_from accepts, what it refuses, and that it never looks at what lies behind the given frames."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from films import film_folders, write_film
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.continuation import open_continuation
from tats.data.code_index import Index
from tats.data.code_writer import CodeWriter
from tats.flags import UserError
from tats.gpt.continue_config import ContinueConfig
from tats.media import read_frames, write_video
from tats.video import from_frames, mark_given
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN


def tiny_vqgan(norm="batch", every=1, time=2):
    torch.manual_seed(0)
    config = VQGANConfig(
        n_codes=37,
        embedding_dim=4,
        n_hiddens=16 if norm == "group" else 4,
        downsample=(time, 4, 4),
        norm_type=norm,
        resolution=8,
        sequence_length=10,
        sample_every_n_frames=every,
    )
    vqgan = VQGAN(config).eval()
    with torch.no_grad():  # codes among the vectors that noise becomes, so that every change of a frame is seen
        z = vqgan.features(torch.rand(8, 3, 10, 8, 8) - 0.5).movedim(1, -1).flatten(0, -2)  # [n, 4]
        vqgan.codebook.embeddings.copy_(z[:37])
    return vqgan


def noise_film(path, n_frames=12, seed=0, side=8, fps=16.0):
    """A video of noise in pictures of one size, lossless enough for frames to stay what they are."""
    frames = np.random.default_rng(seed).integers(0, 256, (n_frames, side, side, 3)).astype(np.uint8)
    write_video(path, frames, fps, pix_fmt="yuv444p", crf=0)
    return frames


def opened(path, n, *, start=None, total=5, labels=None, fps=16.0, vqgan=None, gpt=None, **more):
    config = ContinueConfig(str(path), n, start, **more)
    gpt = gpt or tiny_gpt().config
    return open_continuation(config, gpt, vqgan or tiny_vqgan(), 2, total, labels, fps)


def test_without_the_flag_there_is_nothing_to_go_on_from():
    assert open_continuation(ContinueConfig(), tiny_gpt().config, tiny_vqgan(), 2, 5, None, 16.0) is None


@pytest.mark.parametrize(
    "values, said",
    [
        ({"observed_frames": 4}, "name it with --continue_from"),
        ({"continue_from": "x"}, "needs --observed_frames"),
        ({"continue_from": "x", "observed_frames": 0}, "1 or more, got 0"),
        ({"continue_from": "x", "observed_frames": 4, "observed_start": -1}, "from 0, got -1"),
        ({"continue_from": "x", "observed_frames": 4, "continuations": 0}, "1 or more, got 0"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        ContinueConfig(**values)


@pytest.mark.parametrize(
    "n, start, said",
    [
        (1, None, "Nearest: 2$"),
        (5, None, "one of 2 frames. Nearest: 4 or 6$"),
        (10, None, "fill 5 latent frames, and the videos have 5 altogether.*at most 8 frames"),
        (8, None, r"x\.mp4 has 7 frames\. Take at most 6"),
        (4, 5, r"x\.mp4 has 7 frames, 2 of them from --observed_start 5 on\. Take at most 2"),
        (4, 6, "1 of them .* too short for a latent frame, which takes 2"),
        (4, 9, "0 of them"),
    ],
)
def test_frames_that_do_not_fit_are_refused_with_the_nearest_numbers(tmp_path, n, start, said):
    noise_film(tmp_path / "x.mp4", 7)
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "x.mp4", n, start=start, labels=["1"])


def test_the_last_frames_are_given_or_those_that_are_asked_for(tmp_path, capsys):
    frames = noise_film(tmp_path / "x.mp4")
    vqgan = tiny_vqgan()
    stored = torch.from_numpy(read_frames(tmp_path / "x.mp4"))
    assert stored.shape == frames.shape
    for start, first in ((None, 8), (0, 0), (3, 3)):
        made = opened(tmp_path / "x.mp4", 4, start=start, labels=["2"], vqgan=vqgan)
        video = made.videos(9, 5)[0]
        with torch.inference_mode():
            expected = vqgan.encode(from_frames(stored[first : first + 4])[None])
        assert torch.equal(made.known([video]), expected) and made.frames == 4 and made.latents == 2
        assert made.entry(video) == {"name": "x.mp4", "first": first, "last": first + 3, "unit": "frame"}
        assert (video.index, video.seed, video.label) == (0, 5, 2)
    assert "going on from x.mp4 4 frames (2 latent, frames 3 to 6)" in capsys.readouterr().err


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_what_lies_behind_the_given_frames_changes_nothing(tmp_path, norm):
    frames = noise_film(tmp_path / "a.mkv")
    other = frames.copy()
    other[6:] = 255 - other[6:]
    write_video(tmp_path / "b.mkv", other, 16.0, pix_fmt="yuv444p", crf=0, options={"g": "1"})
    write_video(tmp_path / "a.mkv", frames, 16.0, pix_fmt="yuv444p", crf=0, options={"g": "1"})
    a, b = (torch.from_numpy(read_frames(tmp_path / name)) for name in ("a.mkv", "b.mkv"))
    assert torch.equal(a[:6], b[:6]) and not torch.equal(a[6], b[6])
    vqgan = tiny_vqgan(norm)
    codes = []
    for name in ("a.mkv", "b.mkv"):
        made = opened(tmp_path / name, 6, start=0, labels=["0"], vqgan=vqgan)
        codes.append(made.known(made.videos(1, 0)))
    assert torch.equal(codes[0], codes[1])
    with torch.inference_mode():  # codes cut out of the whole clip would have told
        whole = [vqgan.encode(from_frames(frames)[None])[:, :3] for frames in (a, b)]
    assert not torch.equal(whole[0], whole[1])


def test_every_n_th_frame_counts_where_the_vqgan_was_trained_so(tmp_path, capsys):
    noise_film(tmp_path / "x.mp4", 12)
    vqgan = tiny_vqgan(every=3)
    made = opened(tmp_path / "x.mp4", 4, labels=["0"], vqgan=vqgan)
    assert made.windows == [range(2, 12, 3)]
    assert "--fps 5.33" in capsys.readouterr().err  # 16 frames per second, one in three
    with pytest.raises(UserError, match=r"x\.mp4 has 12 frames, of which one in 3 counts\. Take at most 4"):
        opened(tmp_path / "x.mp4", 6, labels=["0"], vqgan=vqgan)


def test_folders_are_continued_video_by_video_with_their_classes_by_turns(tmp_path, capsys):
    root = film_folders(tmp_path, {"a": 2, "b": 1, "c": 2}, n_frames=6, size=(8, 8))
    write_film(root / "test" / "b" / "short.mp4", n_frames=3, size=(8, 8))
    made = opened(root, 4, fps=25.0, continuations=2)
    videos = made.videos(8, 100)
    assert [made.entry(v)["name"] for v in videos[:5]] == ["a/0.mp4", "b/0.mp4", "c/0.mp4", "a/1.mp4", "c/1.mp4"]
    assert [v.label for v in videos] == [0, 1, 2, 0, 2, 0, 1, 2] and videos[7].seed == 107
    assert len(made.videos(100, 0)) == 10
    assert torch.equal(made.known(videos[:1]), made.known(videos[5:6]))
    said = capsys.readouterr().err
    assert "1 of 6 videos are too short to be continued: b/short.mp4" in said
    assert "5 videos, of each 4 frames (2 latent, frames 2 to 5)" in said


def test_a_class_that_cannot_be_told_is_asked_for(tmp_path):
    root = film_folders(tmp_path, {"a": 1, "zebra": 1}, n_frames=6, size=(8, 8))
    with pytest.raises(
        UserError, match=r"lies in a folder 'a'.*stores no names of its classes\. Say its class with --label"
    ):
        opened(root, 4)  # the transformer knows three classes without names, the folder has two
    assert opened(root, 4, labels=["2"]).labels == [2, 2]
    with pytest.raises(UserError, match="one class for all given videos, got 2"):
        opened(root, 4, labels=["1", "2"])
    with pytest.raises(UserError, match="classes 0 to 2"):
        opened(root, 4, labels=["7"])
    assert opened(root, 4, gpt=tiny_gpt(key="none").config).labels == [None, None]


def test_other_rates_get_a_line(tmp_path, capsys):
    noise_film(tmp_path / "a.mp4", fps=16)
    opened(tmp_path / "a.mp4", 4, labels=["0"], fps=16.0)
    assert "frames per second" not in capsys.readouterr().err
    opened(tmp_path / "a.mp4", 4, labels=["0"], fps=8.0)
    assert "16 frames per second, they are written with 8 (--fps) and play 0.5 times as fast" in capsys.readouterr().err
    noise_film(tmp_path / "b.mp4", fps=8)
    opened(tmp_path, 4, labels=["0"], fps=16.0)
    assert "8 to 16 frames per second, all are written with 16" in capsys.readouterr().err


def codes_folder(folder, vqgan, n_codes=37, side=2):
    clip = {"sequence_length": 6, "sample_every_n_frames": 1, "resolution": 8, "image_channels": 3, "window_stride": 6}
    index = Index(n_codes, (3, side, side), checkpoint.fingerprint(vqgan), clip, ["a", "b", "c"], ["a/0", "b/1"])
    writer = CodeWriter(folder / "test", index)
    codes = torch.arange(2 * 3 * side**2).view(2, 3, side, side) % n_codes
    writer.add(codes, [0, 1], [0, 0], [0, 1])
    writer.close()
    return codes


def test_codes_are_taken_from_the_end_of_their_clips(tmp_path):
    vqgan = tiny_vqgan()
    codes = codes_folder(tmp_path, vqgan)
    gpt = tiny_gpt().config
    made = opened(tmp_path, 4, vqgan=vqgan, labels=["0"])
    assert torch.equal(made.known(made.videos(2, 0)), codes[:, 1:])
    assert made.entry(made.videos(2, 0)[1]) == {"name": "b/1", "first": 1, "last": 2, "unit": "latent frame"}
    for start, n, said in (
        (0, 4, "only the last frames can be given"),
        (None, 8, "at most 3 latent frames.*at most 6"),
    ):
        with pytest.raises(UserError, match=said):
            opened(tmp_path, n, start=start, vqgan=vqgan, gpt=gpt)
    other = tiny_vqgan()
    with torch.no_grad():
        other.codebook.embeddings.add_(1)
    with pytest.raises(UserError, match="codes of another VQGAN"):
        opened(tmp_path, 4, vqgan=other)
    codes_folder(tmp_path / "large", vqgan, side=3)
    with pytest.raises(UserError, match="37 codes in pictures of 3x3; 37 codes in pictures of 2x2 are needed"):
        opened(tmp_path / "large", 4, vqgan=vqgan)


def test_settings_of_a_run_change_with_what_is_given(tmp_path):
    noise_film(tmp_path / "x.mp4")
    asked = [
        opened(tmp_path / "x.mp4", n, start=start, labels=["0"]).settings for n, start in ((4, None), (4, 0), (6, None))
    ]
    noise_film(tmp_path / "x.mp4", seed=1, side=16)
    asked.append(opened(tmp_path / "x.mp4", 4, labels=["0"]).settings)
    assert all(a != b for a, b in itertools.combinations(asked, 2))
    assert all(Path(each["continue_from"]).name == "x.mp4" for each in asked)


@pytest.mark.parametrize("side, thick", [(32, 1), (128, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_given_frames_get_a_thin_border_and_no_others(side, thick, channels):
    frames = torch.full((2, 5, side, side, channels), 7, dtype=torch.uint8)
    marked = mark_given(frames, 6, 8)  # frames 6 to 10 of the video, of which 6 and 7 were given
    inside = slice(thick, side - thick)
    assert torch.equal(marked[:, 2:], frames[:, 2:]) and (frames == 7).all()
    assert (marked[:, :2, inside, inside] == 7).all()
    assert (marked[:, :2, :thick] != 7).any(-1).all() and (marked[:, :2, :, -thick:] != 7).any(-1).all()
    assert mark_given(frames, 8, 8) is frames
