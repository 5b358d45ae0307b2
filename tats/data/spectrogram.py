"""From sound to pictures: one spectrogram of 64 x 16 per video frame, as transformers conditioned on sound take it.

Sound is read at 16000 Hz, one channel. The time that a frame is shown is divided into 16 equal columns; each holds the
power in a Hann window of 512 samples (32 ms) around its middle (where columns stand more than 256 samples apart, the
mean of several windows that do not). The rows are 64 bands from 0 to 8000 Hz, equally wide on the mel scale
(2595 log10(1 + f / 700)), low ones first; neighbouring bands share what lies between their middles, so that all bands
together hold the whole power. A number is that power in decibels, from -80 (0.0) to 0 (1.0), where 0 dB is a sine of
full scale, amplitude 1; what is fainter than -80 dB is 0.0, what is louder than 0 dB is 1.0.

    pictures = np.concatenate(list(spectrogram(sound_pieces("film.mp4", RATE), times)))      # float16 [n, 64, 16]
"""

import math
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 16000  # hertz
SIZE = (64, 16)  # rows (bands) and columns (time) of the sound of one video frame, as published
WINDOW = 512  # samples
SPACING = 256  # samples that windows stand apart at most
FFT = 1024  # the window and as many zeros: narrow low bands find a frequency of their own
FLOOR = 80.0  # decibels below full scale that become 0
AT_ONCE = 64  # frames worked on together

SETTINGS = {
    "rate": RATE,
    "bands": SIZE[0],
    "columns": SIZE[1],
    "window": WINDOW,
    "floor_db": -FLOOR,
    "scale": "mel, dB",
}
"""What a spectrogram was made with, as plain values: stored beside the files."""


def spectrogram(sound: Iterable[NDArray[np.float32]], times: NDArray[np.float64]) -> Iterator[NDArray[np.float16]]:
    """Pictures of the sound of every video frame, in pieces float16 [n, 64, 16] of numbers in [0, 1].

    sound: samples float32 [n] at `RATE` in pieces, the first heard at time 0; before and after it is silence. times:
    float64 [frames + 1] in seconds, when each frame begins to be shown, and when the last one ends.
    """
    tape = _Tape(sound)
    for first in range(0, len(times) - 1, AT_ONCE):
        at = window_starts(times[first : first + AT_ONCE + 1])  # [frames, 16, windows]
        low, high = int(at.min()), int(at.max()) + WINDOW
        yield pictures(tape.read(low, high), at - low)


def window_starts(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first sample of every window of the frames that begin at `times` (and end at the next): int64 [frames, 16,
    windows of a column]."""
    spans = np.diff(times)  # [frames]
    columns = SIZE[1]
    several = max(1, math.ceil(float(spans.max()) * RATE / columns / SPACING))
    middles = (np.arange(columns * several) + 0.5) / (columns * several)  # [16 * windows], in spans of a frame
    centres = (times[:-1, None] + spans[:, None] * middles) * RATE  # [frames, 16 * windows]
    return (np.round(centres).astype(np.int64) - WINDOW // 2).reshape(len(spans), columns, several)


def pictures(samples: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float16]:
    """The levels of windows that begin at the samples `at`.  [n], int64 [frames, 16, windows] -> [frames, 64, 16]"""
    window = np.hanning(WINDOW + 1)[:-1]
    cut = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[at] * window  # [frames, 16, windows, 512]
    power = np.abs(np.fft.rfft(cut, FFT)) ** 2  # [frames, 16, windows, 513]
    # By Parseval a sine of amplitude 1 sums up to 1 over the frequencies.
    power *= 4 / (FFT * np.sum(window**2))
    banded = power.mean(2) @ bands()  # [frames, 16, 64]
    decibels = 10 * np.log10(np.maximum(banded, 10 ** (-FLOOR / 10)))
    return np.clip(1 + decibels / FLOOR, 0, 1).swapaxes(1, 2).astype(np.float16)


@cache
def bands() -> NDArray[np.float64]:
    """How much of each frequency belongs to each band: float64 [513, 64]; a row sums up to 1.

    Triangles around middles that stand equally far apart in mel, from 0 to half of `RATE`; the lowest and the highest
    band reach to the end of the scale.
    """
    mel = 2595 * np.log10(1 + np.linspace(0, RATE / 2, FFT // 2 + 1) / 700)  # [513]
    place = mel / mel[-1] * (SIZE[0] + 1) - 1  # in bands: 0 is the middle of the lowest
    near = np.clip(place, 0, SIZE[0] - 1)[:, None] - np.arange(SIZE[0])  # [513, 64]
    return np.maximum(1 - np.abs(near), 0)


class _Tape:
    """Samples that come in pieces, read in windows that move forward; around the sound is silence."""

    def __init__(self, pieces: Iterable[NDArray[np.float32]]):
        self._pieces = iter(pieces)
        self._begin, self._held, self._over = 0, np.zeros(0, np.float32), False

    def read(self, low: int, high: int) -> NDArray[np.float32]:
        """Samples low to high, float32 [high - low]; what lies before `low` is forgotten."""
        parts, end = [self._held], self._begin + len(self._held)
        while not self._over and end < high:
            piece = next(self._pieces, None)
            self._over = piece is None
            if piece is not None:
                parts.append(piece)
                end += len(piece)
        self._held = np.concatenate(parts)
        if low > self._begin:
            self._held = self._held[low - self._begin :]
            self._begin = min(low, end)
        wanted = self._held[max(low - self._begin, 0) : max(high - self._begin, 0)]
        front = min(max(self._begin - low, 0), high - low)
        return np.pad(wanted, (front, high - low - front - len(wanted)))
