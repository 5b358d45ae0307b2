"""The inception score against the published arithmetic, and what it refuses."""

import numpy as np
import pytest
import torch

from tats.flags import UserError
from tats.metrics.inception_score import InceptionScore, inception_score


def answers(n: int, classes: int = 6) -> np.ndarray:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(0)).mul(3).double().softmax(1).numpy()


def slow(probabilities: np.ndarray, splits: int, shuffle: int | None) -> tuple[float, float]:
    """All answers held, shuffled as they lie, part by part."""
    p = probabilities.copy()
    if shuffle is not None:
        np.random.RandomState(shuffle).shuffle(p)
    n, values = len(p), []
    for k in range(splits):
        part = p[k * n // splits : (k + 1) * n // splits]
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        values.append(np.exp(divergence.sum(1).mean()))
    return float(np.mean(values)), float(np.std(values))


@pytest.mark.parametrize("splits, shuffle", [(1, None), (10, None), (10, 42), (7, 42)])
def test_it_is_the_published_one_in_any_order(splits, shuffle):
    p = answers(103)
    score = InceptionScore(103, splits, shuffle)
    for places in np.array_split(np.random.default_rng(0).permutation(103), 9):
        score.add(p[places], places)
    found = score.scores()
    assert (found["IS"], found["IS_deviation"]) == pytest.approx(slow(p, splits, shuffle), rel=1e-12)


def test_its_bounds():
    sure = InceptionScore(8, 1)
    sure.add(np.eye(4)[np.arange(8) % 4], np.arange(8))
    assert sure.scores()["IS"] == pytest.approx(4)  # as many as there are classes
    unsure = InceptionScore(8, 2)
    unsure.add(np.full((8, 4), 0.25), np.arange(8))
    assert unsure.scores()["IS"] == pytest.approx(1)


class Colours:
    """Answers with the shares of the colours."""

    min_frames = 1

    def __init__(self, unit: str):
        self.unit = unit

    def probabilities(self, frames: torch.Tensor) -> torch.Tensor:
        means = frames.double().add(1).mean((2, 3))  # [B, T, 3]
        rows = means.flatten(0, 1) if self.unit == "frame" else means.mean(1)
        return rows / rows.sum(1, keepdim=True)

    def describe(self) -> dict:
        return {"name": "Colours", "fingerprint": "none"}


@pytest.mark.parametrize("unit", ["clip", "frame"])
def test_clips_and_frames_are_scored_in_batches(unit):
    frames = torch.randint(256, (24, 3, 2, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network = Colours(unit)
    found = inception_score((frames[k : k + 5] for k in range(0, 24, 5)), network, 20, splits=4, shuffle=42)
    assert found["IS"] == pytest.approx(slow(network.probabilities(frames[:20]).numpy(), 4, 42)[0], rel=1e-9)
    assert found["n"] == (60 if unit == "frame" else 20) and found["line"].startswith("IS ")
    with pytest.raises(UserError, match="lacks the answers for"):
        inception_score([frames], network, 25)


def test_wrong_answers_are_refused():
    score = InceptionScore(10, 2)
    score.add(answers(3), [0, 1, 2])
    for rows, places, said in (
        (answers(2), [2, 3], "each given once"),
        (answers(2), [3, 3], "each given once"),
        (answers(1), [10], "each given once"),
        (np.ones((1, 6)), [3], "sum to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            score.add(rows, places)
    with pytest.raises(UserError, match="lacks the answers for 7 of them"):
        score.scores()
    with pytest.raises(UserError, match="at least as many clips, got 3"):
        InceptionScore(3, 10)
