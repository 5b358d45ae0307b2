"""Pictures of sound: levels, frequencies and times are where they belong, in whatever pieces the sound comes."""

import numpy as np
import pytest

from tats.data.shapes import Reflection, Truth, clicks
from tats.data.spectrogram import FLOOR, RATE, SIZE, WINDOW, bands, spectrogram, window_starts


def pictures(sound, times):
    return np.concatenate(list(spectrogram([np.asarray(sound, np.float32)], np.asarray(times, np.float64))))


def sine(frequency, seconds=1.0, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def power(levels):
    """Levels in [0, 1] -> power, where a sine of full scale has 1."""
    return 10 ** ((levels.astype(np.float64) - 1) * FLOOR / 10)


@pytest.mark.parametrize("frequency", [60, 440, 880, 3000, 7500])
def test_a_sine_is_loudest_in_its_band_and_holds_its_power(frequency):
    made = pictures(sine(frequency, amplitude=0.5), np.arange(9) / 8)
    assert made.dtype == np.float16 and made.shape == (8, *SIZE)
    mel = 2595 * np.log10(1 + np.array([frequency, RATE / 2]) / 700)
    place = mel[0] / mel[1] * (SIZE[0] + 1) - 1  # in bands; 0 is the middle of the lowest
    assert abs(made[4, :, 8].argmax() - place) <= 1
    assert power(made[4, :, 8]).sum() == pytest.approx(0.25, rel=0.1)  # half the amplitude, a quarter of the power


def test_full_scale_is_one_and_silence_is_zero():
    assert pictures(np.zeros(RATE), np.arange(5) / 4).max() == 0
    assert 0.95 < pictures(sine(440), np.arange(5) / 4).max() <= 1
    assert pictures(3 * sine(440), np.arange(5) / 4).max() == 1
    assert pictures(sine(440, amplitude=1e-5), np.arange(5) / 4).max() == 0  # 100 dB below full scale


def test_bands_share_every_frequency():
    assert np.allclose(bands().sum(1), 1) and (bands().sum(0) > 0).all()


@pytest.mark.parametrize("fps", [8, 16, 29.97])
def test_a_click_lies_in_the_frame_of_its_reflection(fps):
    truth = Truth(0, "red", "circle", "fast", (0.5, 0.6), (0.0392, 0.0078), 64)
    made = pictures(clicks(truth, fps), np.arange(65) / fps)
    hits = [reflection.frame for reflection in truth.reflections]
    onsets = [k for k in range(1, 64) if made[k].max() > 0.8 and made[k - 1, :, :8].max() < 0.5]
    assert len(hits) > 2 and onsets == hits
    columns = [int(made[frame].max(0).argmax()) for frame in hits]
    assert max(columns) * 1000 / fps / SIZE[1] < 1000 * WINDOW / RATE / 2 + 5  # loudest within half a window


def test_the_walls_sound_differently():
    heard = {}
    for wall in ("left", "top"):
        truth = Truth(0, "red", "circle", "fast", (0.5, 0.5), (0.0, 0.0), 8)
        object.__setattr__(truth, "reflections", (Reflection(3, wall),))
        heard[wall] = pictures(clicks(truth, 16), np.arange(9) / 16)[3].max(1).argmax()
    assert heard["left"] - heard["top"] > 5


def test_pieces_do_not_matter():
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    times = np.arange(121) / 40
    pieces = np.split(sound, [1, 7, 5000, 5001, 30000])
    assert np.array_equal(np.concatenate(list(spectrogram(pieces, times))), pictures(sound, times))


def test_behind_and_before_the_sound_is_silence():
    made = pictures(sine(440, 0.5), np.arange(17) / 8)
    assert made.shape[0] == 16 and (made[:4].max((1, 2)) > 0.9).all() and made[5:].max() == 0
    assert pictures([], np.arange(4) / 8).max() == 0


def test_slow_frames_leave_nothing_out():
    """Columns of a frame of two seconds are longer than a window; a click between their middles is heard, too."""
    for at in np.linspace(0.1, 1.8, 9):
        sound = np.zeros(2 * RATE)
        sound[round(at * RATE)] = 1
        made = pictures(sound, [0, 2])
        assert made[0].max(0)[int(at / 2 * SIZE[1])] == made.max() > 0.3
    assert window_starts(np.array([0.0, 2.0])).shape == (1, 16, 8)


def test_frames_of_different_length_share_their_own_time():
    times = [0, 0.1, 0.5, 0.6]
    sound = np.zeros(RATE)
    sound[round(0.4 * RATE) : round(0.45 * RATE)] = sine(1000, 0.05)
    made = pictures(sound, times)
    loud = np.flatnonzero(made[1].max(0) > 0.9)
    assert made[0].max() == made[2].max() == 0
    assert loud.min() in (11, 12) and loud.max() in (13, 14)  # 0.3 to 0.35 of 0.4 seconds, in sixteenths
