"""The nearest training clip by codes."""

import numpy as np
import pytest
import torch

from tats.metrics import nearest
from tats.metrics.nearest import nearest_clips

RNG = np.random.default_rng(0)
TRAINING = RNG.integers(0, 50, (40, 2, 3, 3))


def test_a_copy_is_found_and_counted():
    codes = np.stack([TRAINING[7], RNG.integers(0, 50, (2, 3, 3)), TRAINING[30]])
    found = nearest_clips(torch.from_numpy(codes), TRAINING)
    assert found.index[[0, 2]].tolist() == [7, 30]
    assert found.agreement[[0, 2]].tolist() == [1, 1]
    assert (found.copies.hits, found.copies.total) == (2, 3)
    assert found.scores()["copies_share"] == 2 / 3


def test_the_clip_that_shares_most_codes_wins():
    clip = TRAINING[5].copy()
    clip.flat[:4] = 99
    found = nearest_clips(clip[None], TRAINING)
    assert found.index.tolist() == [5]
    assert found.agreement[0] == 14 / 18
    assert found.copies.hits == 0


def test_training_clips_may_come_in_batches(monkeypatch):
    codes = RNG.integers(0, 50, (11, 2, 3, 3))
    whole = nearest_clips(codes, TRAINING)
    monkeypatch.setattr(nearest, "_BYTES", 500)  # a few comparisons at a time
    pieces = nearest_clips(codes, (torch.from_numpy(part) for part in np.array_split(TRAINING, 7)))
    assert whole.index.tolist() == pieces.index.tolist()
    assert whole.agreement.tolist() == pieces.agreement.tolist()
    slow = [max(range(40), key=lambda m: ((clip == TRAINING[m]).sum(), -m)) for clip in codes]
    assert whole.index.tolist() == slow


def test_wrong_codes_are_refused():
    with pytest.raises(ValueError, match="equally many codes, got 18 and 9"):
        nearest_clips(TRAINING, TRAINING[:, :1])
    with pytest.raises(ValueError, match="0 for training"):
        nearest_clips(TRAINING, iter([]))
    with pytest.raises(ValueError, match="codes must be integers"):
        nearest_clips(TRAINING * 0.5, TRAINING)
