"""Several crops of a video, and their mirror images: more codes out of the same films.

Variant 0 of a video is the middle square, as it is trained on everywhere. Variant `2 * crop + 1` is the mirror image of
variant `2 * crop`. Crops beyond the first are squares of three quarters to all of the shorter side, at a place that
follows from the name of the video and the number of the crop alone: all windows of a video are cut alike.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tats.flags import UserError
from tats.video import preprocess

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
    def several(self) -> bool:
        """Whether there is more than the middle square."""
        return len(self.numbers) > 1

    @property
    def facts(self) -> dict[str, int | bool]:
        """What an index says of them; nothing where there is variant 0 alone."""
        return {"crops": self.crops, "flips": self.flips} if self.several else {}


PLAIN = Variants()


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


def cropped(frames: np.ndarray, name: str, variant: int) -> np.ndarray:
    """Frames uint8 [T, H, W, C] of a video, of which a variant shows the middle square: uint8 [T, h, w, C]."""
    rows, columns = box(name, variant, *frames.shape[1:3])
    return np.ascontiguousarray(frames[:, rows, columns])


class Varied:
    """A source in which every variant of a video is a video of its own; `names` tell them apart."""

    def __init__(self, source: Any, variants: Variants):
        """Raises:
        UserError: the source has no pixels to crop, or semantic maps beside them that would no longer fit.
        """
        self.source, self.numbers, self.config, self.span = source, variants.numbers, source.config, source.span
        if getattr(source, "maps", None) is not None or not (
            hasattr(source, "frames") or getattr(source, "ready", False)
        ):
            raise UserError(
                "--crops and --flips are for videos in files, HDF5 or pictures, without semantic maps or sounds beside "
                "their codes: leave them out"
            )
        each, n = len(self.numbers), len(source.starts)
        names = getattr(source, "names", None) or [str(number) for number in range(n)]
        self.plain_names = list(names)
        self.names = [name + told(variant) for name in names for variant in self.numbers]
        self.starts, self.clips = np.repeat(source.starts, each), np.repeat(source.clips, each)
        self.labels = np.repeat(getattr(source, "labels", np.zeros(n, np.int64)), each)
        texts = getattr(source, "texts", None)
        rows = getattr(source, "videos", range(n))  # of a table some videos are too short
        self.texts = None if texts is None else [texts[int(row)] for row in rows for _ in self.numbers]

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5], `label` int.

        Raises:
            ReadError: it cannot be decoded there.
        """
        of, which = divmod(video, len(self.numbers))
        frames = self.source.frames(of, start) if hasattr(self.source, "frames") else None
        if frames is None:
            frames = self.source.read(of, start, draw, raw=True)["frames"].numpy()
        variant = self.numbers[which]
        shown = cropped(frames, self.plain_names[of], variant)
        clip = preprocess(shown, self.config.resolution, image_channels=self.config.image_channels)
        return {"video": clip.flip(-1) if variant % 2 else clip, "label": int(self.labels[video])}


def told(variant: int) -> str:
    """What is added to the name of a video to name a variant of it."""
    crop, mirrored = divmod(variant, 2)
    parts = [f"crop {crop}"] * (crop > 0) + ["mirrored"] * mirrored
    return f" ({', '.join(parts)})" if parts else ""
