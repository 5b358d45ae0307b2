"""The embedded world: one shape on black that flies straight and bounces off the four walls.

Everything follows from (seed, split, index), so the truth about each video is known exactly: class, place in every
frame, and every reflection. Lengths are in picture sides, x to the right and y down, the picture is [0, 1] x [0, 1].

    truth = draw_truth(seed=0, index=5, frames=16)
    frames = render(truth, resolution=64)                  # uint8 [16, 64, 64, 3]
    positions = truth.positions                            # float64 [16, 2]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes_config import ShapesConfig

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 40, 40),
    "green": (40, 220, 40),
    "blue": (60, 90, 255),
    "yellow": (240, 220, 40),
}
SHAPES = ("circle", "square", "triangle")
CLASSES = tuple(f"{colour}_{shape}" for colour in COLOURS for shape in SHAPES)
SPEEDS = {"slow": 0.02, "fast": 0.04}  # picture sides per frame
SPLITS = ("train", "test")
HALF = 0.14  # half the side of the square that every shape is inscribed in
LOW, HIGH = HALF, 1 - HALF  # the centre stays between these, so that the square stays inside the picture
DIRECTIONS = (
    "to the right",
    "down and to the right",
    "down",
    "down and to the left",
    "to the left",
    "up and to the left",
    "up",
    "up and to the right",
)  # in eighths of a turn from "to the right"; y points down
SOUND_RATE = 16000
CLICKS = {"left": 880.0, "right": 880.0, "top": 440.0, "bottom": 440.0}  # hertz
CLICK_SECONDS = 0.06
_SUBROWS = 8
_CHUNK = 32  # frames rendered at once: their intermediate values stay in the cache of the processor


@dataclass(frozen=True)
class Reflection:
    """`frame` is the first that shows the shape after it has touched `wall` (left, right, top, bottom)."""

    frame: int
    wall: str


@dataclass(frozen=True)
class Truth:
    """Everything there is to know about one video of the embedded world."""

    index: int
    colour: str
    shape: str
    speed: str
    start: tuple[float, float]  # centre of the bounding square in frame 0
    velocity: tuple[float, float]  # of the first step, picture sides per frame
    frames: int

    @property
    def label(self) -> str:
        """The class, `<colour>_<shape>`."""
        return f"{self.colour}_{self.shape}"

    @property
    def caption(self) -> str:
        """Such as `a fast red circle moving up and to the left`."""
        turn = math.atan2(self.velocity[1], self.velocity[0]) / (2 * math.pi)
        return f"a {self.speed} {self.colour} {self.shape} moving {DIRECTIONS[round(8 * turn) % 8]}"

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Centres of the bounding square, float64 [frames, 2] as (x, y)."""
        return fold(self._free)

    @cached_property
    def reflections(self) -> tuple[Reflection, ...]:
        """Every touch of a wall, in order of time; at most one in each direction between two frames."""
        rooms = np.floor((self._free - LOW) / (HIGH - LOW)).astype(int)  # [frames, 2], changes at a wall
        found = []
        for frame, axis in np.argwhere(np.diff(rooms, axis=0) != 0):
            before, after = rooms[frame, axis], rooms[frame + 1, axis]
            high = max(before, after) % 2  # odd walls of the unfolded line are the right or bottom one
            found.append(Reflection(int(frame) + 1, (("left", "right"), ("top", "bottom"))[axis][high]))
        return tuple(found)

    @property
    def _free(self) -> NDArray[np.float64]:
        """The straight path that the shape would take without walls, [frames, 2]."""
        steps = np.arange(self.frames, dtype=np.float64)[:, None]
        return np.asarray(self.start) + steps * np.asarray(self.velocity)


def fold(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a straight path ends up when walls at LOW and HIGH reflect it; any shape."""
    span = HIGH - LOW
    return LOW + span - np.abs((free - LOW) % (2 * span) - span)


def draw_truth(
    seed: int, index: int, *, split: str = "train", frames: int = 16, label: int | str | None = None
) -> Truth:
    """Draw one video's truth. Class `index % 12` unless `label` (number or name) asks for another; speed, place and
    direction come from a generator of its own, seeded by (seed, split, index), and do not depend on `frames`."""
    number = index % len(CLASSES) if label is None else CLASSES.index(label) if isinstance(label, str) else label
    colour, shape = CLASSES[number].split("_")
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    speed = tuple(SPEEDS)[int(rng.random() < 0.5)]
    x, y = (LOW + (HIGH - LOW) * rng.random(2)).tolist()
    angle = 2 * math.pi * rng.random()
    vx, vy = SPEEDS[speed] * math.cos(angle), SPEEDS[speed] * math.sin(angle)
    # Rounded, so that the last bit of a library's cosine cannot reach the pixels.
    start, velocity = (round(x, 9), round(y, 9)), (round(vx, 9), round(vy, 9))
    return Truth(index, colour, shape, speed, start, velocity, frames)


def coverage(
    positions: NDArray[Any], shapes: NDArray[Any], resolution: int, pad: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """How much of each pixel a shape covers.  positions [N, 2], shapes int [N] (into SHAPES) -> float [N, P, P] in
    [0, 1] for a patch of P x P pixels, and the patch's first row and column, int [N, 2].

    Each pixel is cut into thin rows; within a row the covered part is exact. The patch holds the bounding square and
    `pad` more pixels on each side; it may reach beyond the picture."""
    radius = HALF * resolution
    size = math.ceil(2 * radius) + 1 + 2 * pad
    x, y = positions[:, 0, None] * resolution, positions[:, 1, None] * resolution  # [N, 1]
    left, top = np.floor(x - radius) - pad, np.floor(y - radius) - pad  # [N, 1]
    edge = top + np.arange(size * _SUBROWS) / _SUBROWS - y  # [N, P * 8], upper ends of the thin rows
    upper, lower = np.maximum(edge, -radius), np.minimum(edge + 1 / _SUBROWS, radius)
    height = np.maximum(lower - upper, 0)  # [N, P * 8], how much of the row lies within the shape's height
    middle = (upper + lower) / 2
    kind = shapes[:, None]
    half_width = np.where(
        kind == 0,
        np.sqrt(np.maximum(radius**2 - middle**2, 0)),
        np.where(kind == 1, radius, (middle + radius) / 2),
    )[..., None]  # [N, P * 8, 1]
    column = (left + np.arange(size) - x)[:, None]  # [N, 1, P], left ends of the pixels
    width = np.minimum(column + 1, half_width) - np.maximum(column, -half_width)  # [N, P * 8, P]
    np.clip(width, 0, 1, out=width)
    width *= height[..., None]
    patch = width.reshape(len(x), size, _SUBROWS, size).sum(2)  # [N, P, P]
    return patch, np.concatenate([top, left], 1).astype(np.int64)


def render_many(truths: Sequence[Truth], resolution: int) -> NDArray[np.uint8]:
    """Draw videos of equal length: uint8 [B, T, H, W, 3]."""
    length = truths[0].frames
    positions = np.concatenate([truth.positions for truth in truths])  # [B * T, 2]
    shapes = np.repeat([SHAPES.index(truth.shape) for truth in truths], length)  # [B * T]
    colours = np.repeat([COLOURS[truth.colour] for truth in truths], length, axis=0)  # [B * T, 3]
    frames = draw_frames(positions, shapes, colours, resolution)
    return frames.reshape(len(truths), length, resolution, resolution, 3)


def render(truth: Truth, resolution: int) -> NDArray[np.uint8]:
    """Draw one video: uint8 [T, H, W, 3]."""
    return render_many([truth], resolution)[0]


def draw_frames(
    positions: NDArray[Any], shapes: NDArray[Any], colours: NDArray[Any], resolution: int
) -> NDArray[np.uint8]:
    """One shape in each frame.  positions [N, 2], shapes int [N], colours [N, 3] in 0..255 -> uint8 [N, H, W, 3].
    What lies beyond the picture is cut off."""
    margin = math.ceil(2 * HALF * resolution) + 3
    far = HALF + 1 / resolution  # further out nothing is to be seen
    frames = np.zeros((len(positions), resolution, resolution, 3), np.uint8)
    for first in range(0, len(positions), _CHUNK):
        part = slice(first, first + _CHUNK)
        centres = np.clip(positions[part], -far, 1 + far)
        patch, corner = coverage(centres, shapes[part], resolution)
        n, size = patch.shape[:2]
        rows = corner[:, 0, None] + np.arange(size)  # [n, P]
        columns = corner[:, 1, None] + np.arange(size)  # [n, P]
        pixels = (patch[..., None] * colours[part][:, None, None] + 0.5).astype(np.uint8)  # [n, P, P, 3]
        if rows.min() >= 0 and columns.min() >= 0 and rows.max() < resolution and columns.max() < resolution:
            frames[np.arange(first, first + n)[:, None, None], rows[:, :, None], columns[:, None, :]] = pixels
            continue
        wide = np.zeros((n, resolution + 2 * margin, resolution + 2 * margin, 3), np.uint8)
        rows, columns = rows + margin, columns + margin
        wide[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]] = pixels
        frames[part] = wide[:, margin:-margin, margin:-margin]
    return frames


def clicks(truth: Truth, fps: float, rate: int = SOUND_RATE) -> NDArray[np.float32]:
    """The sound of a video, float32 [frames / fps * rate] in [-1, 1]: silence, and at every reflection a decaying tone
    of 60 ms that starts with its frame (880 Hz at the left and right wall, 440 Hz at the top and bottom one)."""
    sound = np.zeros(round(truth.frames / fps * rate), np.float64)
    time = np.arange(round(CLICK_SECONDS * rate)) / rate
    fade = np.exp(-time / (CLICK_SECONDS / 5))
    for reflection in truth.reflections:
        start = round(reflection.frame / fps * rate)
        tone = 0.45 * fade * np.sin(2 * math.pi * CLICKS[reflection.wall] * time)
        room = len(sound[start : start + len(tone)])
        sound[start : start + room] += tone[:room]
    return sound.astype(np.float32)


def make(config: ShapesConfig) -> None:
    """Write the dataset as files; see `tats.data.shapes_files.make`."""
    from tats.data import shapes_files

    shapes_files.make(config)


def main(argv: list[str] | None = None) -> None:
    """The verb `tats shapes`."""
    from tats import flags

    make(flags.parse(ShapesConfig, argv))
