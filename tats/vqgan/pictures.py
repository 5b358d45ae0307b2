"""Pictures and videos of a training run: files beside the log, and TensorBoard summaries that play."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tats.video import grid

if TYPE_CHECKING:
    from tats.vqgan.train import VQGANTraining

SHOWN = 4  # clips of a batch
FPS = 6
EARLY = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]  # batches that are shown beside the regular ones


class Schedule:
    """Which batches are shown. As published, one list of early batches serves training and testing, and is used up."""

    def __init__(self, images_every: int, videos_every: int):
        self.every = {"images": images_every, "videos": videos_every}
        self.early = {"images": list(EARLY), "videos": list(EARLY)}

    def due(self, kind: str, batch_idx: int) -> bool:
        """Whether `kind` ("images" or "videos") of this batch of the epoch is shown; uses an early entry up if so."""
        every, early = self.every[kind], self.early[kind]
        if every == 0 or (batch_idx % every and batch_idx not in early):
            return False
        if early:
            early.pop(0)
        return True


def show(module: "VQGANTraining", split: str, video: Tensor, batch_idx: int, schedule: Schedule) -> None:
    """Store the first clips of a batch and their reconstructions, if it is their turn.  video [B, C, T, H, W]"""
    trainer = module.trainer
    kinds = [kind for kind in ("images", "videos") if schedule.due(kind, batch_idx)]
    if not kinds or not trainer.is_global_zero or not trainer.loggers:
        return
    folder = trainer.loggers[0].save_dir
    video = video[:SHOWN]
    was_training = module.training
    module.eval()
    with torch.no_grad():
        rebuilt, _ = module.vqgan(video, quantise=module.quantises)
    module.train(was_training)
    stem = f"gs-{module.updates:06}_e-{trainer.current_epoch:06}_b-{batch_idx:06}"
    for kind in kinds:
        for name, clips in (("inputs", video), ("reconstructions", rebuilt)):
            frames = mosaic(clips, kind)  # [T, H', W', 3]
            if folder is not None:
                suffix = "png" if kind == "images" else "mp4"
                store(Path(folder) / kind / split / f"{name}_{stem}.{suffix}", frames)
            for logger in trainer.loggers:
                summarise(getattr(logger, "experiment", None), f"{split}/{name}_{kind}", frames, module.updates)


def mosaic(clips: Tensor, kind: str) -> np.ndarray:
    """Clips side by side; of images only the frame in the middle.  [B, C, T, H, W] -> uint8 [T, H', W', 3]"""
    clips = clips.float().clamp(-0.5, 0.5).cpu() + 0.5
    if kind == "images":
        clips = clips[:, :, clips.shape[2] // 2][:, :, None]
    frames = grid(clips, nrow=1 if kind == "images" else None).numpy()
    return np.repeat(frames, 3, -1) if frames.shape[-1] == 1 else frames


def store(path: Path, frames: np.ndarray) -> None:
    """Write one picture (.png) or a video.  frames uint8 [T, H, W, 3]"""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        from PIL import Image

        Image.fromarray(frames[0]).save(path)
        return
    from tats.media import VideoWriter

    with VideoWriter(path, FPS) as file:
        file.write(frames)


def summarise(writer: Any, tag: str, frames: np.ndarray, step: int) -> None:
    """Put a picture, or a GIF that plays, into a TensorBoard log; other logs are left alone."""
    if not hasattr(writer, "add_image"):
        return
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    pictures = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    if len(pictures) == 1:
        pictures[0].save(file, format="PNG")
    else:
        pictures[0].save(file, format="GIF", save_all=True, append_images=pictures[1:], duration=1000 // FPS, loop=0)
    height, width, channels = frames.shape[1:]
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue())
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
