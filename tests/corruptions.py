"""Twelve ways to break a video of the embedded world, and H.264 in memory."""

import io
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from tats.data.shapes import CLASSES, COLOURS, HIGH, LOW, SHAPES, Truth, draw_frames, draw_truth, fold, render

Corruption = Callable[[Truth, int, np.random.Generator], np.ndarray]


def drawn(truth, positions, resolution, shapes=None, colours=None):
    """The object of `truth` on another path, or with another look in each frame."""
    n = len(positions)
    shapes = np.full(n, SHAPES.index(truth.shape)) if shapes is None else shapes
    colours = np.tile(COLOURS[truth.colour], (n, 1)) if colours is None else colours
    return draw_frames(positions, shapes, colours, resolution)


def cut(truth, rng):
    """A frame in the middle half of the video."""
    return int(rng.integers(truth.frames // 4, 3 * truth.frames // 4 + 1))


def bounced(start, velocities):
    """Places on a path that starts at `start` and takes the free steps `velocities` [T - 1, 2] between the walls."""
    return fold(np.concatenate([[start], start + np.cumsum(velocities, 0)]))


def steps(truth):
    """The free steps of a truth, [T - 1, 2]."""
    return np.tile(truth.velocity, (truth.frames - 1, 1))


def two_objects(truth, resolution, rng):
    while True:
        other = draw_truth(int(rng.integers(1 << 30)), int(rng.integers(1000)), frames=truth.frames)
        if np.linalg.norm(other.positions - truth.positions, axis=1).max() > 0.4:
            return np.maximum(render(truth, resolution), render(other, resolution))


def colour_swapped(truth, resolution, rng):
    other = rng.choice([c for c in COLOURS if c != truth.colour])
    late = np.arange(truth.frames)[:, None] >= cut(truth, rng)
    colours = np.where(late, COLOURS[other], COLOURS[truth.colour])
    return drawn(truth, truth.positions, resolution, colours=colours)


def shape_swapped(truth, resolution, rng):
    other = rng.choice([i for i, s in enumerate(SHAPES) if s != truth.shape])
    late = np.arange(truth.frames) >= cut(truth, rng)
    return drawn(truth, truth.positions, resolution, shapes=np.where(late, other, SHAPES.index(truth.shape)))


def teleport(truth, resolution, rng):
    k = cut(truth, rng)
    while True:
        target = rng.uniform(LOW, HIGH, 2)
        if np.linalg.norm(target - truth.positions[k]) > 0.15:
            break
    rest = bounced(target, steps(truth)[k:])
    return drawn(truth, np.concatenate([truth.positions[:k], rest[: truth.frames - k]]), resolution)


def faster(truth, resolution, rng):
    return drawn(truth, bounced(truth.start, 1.5 * steps(truth)), resolution)


def faster_midway(truth, resolution, rng):
    moves = steps(truth)
    moves[truth.frames // 2 :] *= 1.5
    return drawn(truth, bounced(truth.start, moves), resolution)


def frozen(truth, resolution, rng):
    moves = steps(truth)
    moves[cut(truth, rng) - 1 :] = 0
    return drawn(truth, bounced(truth.start, moves), resolution)


def missing(truth, resolution, rng):
    frames = render(truth, resolution)
    frames[cut(truth, rng)] = 0
    return frames


def turn_in_mid_air(truth, resolution, rng):
    """A turn by 60 to 180 degrees, at least 0.05 away from every wall."""
    inner = np.minimum(truth.positions - LOW, HIGH - truth.positions).min(1) > 0.05
    places = [k for k in range(truth.frames // 4, 3 * truth.frames // 4 + 1) if inner[k]]
    if not places:
        return turn_in_mid_air(draw_like(truth, rng), resolution, rng)
    k = rng.choice(places)
    angle = rng.uniform(np.pi / 3, np.pi) * rng.choice([-1, 1])
    step = truth.positions[k] - truth.positions[k - 1]
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ step
    rest = bounced(truth.positions[k], np.tile(turned, (truth.frames - 1 - k, 1)))
    return drawn(truth, np.concatenate([truth.positions[:k], rest]), resolution)


def no_turn_at_wall(truth, resolution, rng):
    """It goes on through the wall, or (every other time) slides along it."""
    early = [r.frame for r in truth.reflections if r.frame <= 3 * truth.frames // 4]
    if not early:
        return no_turn_at_wall(draw_like(truth, rng), resolution, rng)
    k = early[0] - 1
    move = truth.positions[k] - truth.positions[k - 1] if k else np.array(truth.velocity)
    rest = truth.positions[k] + np.arange(truth.frames - k)[:, None] * move
    if abs(rest - np.clip(rest, LOW, HIGH)).max() < 0.04:  # a graze: hardly to be told from the true path
        return no_turn_at_wall(draw_like(truth, rng), resolution, rng)
    if rng.random() < 0.5:
        rest = np.clip(rest, LOW, HIGH)
    return drawn(truth, np.concatenate([truth.positions[:k], rest]), resolution)


def strong_blur(truth, resolution, rng):
    size = 0.06 * resolution
    return ndimage.gaussian_filter(render(truth, resolution), (0, size, size, 0))


def noise(truth, resolution, rng):
    frames = render(truth, resolution)
    return np.clip(frames + rng.normal(0, 40, frames.shape), 0, 255).astype(np.uint8)


def another_class(truth, resolution, rng):
    label = rng.choice([c for c in CLASSES if c != truth.label])
    return render(draw_truth(int(rng.integers(1 << 30)), 0, frames=truth.frames, label=str(label)), resolution)


def draw_like(truth, rng):
    """Another video of the same class."""
    return draw_truth(int(rng.integers(1 << 30)), truth.index, frames=truth.frames, label=truth.label)


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        two_objects,
        colour_swapped,
        shape_swapped,
        teleport,
        faster,
        faster_midway,
        frozen,
        missing,
        turn_in_mid_air,
        no_turn_at_wall,
        strong_blur,
        noise,
        another_class,
    )
}


def h264(frames: np.ndarray, crf: int = 23, pix_fmt: str = "yuv420p") -> np.ndarray:
    """Through the encoder and back, in memory: uint8 [T, H, W, 3]."""
    import av

    from tats.media import REPRODUCIBLE

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=16, options={"crf": str(crf), **REPRODUCIBLE})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = frames.shape[2], frames.shape[1], pix_fmt, 1
        for picture in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as file:
        return np.stack([picture.to_ndarray(format="rgb24") for picture in file.decode(video=0)])
