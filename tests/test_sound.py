"""Sound of files: at its time, in pieces of any length, from every kind of file."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from films import picture

from tats.flags import UserError
from tats.reader import frame_times, scan
from tats.sound import NoSound, SoundError, native_rate, read_sound, sound_of, sound_pieces

RATE = 16000


def noise(seconds, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def write_wav(path, samples, rate=RATE):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_late(path, pictures_from, sound_from, gap=0.0):
    """Pictures from one stamp on (seconds) and a second of noise from another, its second half `gap` seconds later."""
    samples = noise(1)
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(picture(k), "rgb24")
            frame.pts, frame.time_base = k + round(pictures_from * 25), Fraction(1, 25)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        for half in range(2):
            part = (samples[half * 8000 : (half + 1) * 8000] * 32767).astype("<i2")[None]
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round((sound_from + half * gap) * RATE) + half * 8000
            file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    return samples


@pytest.mark.parametrize("pictures_from, sound_from", [(0, 0), (0.4, 0.4), (0, 0.6), (0.6, 0.2)])
def test_sample_0_is_heard_with_the_first_picture(tmp_path, pictures_from, sound_from):
    samples = write_late(tmp_path / "a.mkv", pictures_from, sound_from)
    late = round((sound_from - pictures_from) * RATE)
    wanted = np.pad(samples, (late, 0)) if late >= 0 else samples[-late:]
    back = read_sound(tmp_path / "a.mkv", RATE)
    assert len(back) == len(wanted) and np.abs(back - wanted).max() < 1e-3


def test_a_gap_is_silence(tmp_path):
    samples = write_late(tmp_path / "a.mkv", 0, 0, gap=0.5)
    back = read_sound(tmp_path / "a.mkv", RATE)
    wanted = np.concatenate([samples[:8000], np.zeros(8000), samples[8000:]])
    assert len(back) == len(wanted) and np.abs(back - wanted).max() < 1e-3


def test_stamps_that_jump_by_hours_are_damage(tmp_path):
    write_late(tmp_path / "a.mkv", 0, 0, gap=7200)
    with pytest.raises(SoundError, match=r"a\.mkv .*stops for 2\.0 hours"):
        read_sound(tmp_path / "a.mkv", RATE)


@pytest.mark.parametrize("start, seconds", [(0, None), (0, 0.5), (0.25, 0.125), (1.9, 3), (5, 1)])
def test_a_part_is_that_part_of_the_whole(tmp_path, start, seconds):
    path = write_wav(tmp_path / "a.wav", noise(2))
    whole = read_sound(path, RATE)
    end = None if seconds is None else round((start + seconds) * RATE)
    part = [np.zeros(0, np.float32), *sound_pieces(path, RATE, start, seconds)]
    assert np.array_equal(np.concatenate(part), whole[round(start * RATE) : end])


def test_long_sounds_come_in_pieces(tmp_path):
    path = write_wav(tmp_path / "a.wav", noise(30))
    sizes = [len(piece) for piece in sound_pieces(path, RATE)]
    assert sum(sizes) == 30 * RATE and len(sizes) > 5 and max(sizes) < 5 * RATE


@pytest.mark.parametrize("suffix, codec", [("flac", "flac"), ("mp3", "libmp3lame"), ("m4a", "aac")])
def test_sound_files_of_every_kind_are_read(tmp_path, suffix, codec):
    tone = (0.5 * np.sin(np.arange(RATE) * 0.2)).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        kind = stream.codec_context.format.name
        resampler = av.AudioResampler(format=kind, layout="mono", rate=RATE, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        for given in (frame, None):
            for part in resampler.resample(given):
                file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    back = read_sound(path, RATE)
    assert native_rate(path) == RATE and abs(len(back) - RATE) < 2400  # mp3 ends on a whole packet
    assert np.corrcoef(back[:RATE][: len(tone)], tone[: len(back)])[0, 1] > 0.98


def test_what_has_no_sound_is_named(tmp_path):
    with pytest.raises(SoundError, match=r"nowhere\.wav does not exist"):
        read_sound(tmp_path / "nowhere.wav", RATE)
    with pytest.raises(SoundError, match="is a folder"):
        read_sound(tmp_path, RATE)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(SoundError, match=r"text\.wav cannot be read"):
        read_sound(tmp_path / "text.wav", RATE)
    write_late(tmp_path / "a.mkv", 0, 0)
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "silent.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    for ask in (read_sound, lambda path, _: native_rate(path)):
        with pytest.raises(NoSound, match=r"silent\.mkv has no audio track") as caught:
            ask(tmp_path / "silent.mkv", RATE)
        assert isinstance(caught.value, UserError)


def test_a_sound_beside_a_video_is_its_sound(tmp_path):
    video = tmp_path / "a.mkv"
    write_late(video, 0, 0)
    assert sound_of(video) == video
    write_wav(tmp_path / "a.wav", noise(1))
    assert sound_of(video) == tmp_path / "a.wav"


def test_frames_are_shown_at_the_times_of_their_stamps(tmp_path):
    write_late(tmp_path / "a.mkv", 0.6, 0)
    assert np.allclose(frame_times(tmp_path / "a.mkv"), np.arange(26) / 25, atol=2e-3)
    assert len(frame_times(tmp_path / "a.mkv")) == scan(tmp_path / "a.mkv").n_frames + 1
