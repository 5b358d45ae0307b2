"""Scores over time: the same for a whole video and for its pieces, in memory that does not grow."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tats.metrics.features import FeatureConfig, FeatureNet
from tats.metrics.frechet import Moments, frechet_distance
from tats.metrics.quality import psnr
from tats.metrics.windows import score_windows, sets_over_time, stream, windows
from tats.video import from_frames


def noise(frames=40, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


def cut(video, sizes):
    """The pieces of a video, as a generator; a piece may be empty."""
    first = 0
    for size in itertools.cycle([*sizes, 1]):
        if first >= len(video):
            return
        yield video[first : first + size]
        first += size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 40))
def test_windows_of_pieces_are_those_of_the_whole(length, stride, sizes, frames):
    video = noise(frames, 2)
    expected = [video[first : first + length] for first in range(0, frames - length + 1, stride)]
    for given_video in (video, cut(video, sizes)):
        found = [clip.numpy() for clip in windows(given_video, length, stride)]
        assert len(found) == len(expected)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))


def test_every_form_of_a_video_gives_the_same_frames():
    frames = noise(70)
    video = from_frames(torch.from_numpy(frames))  # [C, T, H, W]; a level can come back lower by one
    rounded = torch.cat(list(stream(video)))
    assert (torch.from_numpy(frames).int() - rounded.int()).abs().max() <= 1
    for form in (video[None], video.numpy(), [video[:, :30], video[None, :, 30:]]):
        assert torch.equal(torch.cat(list(stream(form))), rounded)
    for form in (frames, torch.from_numpy(frames), list(frames), [frames[:5], torch.from_numpy(frames[5:])]):
        assert torch.equal(torch.cat(list(stream(form))), torch.from_numpy(frames))
    grey = torch.cat(list(stream(frames[..., :1])))
    assert np.array_equal(grey.numpy(), frames[..., :1].repeat(3, 3))


@pytest.mark.parametrize(
    "video", [np.zeros((2, 8, 8), np.float32), np.zeros((4, 8, 8, 3), np.int64), np.zeros((2, 3, 4, 8, 8), np.float32),
              [noise(2, 8), noise(2, 9)], np.zeros((4, 8, 8, 2), np.uint8)],
)  # fmt: skip
def test_what_is_no_video_is_refused(video):
    with pytest.raises(ValueError, match="piece"):
        list(stream(video))
    with pytest.raises(ValueError, match="at least 1"):
        list(windows(noise(), 0))


def test_a_video_without_end_is_measured_as_it_comes():
    asked = itertools.count()
    endless = (np.full((5, 4, 4, 3), next(asked) % 256, np.uint8) for _ in itertools.count())
    scores = score_windows(lambda clip: float(clip.float().mean()), endless, length=10)
    assert list(itertools.islice(scores, 100)) == [(10 * k, (2 * k + 2 * k + 1) / 2 % 256) for k in range(100)]
    assert next(asked) == 200  # nothing was read ahead


def test_pairs_of_videos_are_compared_window_by_window():
    a, b = noise(24, seed=1), noise(24, seed=1)
    b[16:] = 0
    found = dict(score_windows(lambda x, y: psnr(x[None], y[None]).mean().item(), a, cut(b, [7]), length=8))
    assert list(found) == [0, 8, 16]
    assert found[0] == found[8] == np.inf and found[16] < 10


def test_a_set_metric_over_time_is_the_metric_of_each_window():
    torch.manual_seed(0)
    network = FeatureNet(FeatureConfig(())).eval()
    videos = [noise(20, seed=seed) for seed in range(6)]
    videos[5] = videos[5][:13]  # it ends within the third window
    sets = sets_over_time((cut(video, [3, 9]) for video in videos), network.features, length=5, batch=2)
    assert [part.count for part in sets] == [6, 6, 5, 5]
    real = torch.rand(40, network.width)
    known = Moments()
    known.add(real)
    for window, part in enumerate(sets):
        clips = [video[5 * window : 5 * window + 5] for video in videos if len(video) >= 5 * window + 5]
        with torch.inference_mode():
            features = network.features(torch.from_numpy(np.stack(clips)))
        assert part.distance(known) == pytest.approx(frechet_distance(features, real), rel=1e-5, abs=1e-6)


def test_other_gatherers_and_networks_of_frames_serve_as_well():
    class Kept(list):
        add = list.append

    def of_frames(clips):
        return clips.float().mean((2, 3, 4)).reshape(-1, 1)  # [b * T, 1]

    video = noise(12)
    sets = sets_over_time([video, video], of_frames, Kept, length=4, batch=2)
    means = torch.from_numpy(video.mean((1, 2, 3))).float()
    assert len(sets) == 3
    for window, rows in enumerate(sets):
        assert torch.allclose(torch.cat(rows)[:, 0], means[4 * window : 4 * window + 4].repeat(2))
