"""Judges videos of the embedded world from their pixels alone.

    judgement = judge(frames, colour="red", shape="circle")     # uint8 [T, H, W, 3]
    judgement.right_object, judgement.motion, judgement.valid
    print(summary(judgements)["valid"])                         # 77.9 % (72.3-82.7 %), 187 of 240

*Right object*: exactly one object of the asked colour and shape in every frame. *Motion*: share of the steps that go
on with the current velocity or that a reflection at a wall explains. *Valid*: the right object, motion of at least
0.9, inside the walls, no teleport, no turn in mid-air, a legal speed (slow or fast) that is kept, and not blurred.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import COLOURS, HALF, HIGH, LOW, SHAPES, SPEEDS, coverage
from tats.metrics.counts import Count
from tats.metrics.oracle_track import Point, Steps, Track, follow

BRIGHT = 0.4  # a pixel brighter than this belongs to an object
SPECK = 0.3  # of the smallest shape's area: anything smaller is not an object
COLOUR_OFF = 0.35  # distance of a colour to its palette entry, each channel in [0, 1]
MISFIT = 0.25  # energy of the difference to an ideal picture of the shape, against the picture's own: in one frame
SOFT = (0.12, 0.125, 0.19)  # and in the typical frame: a blur of 0.04-0.05 sides; a triangle has the longest edges
BACKGROUND = 0.05  # root mean square of what is outside the shape's surroundings
OUTSIDE = 0.015  # how far beyond a wall a shape may seem, picture sides
MOTION = 0.9  # share of steps that have to agree
LEGAL = 0.2  # relative distance to the nearest legal speed
KEPT = 0.25  # relative change of the speed within a video
_PALETTE = np.array(list(COLOURS.values()), np.float32) / 255  # [4, 3]
_DROP = (0.0, 0.0, HALF / 3)  # how far a shape's centre of mass lies below the centre of its square
_CHUNK = 128


@dataclass(frozen=True)
class Looks:
    """What is seen in each of T frames. Colours and shapes are numbers into COLOURS and SHAPES, -1 is none of them."""

    objects: NDArray[np.int64]  # [T] how many
    colour: NDArray[np.int64]  # [T] of the largest object
    shape: NDArray[np.int64]  # [T]
    position: NDArray[np.float64]  # [T, 2] centre of its bounding square (x, y) in picture sides; NaN without object
    misfit: NDArray[np.float64]  # [T] against an ideal picture of the best shape: 0 is perfect, 1 as bad as black
    background: NDArray[np.float64]  # [T] root mean square brightness elsewhere, in [0, 1]


@dataclass(frozen=True)
class Scores:
    """The verdict on a video, or on a part of it."""

    right_object: bool
    motion: float  # share of steps that agree
    teleports: int
    turns_at_walls: bool  # it never took a new course in mid-air or beyond a wall, and turned where it had to
    keeps_speed: bool
    legal_speed: bool
    sharp: bool  # in half of the frames or more
    valid: bool


@dataclass(frozen=True)
class Judgement(Scores):
    """The verdict on a whole video, with everything it rests on."""

    asked_colour: str
    asked_shape: str
    looks: Looks
    right: NDArray[np.bool_]  # [T] one object of the asked colour and shape
    inside: NDArray[np.bool_]  # [T] within the walls
    track: Track

    @property
    def position(self) -> NDArray[np.float64]:
        """Where it is in each frame, float [T, 2], picture sides."""
        return self.looks.position

    @property
    def start(self) -> Point:
        """Fitted place in the first frame."""
        return self.track.start

    @property
    def velocity(self) -> Point:
        """Fitted velocity of the first step, picture sides per frame."""
        return self.track.velocity

    def part(self, first: int, last: int) -> Scores:
        """The scores of frames first..last-1 alone, and of the steps between them."""
        frames = slice(first, last)
        soft = softness(self.looks)[frames]
        return Scores(*verdict(self.right[frames], self.inside[frames], soft, self.track.part(first, last - 1)))


def look(frames: NDArray[np.uint8]) -> Looks:
    """Find the object in each frame.  uint8 [T, H, W, 3], square pictures of at least 16 pixels."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.shape[1] != frames.shape[2]:
        raise ValueError(f"frames must be uint8 [T, H, H, 3], got {frames.dtype} {list(frames.shape)}")
    parts = [_look(frames[first : first + _CHUNK]) for first in range(0, len(frames), _CHUNK)]
    return Looks(*(np.concatenate([part[i] for part in parts]) for i in range(6)))


def judge(frames: NDArray[np.uint8], colour: str | None = None, shape: str | None = None) -> Judgement:
    """Judge one video.  frames uint8 [T, H, H, 3] with T >= 4. Without `colour` or `shape` (names), what most frames
    show is taken for asked."""
    if len(frames) < 4:
        raise ValueError(f"frames must hold at least 4 frames to judge a motion, got {len(frames)}")
    looks = look(frames)
    asked_colour = list(COLOURS).index(colour) if colour is not None else most(looks.colour)
    asked_shape = SHAPES.index(shape) if shape is not None else most(looks.shape)
    right, inside = is_right(looks, asked_colour, asked_shape), is_inside(looks)
    track = follow(looks.position)
    scores = verdict(right, inside, softness(looks), track)
    return Judgement(*scores, tuple(COLOURS)[asked_colour], SHAPES[asked_shape], looks, right, inside, track)


def is_right(looks: Looks, colour: int, shape: int) -> NDArray[np.bool_]:
    """[T] one object of this colour and shape, and nothing else."""
    right = (looks.objects == 1) & (looks.colour == colour) & (looks.shape == shape)
    return right & (looks.background <= BACKGROUND)


def is_inside(looks: Looks) -> NDArray[np.bool_]:
    """[T] within the walls."""
    return np.all((looks.position >= LOW - OUTSIDE) & (looks.position <= HIGH + OUTSIDE), axis=1)


def softness(looks: Looks) -> NDArray[np.float64]:
    """[T] how blurred the shape is; beyond 1 is too much for a typical frame."""
    return looks.misfit / np.array(SOFT)[looks.shape]


def judge_many(videos: Iterable[NDArray[np.uint8]], labels: Sequence[str] | None = None) -> list[Judgement]:
    """Judge videos against their classes, named `<colour>_<shape>`; without `labels`, against themselves."""
    if labels is None:
        return [judge(frames) for frames in videos]
    return [judge(frames, *label.split("_")) for frames, label in zip(videos, labels, strict=True)]


def summary(judgements: Sequence[Scores]) -> dict[str, Count]:
    """How many of the videos pass each test."""
    names = ("right_object", "turns_at_walls", "keeps_speed", "legal_speed", "sharp", "valid")
    shares = {name: Count(sum(getattr(j, name) for j in judgements), len(judgements)) for name in names}
    shares["motion"] = Count(sum(j.motion >= MOTION for j in judgements), len(judgements))
    shares["no_teleport"] = Count(sum(j.teleports == 0 for j in judgements), len(judgements))
    return shares


def most(numbers: NDArray[np.int64]) -> int:
    """The commonest number that is not -1, or 0."""
    counts = Counter(numbers[numbers >= 0].tolist())
    return counts.most_common(1)[0][0] if counts else 0


def verdict(
    right: NDArray[np.bool_], inside: NDArray[np.bool_], soft: NDArray[np.float64], steps: Steps
) -> tuple[bool, float, int, bool, bool, bool, bool, bool]:
    """The fields of Scores, from what is seen in some frames and the steps that count with them."""
    right_object = bool(right.all())
    motion = float(steps.agrees.mean())
    teleports = int(steps.jumps.sum())
    turns = bool(inside.all() and not steps.breaks.any())
    typical = typical_speed(steps)
    keeps = bool((np.abs(steps.speed[np.isfinite(steps.speed)] - typical) <= KEPT * typical).all())
    keeps = keeps and math.isfinite(typical)
    legal = any(abs(typical - speed) <= LEGAL * speed for speed in SPEEDS.values())
    sharp = bool(np.median(soft) <= 1)
    valid = right_object and motion >= MOTION and teleports == 0 and turns and keeps and legal and sharp
    return right_object, motion, teleports, turns, keeps, legal, sharp, valid


def typical_speed(steps: Steps) -> float:
    """Median of the speeds that are known, picture sides per frame; NaN without any."""
    known = steps.speed[np.isfinite(steps.speed)]
    return float(np.median(known)) if len(known) else math.nan


def _look(frames: NDArray[np.uint8]) -> tuple[NDArray, ...]:
    """The fields of Looks for a few frames."""
    video = frames.astype(np.float32) / np.float32(255)  # [n, H, W, 3]
    n, side = video.shape[:2]
    objects, centre = _objects(video)
    found = np.flatnonzero(objects > 0)
    colour, shape = np.full(n, -1), np.full(n, -1)
    position = np.full((n, 2), math.nan)
    misfit = np.ones(n)
    energy = _energy(video)
    background = np.sqrt(energy / (3 * side * side))
    if len(found):
        seen = _fit(video[found], centre[found], energy[found])
        colour[found], shape[found], position[found], misfit[found], background[found] = seen
    return objects, colour, shape, position, misfit, background


def _objects(video: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the objects in each frame, and find the middle of the largest, in pixels: [n], [n, 2] as (x, y)."""
    from scipy import ndimage

    n, side = video.shape[:2]
    bright = _brightest(video)  # [n, H, W]
    plane = np.zeros((3, 3, 3), int)
    plane[1] = 1  # neighbours within a frame, diagonal ones too, never across frames
    labels, count = ndimage.label(bright > BRIGHT, structure=plane)
    frame, row, column = np.nonzero(labels)
    name = labels[frame, row, column]
    weight = bright[frame, row, column]
    mass, x, y = (np.bincount(name, weight * by, minlength=count + 1) for by in (1, column + 0.5, row + 0.5))
    home = np.zeros(count + 1, int)
    home[name] = frame
    large = np.flatnonzero(mass >= SPECK * 2 * (HALF * side) ** 2)  # a triangle covers 2 HALF^2
    objects = np.bincount(home[large], minlength=n)
    centre = np.zeros((n, 2))
    for blob in large[np.argsort(mass[large])]:  # the largest of a frame comes last and stays
        centre[home[blob]] = x[blob] / mass[blob], y[blob] / mass[blob]
    return objects, centre


def _fit(video: NDArray[np.float32], centre: NDArray[np.float64], energy: NDArray[np.float64]) -> tuple[NDArray, ...]:
    """Colour, shape, position, misfit and background of the object around `centre` (pixels) in each frame."""
    n, side = video.shape[:2]
    reach = math.ceil(1.6 * HALF * side)  # a triangle's tip is 4/3 HALF above its centre of mass
    padded = np.pad(video, ((0, 0), (2 * reach, 2 * reach), (2 * reach, 2 * reach), (0, 0)))
    corner = np.floor(centre[:, ::-1]).astype(int) - reach  # [n, 2] as (row, column)
    patch = _cut(padded, corner + 2 * reach, 2 * reach + 1)  # [n, P, P, 3]
    bright = _brightest(patch)  # [n, P, P]
    core = (bright > 0.6 * bright.max((1, 2), keepdims=True)).astype(np.float32)
    mean = np.einsum("nhwc,nhw->nc", patch, core) / core.sum((1, 2))[:, None]  # [n, 3]
    distance = np.linalg.norm(mean[:, None] - _PALETTE, axis=2)  # [n, 4]
    nearest = distance.argmin(1)
    paint = _PALETTE[nearest]  # [n, 3]
    soft = np.einsum("nhwc,nc->nhw", patch, paint / (paint**2).sum(1, keepdims=True))  # [n, P, P], about 0 to 1
    soft = np.where(soft > 0.1, np.minimum(soft, 1), 0)
    along = np.arange(2 * reach + 1) + 0.5
    total = np.maximum(soft.sum((1, 2)), 1e-6)
    x = (soft.sum(1) @ along / total + corner[:, 1]) / side  # [n], centre of mass in picture sides
    y = (soft.sum(2) @ along / total + corner[:, 0]) / side
    pad = math.ceil(HALF * side / 4) + 1
    fits, places, within = [], [], []
    for number, drop in enumerate(_DROP):
        place = np.stack([x, y - drop], 1)  # [n, 2]
        cover, at = coverage(place, np.full(n, number), side, pad)  # [n, Q, Q], [n, 2]
        inner = _cut(padded, np.clip(at + 2 * reach, 0, padded.shape[1] - cover.shape[1]), cover.shape[1])
        ideal = cover.astype(np.float32)[..., None] * paint[:, None, None]  # [n, Q, Q, 3]
        fits.append(_energy(inner - ideal) / _energy(ideal))
        places.append(place)
        within.append(_energy(inner))
    best, every = np.argmin(fits, 0), np.arange(n)
    misfit, position = np.array(fits)[best, every], np.array(places)[best, every]
    colour = np.where(distance[every, nearest] <= COLOUR_OFF, nearest, -1)
    shape = np.where(misfit <= MISFIT, best, -1)
    rest = np.maximum(energy - np.array(within)[best, every], 0) / (3 * (side**2 - cover.shape[1] ** 2))
    return colour, shape, position, misfit, np.sqrt(rest)


def _cut(padded: NDArray[np.float32], corner: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """A patch out of each frame.  [n, H, W, 3], corners int [n, 2] -> [n, size, size, 3]"""
    rows, columns = (corner[:, i, None] + np.arange(size) for i in (0, 1))  # each [n, size]
    return padded[np.arange(len(padded))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _brightest(video: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest channel, [n, H, W, 3] -> [n, H, W]; much faster than a reduction over an axis of three."""
    return np.maximum(np.maximum(video[..., 0], video[..., 1]), video[..., 2])


def _energy(video: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum of squares of each frame, [n, H, W, 3] -> [n]."""
    flat = video.reshape(len(video), -1)
    return np.einsum("nk,nk->n", flat, flat).astype(np.float64)
