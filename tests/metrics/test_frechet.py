"""Frechet and kernel distances: the reference cases, closed formulas, streaming."""

import numpy as np
import pytest
import scipy.linalg
import torch
from reference_cases import Case

from tats.metrics.frechet import (
    Moments,
    as_features,
    frechet_distance,
    kernel_distance,
    kernel_distance_of_subsets,
)
from tats.metrics.i3d import preprocess

SETS = ("n60_d12", "n40_d24_small", "n16_d40_singular", "n30_3d")
PARITY = Case("fvd_stats")


def moments(features: np.ndarray, pieces: int = 1) -> Moments:
    found = Moments()
    for piece in np.array_split(features, pieces):
        found.add(piece)
    return found


@pytest.mark.parametrize("name", SETS)
def test_distances_are_the_published_ones(name):
    a, b = PARITY.inputs[f"{name}_a"], PARITY.inputs[f"{name}_b"]
    PARITY.check(f"{name}/frechet", frechet_distance(a, b))
    PARITY.check(f"{name}/frechet", moments(a).distance(moments(b)))
    PARITY.check(f"{name}/frechet_self", frechet_distance(a, a))
    shift = as_features(a).mean(0) - as_features(b).mean(0)
    PARITY.check(f"{name}/mean_sq_diff", shift @ shift)
    traces = sum(float(moments(each).covariance().trace()) for each in (a, b))
    PARITY.check(f"{name}/trace_sqrt_product", (traces + float(shift @ shift) - frechet_distance(a, b)) / 2)
    if f"{name}/kvd" in PARITY.outputs:
        PARITY.check(f"{name}/kvd", kernel_distance(a, b))


@pytest.mark.parametrize("name", SETS)
def test_covariance_is_the_published_one(name):
    covariance = moments(PARITY.inputs[f"{name}_a"], pieces=3).covariance()
    expected = PARITY.outputs[f"{name}/cov_a"]
    PARITY.check(f"{name}/cov_a", covariance if expected.ndim == 2 else covariance.diagonal())


@pytest.mark.parametrize("name", ("videos_wide", "videos_up"))
def test_preprocessing_is_the_published_one(name):
    size = tuple(int(n) for n in PARITY.inputs[f"res_{name}"])
    PARITY.check(f"preprocess/{name}", preprocess(torch.from_numpy(PARITY.inputs[name]), size))


def gaussian(covariance: np.ndarray, mean: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` points whose sample mean and unbiased sample covariance are exactly those asked for."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x -= x.mean(0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / (n - 1))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_of_gaussians_it_is_the_closed_formula():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal(6)
    half = rng.standard_normal((6, 6))
    first, second = half @ half.T + np.eye(6), np.diag(rng.uniform(0.5, 2, 6))
    a, b = gaussian(first, np.zeros(6), 50, 1), gaussian(second, mean, 80, 2)
    root = np.sqrt(np.linalg.eigvals(first @ second).real).sum()
    expected = mean @ mean + np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert moments(a).distance(moments(b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", (5, 200))  # fewer and more than dimensions
def test_a_set_is_at_no_distance_from_itself(n):
    a = np.random.default_rng(0).standard_normal((n, 20))
    assert abs(frechet_distance(a, a[::-1])) < 1e-10
    assert kernel_distance(a, a) < 0  # unbiased: the diagonal, where a set meets itself, is left out of two terms


def test_the_unbiased_and_the_biased_covariance_differ_by_exactly_n_over_n_minus_1():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 8)), rng.standard_normal((40, 8)) * 1.5 + 1
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    unbiased, biased = frechet_distance(a, b, ddof=1) - shift, frechet_distance(a, b, ddof=0) - shift
    assert unbiased / biased == pytest.approx(40 / 39, rel=1e-9)


def test_streaming_equals_one_piece_and_any_order():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((101, 7)) * 0.01 + 1000  # a mean that would swallow the digits of raw sums
    whole, parts, other = moments(a), moments(a, 13), moments(a[rng.permutation(101)], 4)
    for found in (parts, other):
        assert found.count == 101
        torch.testing.assert_close(found.covariance(), whole.covariance(), rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(whole.covariance(), torch.from_numpy(np.cov(a.T)), rtol=1e-9, atol=1e-15)
    halves = moments(a[:50])
    halves.merge(moments(a[50:]))
    torch.testing.assert_close(halves.covariance(), whole.covariance(), rtol=1e-9, atol=1e-15)


def test_kernel_distance_equals_the_sum_over_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 5)), rng.standard_normal((7, 5)) + 0.3

    def kernel(x, y):
        return (x @ y / 5 + 1) ** 3

    within_a = np.mean([kernel(a[i], a[j]) for i in range(9) for j in range(9) if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in range(7) for j in range(7) if i != j])
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * across, rel=1e-9)


def test_it_equals_the_matrix_square_root():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((90, 12)) @ rng.standard_normal((12, 12)), rng.standard_normal((70, 12)) * 2 + 1
    shift = a.mean(0) - b.mean(0)
    for ddof in (0, 1):
        first, second = np.cov(a.T, ddof=ddof), np.cov(b.T, ddof=ddof)
        root = scipy.linalg.sqrtm(first @ second)
        expected = float(shift @ shift + np.trace(first + second) - 2 * np.trace(root).real)
        assert frechet_distance(a, b, ddof, floor=0) == pytest.approx(expected, rel=1e-9)
        assert moments(a, 5).distance(moments(b, 3), ddof, floor=0) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_leave_no_noise():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    a = np.zeros((9, 40))
    a[:, :5] = 1e3 * rng.standard_normal((9, 5))  # spans other directions than b does
    b = np.zeros((200, 40))
    b[:, 5:9] = rng.standard_normal((200, 4))
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))
    for x, y in ((a @ basis, b @ basis), (b @ basis, a @ basis)):
        assert frechet_distance(x, y, floor=0) == pytest.approx(exact, rel=1e-9)
        assert moments(x).distance(moments(y), floor=0) == pytest.approx(exact, rel=1e-9)
    assert abs(moments(a @ basis).distance(moments(a @ basis), floor=0)) < 1e-9 * exact


def test_subsets_average_to_the_kernel_distance():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 5)), rng.standard_normal((50, 5)) + 0.3
    found = kernel_distance_of_subsets(a, b, subsets=300, size=30)
    assert found["size"] == 30
    assert found["mean"] == pytest.approx(kernel_distance(a, b), abs=4 * found["deviation"] / 300**0.5)
    assert found == kernel_distance_of_subsets(a, b, subsets=300, size=30)
    whole = kernel_distance_of_subsets(a[:50], b, subsets=2, size=1000)
    assert whole["size"] == 50 and whole["mean"] == pytest.approx(kernel_distance(a[:50], b), rel=1e-9)


def test_few_clips_are_said_to_be_few():
    rng = np.random.default_rng(0)
    assert moments(rng.standard_normal((8, 8))).singular
    assert not moments(rng.standard_normal((9, 8))).singular


def test_wrong_features_are_refused():
    with pytest.raises(ValueError, match="same width, got 3 and 4"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="a holds 1 features"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="at least two features"):
        kernel_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"must be \[n, width\]"):
        frechet_distance(np.zeros(3), np.zeros(3))
