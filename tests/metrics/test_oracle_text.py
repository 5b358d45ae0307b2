"""A video is held against its sentence: a true one shows it, another one only by chance."""

import numpy as np
import pytest

from tats.data.shapes import DIRECTIONS, SPEEDS, draw_truth, render, render_many
from tats.metrics.oracle import judge
from tats.metrics.oracle_text import AsSaid, Said, as_said, direction_of, read_caption, said_counts, speed_of

N = 96


@pytest.fixture(scope="module")
def seen():
    """Some videos as the oracle sees them, and their sentences."""
    truths = [draw_truth(200, index, frames=16) for index in range(N)]
    return [judge(frames) for frames in render_many(truths, 32)], [truth.caption for truth in truths]


def test_captions_are_read_as_they_are_written():
    for index in range(200):
        truth = draw_truth(1, index)
        said = read_caption(truth.caption)
        assert (said.speed, said.colour, said.shape) == (truth.speed, truth.colour, truth.shape)
        assert said.direction == direction_of(truth.velocity) and said.direction in DIRECTIONS
    assert read_caption("a slow blue square moving down") == Said("slow", "blue", "square", "down")
    for wrong in ("", "a red circle moving up", "a fast red circle moving up and", "a fast red circle moving upwards"):
        with pytest.raises(ValueError, match="a caption reads"):
            read_caption(wrong)


def test_true_videos_show_what_their_sentences_say(seen):
    judgements, captions = seen
    counts = said_counts(as_said(one, read_caption(text)) for one, text in zip(judgements, captions))
    assert counts["colour"].share == counts["shape"].share == counts["speed"].share == 1
    assert counts["direction"].share >= 0.98 and counts["everything"].hits == counts["direction"].hits  # at the borders


def test_other_sentences_are_met_by_chance_only(seen):
    judgements, captions = seen
    order = np.random.default_rng(0).permutation(N)
    counts = said_counts(as_said(one, read_caption(captions[at])) for one, at in zip(judgements, order))
    for name, chance in (("colour", 1 / 4), ("shape", 1 / 3), ("speed", 1 / 2), ("direction", 1 / 8)):
        low, high = counts[name].interval
        assert low <= chance <= high, name
    assert counts["everything"].share < 0.1


def test_speeds_are_told_apart_by_their_ratio():
    assert [speed_of((size, 0.0)) for size in (0.001, 0.02, 0.028, 0.0285, 0.04, 1.0)] == ["slow"] * 3 + ["fast"] * 3
    assert set(SPEEDS) == {"slow", "fast"}


def test_a_video_without_object_shows_nothing():
    shown = as_said(judge(np.zeros((16, 32, 32, 3), np.uint8)), Said("fast", "red", "circle", "up"))
    assert shown == AsSaid(False, False, False, False) and not shown.everything


def test_the_object_counts_that_most_frames_show():
    truth = draw_truth(3, 0, label="red_circle", frames=16)
    frames = np.concatenate([render(truth, 32)[:9], np.zeros((7, 32, 32, 3), np.uint8)])
    shown = as_said(judge(frames), read_caption(truth.caption))
    assert shown.colour and shown.shape
