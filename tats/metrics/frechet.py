"""Distances between two sets of features: Frechet (the one inside FVD and FID) and kernel (KVD, KID).

Everything is computed in float64. `Moments` gathers mean and covariance batch by batch, so that any number of clips
fits; `frechet_distance` takes the features themselves. No matrix square root is taken: the trace of (S_a S_b)^(1/2) is
a sum of singular values, which exists for singular covariances too and can't become complex.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-10  # eigenvalues below this are rounding noise: the published square root leaves them as they are
_ROWS = 1024  # rows of a kernel matrix that are held at once


def frechet_distance(a: Any, b: Any, ddof: int = 1, *, floor: float = FLOOR) -> float:
    """|mean_a - mean_b|^2 + trace(S_a + S_b - 2 (S_a S_b)^(1/2)) of Gaussians with the moments of two feature sets.

    With centred features X and Y the last trace is the sum of the singular values of X Y^T / sqrt(n m) (its nuclear
    norm), which needs neither a matrix square root nor a covariance where there are fewer clips than dimensions.

    Args:
        a, b: features [n, width] and [m, width], arrays or tensors of any float type; further dimensions are flattened.
        ddof: 1 for the unbiased covariance (TATS), 0 for the biased one (StyleGAN-V).
        floor: square roots are taken of eigenvalues from this on, smaller ones stay as they are, as in the published
            code; it matters for features of a spread below 1e-4 only. 0 gives the plain formula.

    Raises:
        ValueError: the widths differ, or a set has too few clips for a covariance.
    """
    x, y = as_features(a), as_features(b)
    _check_width(x.shape[1], y.shape[1])
    for name, features in (("a", x), ("b", y)):
        if len(features) <= ddof:
            raise ValueError(f"{name} holds {len(features)} features, a covariance needs at least {ddof + 1}")
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = (x - mean_x) / (len(x) - ddof) ** 0.5, (y - mean_y) / (len(y) - ddof) ** 0.5
    values, axes = _spectrum(x)
    left = axes * _root(values, floor)  # [width, r], left left^T = S_a
    right = y.T if len(y) < y.shape[1] else _factor(y.T @ y)  # [width, m or width], right right^T = S_b
    return _distance(mean_x - mean_y, float((x**2).sum() + (y**2).sum()), left.T @ right, floor)


def _spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [r] and eigenvectors [width, r] of x^T x, x [n, width]; from singular values of x where n < width."""
    if len(x) >= x.shape[1]:
        values, axes = torch.linalg.eigh(x.T @ x)
        return values, axes
    _, singular, right = torch.linalg.svd(x, full_matrices=False)
    return singular**2, right.T


def _factor(covariance: Tensor) -> Tensor:
    """f [width, width] with f f^T = covariance."""
    values, axes = torch.linalg.eigh(covariance)
    return axes * _root(values, 0)


def _root(values: Tensor, floor: float) -> Tensor:
    """Square roots of eigenvalues. What rounding leaves where an eigenvalue is 0 counts as 0; values below `floor` stay
    as they are."""
    noise = float(values.abs().max()) * len(values) * torch.finfo(values.dtype).eps if len(values) else 0.0
    values = torch.where(values > noise, values, torch.zeros_like(values))
    return torch.where(values < floor, values, values.sqrt())


def _distance(shift: Tensor, traces: float, half: Tensor, floor: float) -> float:
    """The distance from the difference of means [width], the sum of both traces, and `half` with half half^T =
    S_a^(1/2) S_b S_a^(1/2)."""
    roots = torch.linalg.svdvals(half)  # of the shared covariance's eigenvalues
    shared = torch.where(roots**2 < floor, roots**2, roots).sum()
    return float(shift @ shift) + traces - 2 * float(shared)


@dataclass
class Moments:
    """Mean and covariance of features that arrive in batches, in float64, in memory that does not grow.

    Batches are merged by Chan's formula, which does not lose digits when the mean is large. Features may have weights:
    then sums over features become weighted sums, and `ddof` takes away squares / weight, which is 1 for equal weights.
    """

    count: int = 0  # features
    mean: Tensor | None = None  # [width]
    scatter: Tensor | None = None  # [width, width], sum of the outer products of centred features
    weight: float = -1.0  # sum of the weights; below zero: all are 1
    squares: float = -1.0  # sum of their squares

    def __post_init__(self) -> None:
        if self.weight < 0:
            self.weight = self.squares = float(self.count)

    def add(self, features: Any, weights: Any = None) -> None:
        """Take in features [n, width], each with weight 1 or those of `weights` [n], positive numbers."""
        x = as_features(features)
        if not len(x):
            return
        if weights is None:
            mean = x.mean(0)
            centred = x - mean
            self.merge(Moments(len(x), mean, centred.T @ centred))
            return
        w = torch.as_tensor(weights).to("cpu", torch.float64).flatten()
        if w.shape != (len(x),) or not bool((w > 0).all()):
            raise ValueError(f"weights must be {len(x)} positive numbers, one for each feature, got {w.tolist()[:5]}")
        mean = (w[:, None] * x).sum(0) / w.sum()
        centred = x - mean
        self.merge(Moments(len(x), mean, centred.T @ (w[:, None] * centred), float(w.sum()), float(w.square().sum())))

    def merge(self, other: "Moments") -> None:
        """Take in what another gathered: other files, other processes."""
        if other.mean is None or other.scatter is None:
            return
        if self.mean is None or self.scatter is None:
            self.mean, self.scatter = other.mean.clone(), other.scatter.clone()
            self.count, self.weight, self.squares = other.count, other.weight, other.squares
            return
        _check_width(len(self.mean), len(other.mean))
        total = self.weight + other.weight
        shift = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(shift, shift) * (self.weight * other.weight / total)
        self.mean += shift * (other.weight / total)
        self.count += other.count
        self.weight, self.squares = total, self.squares + other.squares

    def covariance(self, ddof: int = 1) -> Tensor:
        """float64 [width, width]; `ddof` 1 divides by n - 1, 0 by n."""
        if self.scatter is None or self.count <= ddof:
            raise ValueError(f"{self.count} features were added, a covariance needs at least {ddof + 1}")
        return self.scatter / (self.weight - ddof * self.squares / self.weight)

    @property
    def width(self) -> int:
        """Numbers in one feature; 0 before anything was added."""
        return 0 if self.mean is None else len(self.mean)

    @property
    def singular(self) -> bool:
        """Fewer features than dimensions: the covariance has directions that were never seen, and the distance is
        biased upwards."""
        return self.count <= self.width

    def distance(self, other: "Moments", ddof: int = 1, *, floor: float = FLOOR) -> float:
        """The Frechet distance to `other`; equals `frechet_distance` of the features within rounding."""
        mine, theirs = self.covariance(ddof), other.covariance(ddof)
        if self.mean is None or other.mean is None:
            raise ValueError("a distance needs features on both sides")
        _check_width(self.width, other.width)
        values, axes = torch.linalg.eigh(mine)
        half = (axes * _root(values, floor)).T @ _factor(theirs)  # [width, width]
        return _distance(self.mean - other.mean, float(mine.trace() + theirs.trace()), half, floor)


def kernel_distance(a: Any, b: Any) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / width + 1)^3, unbiased (it may be slightly negative).

    Args:
        a, b: features [n, width] and [m, width] with n, m >= 2; further dimensions are flattened.

    Raises:
        ValueError: the widths differ, or a set holds fewer than two features.
    """
    x, y = as_features(a), as_features(b)
    _check_width(x.shape[1], y.shape[1])
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"a kernel distance needs at least two features on each side, got {n} and {m}")
    within_x = (_kernel_sum(x, x) - float(((x**2).sum(1) / x.shape[1] + 1).pow(3).sum())) / (n * (n - 1))
    within_y = (_kernel_sum(y, y) - float(((y**2).sum(1) / y.shape[1] + 1).pow(3).sum())) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y) / (n * m)


def kernel_distance_of_subsets(a: Any, b: Any, subsets: int = 100, size: int = 1000, seed: int = 0) -> dict[str, float]:
    """`kernel_distance` between random subsets of both sides, as published for KID: mean and deviation over subsets.

    Args:
        a, b: features [n, width] and [m, width].
        subsets: how many are drawn. size: features in each; as many as the smaller side has, if that is fewer.
        seed: of the draws; every subset has no feature twice.

    Returns:
        "mean" and "deviation" (population) over the subsets, and "size", the features in each.
    """
    x, y = as_features(a), as_features(b)
    size = min(size, len(x), len(y))
    rng = np.random.default_rng(seed)
    found = [
        kernel_distance(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)])
        for _ in range(subsets)
    ]
    return {"mean": float(np.mean(found)), "deviation": float(np.std(found)), "size": size}


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    """Sum over all pairs; the matrix is made a few rows at a time."""
    return sum(float((rows @ y.T / x.shape[1] + 1).pow(3).sum()) for rows in _pieces(x))


def _pieces(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(_ROWS))


def as_features(features: Any) -> Tensor:
    """Features as float64 [n, width] on the CPU; dimensions after the first are flattened."""
    tensor = features.detach() if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
    if tensor.ndim < 2:
        raise ValueError(f"features must be [n, width], got {list(tensor.shape)}")
    return tensor.to("cpu", torch.float64).flatten(1)


def _check_width(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"both sides need features of the same width, got {a} and {b}")
