"""Which training clip is closest to a generated one, by codes: has the model learned, or does it repeat?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats.metrics.counts import Count

_BYTES = 64_000_000  # memory for one block of comparisons


@dataclass(frozen=True)
class Nearest:
    """The closest training clip of each generated one.

    `index` int64 [N] counts the training clips in the order in which they came (the first of equals); `agreement`
    float64 [N] is the share of codes that are the same at the same place.
    """

    index: NDArray[np.int64]
    agreement: NDArray[np.float64]

    @property
    def copies(self) -> Count:
        """How many generated clips are a training clip code by code."""
        return Count(int((self.agreement == 1).sum()), len(self.agreement))

    def scores(self) -> dict[str, Any]:
        """Plain values: share and number of exact copies with its interval, and the mean and largest agreement."""
        low, high = self.copies.interval
        return {
            "copies": self.copies.hits,
            "n_generated": self.copies.total,
            "copies_share": self.copies.share,
            "copies_interval": [low, high],
            "agreement_mean": float(self.agreement.mean()),
            "agreement_max": float(self.agreement.max()),
        }


def nearest_clips(codes: Any, training: Any) -> Nearest:
    """Find for each clip of codes [N, t, h, w] the training clip that shares the most codes with it.

    `training` is one array or tensor [M, t, h, w] or an iterable of such batches, gone through once: memory does not
    grow with the number of training clips.

    Raises:
        ValueError: the shapes of the clips differ, or one side is empty.
    """
    ours = _rows(codes)
    best = np.full(len(ours), -1, np.int64)
    index = np.zeros(len(ours), np.int64)
    seen = 0
    batches: Iterable[Any] = [training] if hasattr(training, "shape") else training
    for batch in batches:
        theirs = _rows(batch)
        if theirs.shape[1] != ours.shape[1]:
            raise ValueError(f"clips must have equally many codes, got {ours.shape[1]} and {theirs.shape[1]}")
        if len(theirs):
            same, place = _closest(ours, theirs)
            better = same > best
            best[better], index[better] = same[better], place[better] + seen
            seen += len(theirs)
    if not seen or not len(ours):
        raise ValueError(f"a nearest clip needs clips on both sides, got {len(ours)} generated and {seen} for training")
    return Nearest(index, best / ours.shape[1])


def _closest(ours: NDArray[Any], theirs: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of equal codes with the closest of `theirs` [M, L], and its place, for each of `ours` [N, L]."""
    step = max(1, _BYTES // max(1, theirs.size))
    same = np.empty(len(ours), np.int64)
    place = np.empty(len(ours), np.int64)
    for start in range(0, len(ours), step):
        equal = np.count_nonzero(ours[start : start + step, None] == theirs[None], axis=2)  # [step, M]
        place[start : start + step] = equal.argmax(1)
        same[start : start + step] = equal.max(1)
    return same, place


def _rows(codes: Any) -> NDArray[Any]:
    """Codes as an integer array [N, L]."""
    array = codes.detach().cpu().numpy() if hasattr(codes, "detach") else np.asarray(codes)
    if array.ndim < 2 or array.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers [N, t, h, w], got {array.dtype} {list(array.shape)}")
    rows = array.reshape(len(array), -1)
    return rows.astype(np.int32, copy=False)  # half the memory traffic of int64
