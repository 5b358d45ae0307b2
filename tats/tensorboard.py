"""Pictures and playing videos in TensorBoard and at Weights & Biases. TensorBoard's own `add_video` needs a package
that is not installed and then logs nothing, so the GIF is made here; the other one gets the same."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np


def gif_bytes(frames: np.ndarray, fps: float) -> bytes:
    """An endless GIF from uint8 frames [T, H, W, 3] or [T, H, W, 1]."""
    from PIL import Image

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames: expected uint8 [T, H, W, 3 or 1], got {frames.dtype} {frames.shape}")
    images = [Image.fromarray(np.repeat(frame, 3, -1) if frame.shape[-1] == 1 else frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return buffer.getvalue()


def _each_writer(logger: Any, add: Callable[[Any], None], send: Callable[[Any], None]) -> None:
    """Do `add` with the TensorBoard writer behind one logger or several, and `send` with loggers that take videos."""
    for each in logger if isinstance(logger, (list, tuple)) else [logger]:
        if hasattr(each, "log_video"):
            send(each)
            continue
        writer = getattr(each, "experiment", None)
        if not hasattr(writer, "add_image"):
            continue
        try:
            add(writer)
        except OSError as error:  # a full disk: a logger that can end its events does
            if not hasattr(each, "end"):
                raise
            each.end(error)


def add_video(logger: Any, tag: str, frames: np.ndarray, step: int, fps: float = 6) -> None:
    """Shows uint8 frames [T, H, W, 3] as a playing video under `tag`.

    `logger` is a Lightning logger or a list of them (`module.loggers`); those that show no videos are passed over.
    """
    gif = gif_bytes(np.asarray(frames), fps)

    def add(writer: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(encoded_image_string=gif, height=frames.shape[1], width=frames.shape[2], colorspace=3)
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    _each_writer(logger, add, lambda each: each.log_video(tag, [io.BytesIO(gif)], step, format=["gif"]))


def add_image(logger: Any, tag: str, image: np.ndarray, step: int) -> None:
    """Shows a uint8 picture [H, W, 3] under `tag`, as `add_video` does videos."""
    picture = np.asarray(image)
    _each_writer(
        logger,
        lambda writer: writer.add_image(tag, picture, step, dataformats="HWC"),
        lambda each: each.log_image(tag, [picture], step),
    )
