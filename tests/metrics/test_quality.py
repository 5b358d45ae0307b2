"""PSNR and SSIM against slow definitions, and their sums over batches."""

import math

import numpy as np
import pytest
import torch

from tats.metrics.quality import CEILING, Quality, psnr, ssim
from tats.video import from_frames


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(256, (3, 2, 14, 17, 3), generator=generator, dtype=torch.uint8)
    noise = torch.randint(-20, 21, a.shape, generator=generator)
    return a, (a.int() + noise).clamp(0, 255).to(torch.uint8)


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One picture [H, W, C] of 0..255, window by window, as in the paper."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            for c in range(a.shape[2]):
                p, q = (v[y : y + 11, x : x + 11, c].astype(float) for v in (a, b))
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                both = (window * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + c1) * (2 * both + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def test_psnr_equals_its_definition(pair):
    a, b = pair
    error = ((a[1, 0].double() - b[1, 0].double()) ** 2).mean()
    assert psnr(a, b)[1, 0].item() == pytest.approx(10 * math.log10(255**2 / error), rel=1e-12)


def test_ssim_equals_its_definition(pair):
    a, b = pair
    expected = [[slow_ssim(a[i, t].numpy(), b[i, t].numpy()) for t in range(2)] for i in range(3)]
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, rtol=1e-9)


def test_frames_and_video_give_the_same(pair):
    a, b = pair
    torch.testing.assert_close(psnr(from_frames(a), from_frames(b)), psnr(a, b), rtol=1e-6, atol=0)
    torch.testing.assert_close(ssim(from_frames(a), from_frames(b)), ssim(a, b), rtol=1e-5, atol=0)


def test_equal_clips_have_the_best_scores(pair):
    a, _ = pair
    assert psnr(a, a).isinf().all()
    torch.testing.assert_close(ssim(a, a), torch.ones(3, 2, dtype=torch.float64))
    quality = Quality()
    quality.add(a, a)
    scores = quality.scores()
    assert scores["psnr"] == scores["psnr_pooled"] == CEILING
    assert scores["n_perfect_frames"] == 6


def test_batches_equal_the_whole(pair):
    a, b = pair
    whole, parts = Quality(), Quality()
    whole.add(a, b)
    for i in range(3):
        parts.add(a[i : i + 1], b[i : i + 1])
    assert parts.scores() == pytest.approx(whole.scores(), rel=1e-12)
    scores = whole.scores()
    assert scores["psnr"] == pytest.approx(psnr(a, b).mean().item())
    assert scores["psnr_deviation"] == pytest.approx(psnr(a, b).mean(1).std(correction=0).item(), rel=1e-6)
    assert scores["ssim"] == pytest.approx(ssim(a, b).mean().item())
    assert (scores["n_clips"], scores["n_frames"]) == (3, 6)


def test_wrong_input_is_refused(pair):
    a, _ = pair
    with pytest.raises(ValueError, match="of one shape"):
        psnr(a, a[:, :1])
    with pytest.raises(ValueError, match="at least 11 x 11, got 10 x 17"):
        ssim(a[:, :, :10], a[:, :, :10])
    with pytest.raises(ValueError, match="must be uint8"):
        psnr(a.int(), a.int())
    with pytest.raises(ValueError, match="no clips were compared"):
        Quality().scores()
