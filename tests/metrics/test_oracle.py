"""The oracle accepts true videos, rejects broken ones, and measures what it says."""

import numpy as np
import pytest
from corruptions import CORRUPTIONS, h264
from scipy import ndimage

from tats.data.shapes import CLASSES, HIGH, LOW, draw_truth, render, render_many
from tats.metrics.oracle import judge, judge_many, look, summary
from tats.metrics.oracle_track import follow

N = 108  # videos for each rate, nine of every class


def truths(n=N, frames=16, seed=100):
    return [draw_truth(seed, index, frames=frames) for index in range(n)]


def off(judgements, drawn):
    """The largest distance between seen and true places."""
    return max(np.linalg.norm(j.position - t.positions, axis=1).max() for j, t in zip(judgements, drawn))


@pytest.mark.parametrize("resolution", [32, 64])
def test_true_videos_are_accepted_and_located(resolution):
    drawn = truths()
    judgements = judge_many(render_many(drawn, resolution), [t.label for t in drawn])
    assert summary(judgements)["valid"].share >= 0.99
    assert off(judgements, drawn) <= 0.01


@pytest.mark.parametrize("resolution, pix_fmt", [(32, "yuv420p"), (64, "yuv420p"), (64, "yuv444p")])
def test_compressed_videos_are_accepted_and_located(resolution, pix_fmt):
    drawn = truths(seed=101)
    videos = [h264(frames, 23, pix_fmt) for frames in render_many(drawn, resolution)]
    judgements = judge_many(videos, [t.label for t in drawn])
    assert summary(judgements)["valid"].share >= 0.99
    assert off(judgements, drawn) <= 0.01


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupted_videos_are_rejected(corruption, resolution):
    rng = np.random.default_rng(7)
    drawn = truths(seed=102)
    videos = (CORRUPTIONS[corruption](truth, resolution, rng) for truth in drawn)
    rejected = [not judgement.valid for judgement in judge_many(videos, [t.label for t in drawn])]
    assert np.mean(rejected) >= 0.95


@pytest.mark.parametrize("resolution", [32, 64])
def test_soft_reconstructions_of_30_to_34_db_are_accepted(resolution):
    """Blur and noise that sit at the object and change slowly, as a decoder makes them."""
    rng = np.random.default_rng(0)
    drawn = truths(48, seed=103)
    frames = render_many(drawn, resolution)
    soft = ndimage.gaussian_filter(frames.astype(float), (0, 0, 0.012 * resolution, 0.012 * resolution, 0))
    near = ndimage.gaussian_filter(soft.max(-1, keepdims=True), (0, 0, 0.06 * resolution, 0.06 * resolution, 0))
    grain = ndimage.gaussian_filter(rng.normal(size=frames.shape), (0, 0.7, resolution / 32, resolution / 32, 0)) * near
    grain *= 255 * 0.02 / grain.std()
    videos = np.clip(soft + grain, 0, 255).astype(np.uint8)
    loss = 10 * np.log10(255**2 / np.mean((videos - frames.astype(float)) ** 2))
    assert 30 < loss < 35
    assert summary(judge_many(videos, [t.label for t in drawn]))["valid"].share >= 0.95


@pytest.mark.parametrize("label", CLASSES)
def test_colour_and_shape_are_found_without_being_asked(label):
    judgement = judge(render(draw_truth(1, 0, label=label), 32))
    assert f"{judgement.asked_colour}_{judgement.asked_shape}" == label
    assert judgement.valid


def test_start_and_velocity_are_measured():
    for truth in truths(24, seed=104):
        if any(r.frame == 1 for r in truth.reflections):
            continue  # at a wall, both directions explain the first step
        judgement = judge(render(truth, 64))
        assert np.allclose(judgement.start, truth.start, atol=0.003)
        assert np.allclose(judgement.velocity, truth.velocity, atol=0.0005)


def test_turns_are_seen_where_the_walls_are():
    seen, true = 0, 0
    for truth in truths(24, frames=64, seed=105):
        turns = set(np.flatnonzero(judge(render(truth, 64)).track.turns) + 1)
        frames = {r.frame for r in truth.reflections}
        true += len(frames)
        seen += len({frame for frame in frames if turns & {frame - 1, frame, frame + 1}})
    assert true > 20
    assert seen >= 0.98 * true


def test_empty_and_noisy_frames_have_no_right_object():
    looks = look(np.zeros((5, 32, 32, 3), np.uint8))
    assert (looks.objects == 0).all() and (looks.colour == -1).all() and np.isnan(looks.position).all()
    assert not judge(np.zeros((5, 32, 32, 3), np.uint8)).valid
    assert not judge(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)).right_object
    assert not judge(np.full((8, 32, 32, 3), 255, np.uint8)).right_object


def test_pieces_of_frames_do_not_change_what_is_seen():
    frames = render(draw_truth(4, 1, frames=300), 32)
    whole, parts = look(frames), [look(frames[:10]), look(frames[10:])]
    for name in ("objects", "colour", "shape", "position"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))


def test_jitter_within_the_tolerance_is_forgiven():
    rng = np.random.default_rng(1)
    for truth in truths(24, frames=32, seed=106):
        track = follow(truth.positions + rng.normal(0, 0.0015, (32, 2)))
        assert track.agrees.mean() >= 0.95
        assert not track.breaks.any() and not track.jumps.any()


def test_a_path_is_followed_alike_forwards_and_backwards():
    for truth in truths(24, frames=32, seed=107):
        there, back = follow(truth.positions), follow(truth.positions[::-1])
        assert there.agrees.all() and back.agrees.all()
        assert np.isclose(np.linalg.norm(there.velocity), np.linalg.norm(back.velocity))


@pytest.mark.parametrize("where", ["nowhere", "standing", "outside"])
def test_paths_that_are_no_flight_are_not_valid(where):
    positions = {
        "nowhere": np.full((16, 2), np.nan),
        "standing": np.full((16, 2), 0.5),
        "outside": np.stack([np.linspace(LOW, HIGH + 0.1, 16), np.full(16, 0.5)], 1),
    }[where]
    track = follow(positions)
    legal = np.isfinite(track.speed).any() and abs(np.nanmedian(track.speed) - 0.04) < 0.008
    assert not (legal and track.agrees.mean() >= 0.9)


@pytest.mark.parametrize(
    "frames", [np.zeros((8, 32, 32), np.uint8), np.zeros((8, 32, 32, 3)), np.zeros((3, 32, 32, 3), np.uint8)]
)
def test_what_is_no_video_is_refused(frames):
    with pytest.raises(ValueError, match="frames must"):
        judge(frames)
