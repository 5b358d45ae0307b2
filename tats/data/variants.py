"""Several crops of a video, and their mirror images: more codes out of the same films.

Variant 0 of a video is the middle square, as it is trained on everywhere. Variant `2 * crop + 1` is the mirror image of
variant `2 * crop`. Crops beyond the first are squares of three quarters to all of the shorter side, at a place that
follows from the name of the video and the number of the crop alone: all windows of a video are cut alike.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

SMALLEST = 0.75  # side of a crop, as a share of the shorter side of the picture


@dataclass(frozen=True)
class Variants:
    """How many crops of each training video there are, and whether each is mirrored too."""

    crops: int = 1
    flips: bool = False

    @property
    def numbers(self) -> list[int]:
        """The variants there are."""
        return [2 * crop + mirrored for crop in range(self.crops) for mirrored in range(1 + self.flips)]

    @property
    def facts(self) -> dict[str, int | bool]:
        """What an index says of them; nothing where there is variant 0 alone."""
        return {} if self.numbers == [0] else {"crops": self.crops, "flips": self.flips}


def box(name: str, variant: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the square that a variant shows of a video's pictures; all of them for the middle one."""
    crop = variant // 2
    if crop == 0:
        return slice(None), slice(None)
    key = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "little")
    share, down, across = np.random.default_rng([key, crop]).random(3)
    side = round(min(height, width) * (SMALLEST + (1 - SMALLEST) * share))
    top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
    return slice(top, top + side), slice(left, left + side)


def varied(frames: np.ndarray, name: str, variant: int) -> np.ndarray:
    """Frames uint8 [T, H, W, C] of a video as a variant shows them: uint8 [T, h, w, C]."""
    rows, columns = box(name, variant, *frames.shape[1:3])
    shown = frames[:, rows, columns]
    return np.ascontiguousarray(shown[:, :, ::-1]) if variant % 2 else np.ascontiguousarray(shown)
