"""Written files hold what was given, whole or not at all, with every frame and click at its time."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from tats.data.shapes import SOUND_RATE, Truth, clicks, draw_truth, render
from tats.flags import UserError
from tats.media import VideoWriter, read_frames, read_sound, write_video
from tats.video import from_frames


@pytest.fixture(scope="module")
def frames():
    return render(draw_truth(0, 4, frames=20), 64)


def gradient(n, height, width):
    """Smooth pictures of any size, uint8 [n, height, width, 3]."""
    y, x = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)
    planes = np.broadcast_arrays(y, x, (x + y) / 2)
    return np.stack([np.stack(planes, -1)] * n).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.png", "folder"])
def test_pictures_come_back_exactly(tmp_path, frames, name):
    write_video(tmp_path / name, frames, fps=10)
    assert np.array_equal(read_frames(tmp_path / name), frames)


@pytest.mark.parametrize("name, quality", [("a.mp4", 28), ("a.mov", 28), ("a.mkv", 28), ("a.webp", 30)])
def test_films_come_back_closely(tmp_path, frames, name, quality):
    write_video(tmp_path / name, frames, fps=10)
    back = read_frames(tmp_path / name)
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert psnr(back, frames) > quality


@pytest.mark.parametrize("name, tick", [("a.gif", 10), ("a.webp", 1)])
def test_animations_keep_their_pace(tmp_path, frames, name, tick):
    from PIL import Image, ImageSequence

    write_video(tmp_path / name, frames, 30)
    with Image.open(tmp_path / name) as file:
        times = np.cumsum([frame.info["duration"] for frame in ImageSequence.Iterator(file) if frame.load() or True])
    assert np.abs(times - np.arange(1, 21) * 1000 / 30).max() <= tick / 2


def test_full_colour_and_a_low_crf_are_nearly_exact(tmp_path, frames):
    write_video(tmp_path / "a.mp4", frames, 16, crf=4, pix_fmt="yuv444p")
    assert psnr(read_frames(tmp_path / "a.mp4"), frames) > 48


@pytest.mark.parametrize("height, width", [(63, 65), (64, 33), (17, 48)])
def test_odd_sizes_are_padded_to_even_and_never_scaled(tmp_path, height, width):
    frames = gradient(4, height, width)
    write_video(tmp_path / "a.mp4", frames, 8)
    back = read_frames(tmp_path / "a.mp4")
    assert back.shape[1:3] == (height + height % 2, width + width % 2)
    assert psnr(back[:, :height, :width], frames) > 35
    write_video(tmp_path / "b.mp4", frames, 8, pix_fmt="yuv444p")
    assert read_frames(tmp_path / "b.mp4").shape == frames.shape


def test_pieces_give_the_same_file_as_the_whole(tmp_path, frames):
    truth = draw_truth(0, 4, frames=20)
    sound = (clicks(truth, 16), SOUND_RATE)
    write_video(tmp_path / "whole.mp4", frames, 16, sound=sound)
    write_video(tmp_path / "pieces.mp4", (frames[i : i + 3] for i in range(0, 20, 3)), 16, sound=sound)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "pieces.mp4").read_bytes()


def test_a_video_tensor_is_its_frames(tmp_path, frames):
    video = from_frames(torch.from_numpy(frames))[None]  # [1, 3, T, H, W]
    write_video(tmp_path / "a.png", video, 16)
    assert np.abs(read_frames(tmp_path / "a.png").astype(int) - frames).max() <= 1  # a level may be truncated
    write_video(tmp_path / "b.png", [video[:, :, :7], video[0, :, 7:]], 16)
    assert np.array_equal(read_frames(tmp_path / "b.png"), read_frames(tmp_path / "a.png"))
    write_video(tmp_path / "grey.png", video[:, :1], 16)
    grey = read_frames(tmp_path / "grey.png")
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("fps", [16, 12.5, 30000 / 1001])
def test_frames_stand_at_their_exact_times_and_the_index_in_front(tmp_path, frames, fps):
    path = tmp_path / "a.mp4"
    write_video(path, frames, fps)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p" and stream.average_rate == rate
        assert [frame.pts * frame.time_base for frame in file.decode(video=0)] == [k / rate for k in range(20)]
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("rate, asked", [(16000, 16000), (44100, 16000), (48000, 22050)])
def test_sound_keeps_its_time(tmp_path, rate, asked):
    truth = Truth(0, "red", "circle", "fast", (0.5, 0.6), (0.0392, 0.0078), 64)
    fps = 16
    sound = clicks(truth, fps, rate)
    path = tmp_path / "a.mp4"
    write_video(path, render(truth, 32), fps, sound=(torch.from_numpy(sound), rate))
    back = read_sound(path, asked)
    assert back.dtype == np.float32 and abs(len(back) / asked - 4) < 0.2
    loud = np.abs(back) > 0.1
    starts = [k / asked for k in np.flatnonzero(loud) if not loud[max(0, k - asked // 10) : k].any()]
    assert len(starts) == len(truth.reflections) > 2
    for start, reflection in zip(starts, truth.reflections):
        assert abs(start - reflection.frame / fps) < 0.2 / fps


def test_stereo_is_mixed_down_and_long_sound_is_cut(tmp_path, frames):
    tone = np.sin(np.arange(48000 * 5) * 0.05).astype(np.float32) * 0.5
    write_video(tmp_path / "a.mp4", frames, 20, sound=(np.stack([tone, tone], 1), 48000))
    back = read_sound(tmp_path / "a.mp4", 48000)
    assert abs(len(back) / 48000 - 1) < 0.05
    assert np.abs(back[4800:43200] - tone[4800:43200]).max() < 0.05


@pytest.mark.parametrize("shape", [(48000,), (48000, 2)])
def test_sound_and_pictures_in_pieces_are_those_at_once(tmp_path, frames, shape):
    time = np.arange(48000) / 16000
    sound = np.broadcast_to((0.5 * np.sin(700 * time * time)).reshape(-1, *(1,) * (len(shape) - 1)), shape)
    write_video(tmp_path / "whole.mp4", frames, 20, sound=(sound, 16000))
    pieces = iter(np.split(sound, [1, 5, 700, 20000, 20000, 31000]))
    write_video(tmp_path / "pieces.mp4", iter(np.split(frames, [1, 7])), 20, sound=(pieces, 16000))
    assert np.array_equal(read_sound(tmp_path / "pieces.mp4", 16000), read_sound(tmp_path / "whole.mp4", 16000))
    assert len(list(pieces)) > 0  # one second was taken, the rest was not asked for


def test_a_film_longer_than_its_sound_falls_silent(tmp_path, frames):
    write_video(tmp_path / "a.mp4", frames, 20, sound=(iter([np.full(4000, 0.25)]), 16000))
    back = read_sound(tmp_path / "a.mp4", 16000)
    assert len(read_frames(tmp_path / "a.mp4")) == len(frames)
    assert np.abs(back[500:3500] - 0.25).max() < 0.05 and 4000 <= len(back) < 4000 + 2 * 1024


def test_wav_is_read_as_well(tmp_path):
    import wave

    tone = (np.sin(np.arange(8000) * 0.1) * 16000).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    assert np.allclose(read_sound(tmp_path / "a.wav", 8000), tone / 32768, atol=1e-4)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
def test_a_broken_off_write_leaves_the_old_file_and_nothing_else(tmp_path, frames, name):
    path = tmp_path / name
    write_video(path, frames[:5], 16)
    before = read_frames(path)

    def breaks():
        yield frames[:8]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, breaks(), 16)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_frames(path), before)


def test_nothing_stands_under_the_name_until_the_end(tmp_path, frames):
    with VideoWriter(tmp_path / "sub" / "a.mp4", 16) as file:
        file.write(frames)
        assert not (tmp_path / "sub" / "a.mp4").exists()
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.mp4"]


def test_a_shorter_film_replaces_a_folder_of_frames(tmp_path, frames):
    write_video(tmp_path / "f", frames, 16)
    write_video(tmp_path / "f", frames[:3], 16)
    assert len(read_frames(tmp_path / "f")) == 3
    (tmp_path / "f" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        write_video(tmp_path / "f", frames, 16)


def test_what_cannot_be_written_is_said(tmp_path, frames):
    with pytest.raises(UserError, match=r"\.avi"):
        VideoWriter(tmp_path / "a.avi", 16)
    with pytest.raises(UserError, match="carry sound"):
        VideoWriter(tmp_path / "a.gif", 16, sound=(np.zeros(10), 16000))
    with pytest.raises(UserError, match="no rate of 12345"):
        VideoWriter(tmp_path / "a.mp4", 16, sound=(np.zeros(10), 12345))
    with pytest.raises(UserError, match="frames per second"):
        VideoWriter(tmp_path / "a.mp4", 0)
    with pytest.raises(ValueError, match="no frames"), VideoWriter(tmp_path / "a.mp4", 16):
        pass
    with pytest.raises(ValueError, match="differ in size"):
        write_video(tmp_path / "a.mp4", [frames, frames[:, :32]], 16)
    with pytest.raises(ValueError, match="one video, got 2"):
        write_video(tmp_path / "a.mp4", torch.zeros(2, 3, 4, 16, 16), 16)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_said(tmp_path, frames):
    write_video(tmp_path / "silent.mp4", frames, 16)
    with pytest.raises(UserError, match="no audio track"):
        read_sound(tmp_path / "silent.mp4", 16000)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for name, reason in [("text.mp4", "cannot be read"), ("text.png", "cannot be read"), ("gone.mp4", "not exist"),
                         ("empty", "no frames")]:  # fmt: skip
        with pytest.raises(UserError, match=reason):
            read_frames(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read_sound(tmp_path / "text.mp4", 16000)
