"""Use of a codebook, and bits per dimension, against their definitions."""

import math

import pytest
import torch

from tats.metrics.usage import CodeUsage, Likelihood


def test_usage_counts_codes_of_any_shape():
    usage = CodeUsage(8)
    usage.add(torch.tensor([[0, 1], [1, 1]]))
    usage.add(torch.tensor([[[5]], [[5]], [[0]], [[0]]]))
    scores = usage.scores()
    assert (scores["codes_used"], scores["n_codes"], scores["codes_used_share"]) == (3, 8, 3 / 8)
    shares = [3 / 8, 3 / 8, 2 / 8]
    assert scores["perplexity"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    equal = CodeUsage(8)
    equal.add(torch.arange(8))
    assert equal.scores()["perplexity"] == pytest.approx(8)
    with pytest.raises(ValueError, match="no codes"):
        CodeUsage(8).scores()


def test_bits_per_dimension_are_those_of_the_codes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 6, 10, generator=generator)
    codes = torch.randint(10, (5, 6), generator=generator)
    likelihood = Likelihood(dimensions=3 * 4 * 8 * 8)
    likelihood.add(logits[:2], codes[:2])
    likelihood.add(logits[2:], codes[2:])
    bits = 0.0
    for video in range(5):
        for place in range(6):
            row = logits[video, place].double()
            bits -= float(torch.log2(row.softmax(0)[codes[video, place]]))
    scores = likelihood.scores()
    assert scores["bits_per_code"] == pytest.approx(bits / 30, rel=1e-9)
    assert scores["bits_per_dimension"] == pytest.approx(bits / 5 / 768, rel=1e-9)
    assert scores["code_perplexity"] == pytest.approx(2 ** (bits / 30), rel=1e-9)
    blind = Likelihood(12)
    blind.add(torch.zeros(1, 4, 16), torch.zeros(1, 4, dtype=torch.long))
    assert blind.scores()["bits_per_code"] == pytest.approx(4)  # one of 16
    with pytest.raises(ValueError, match="must agree"):
        likelihood.add(logits, codes[:, :3])
    with pytest.raises(ValueError, match="no codes"):
        Likelihood(12).scores()
