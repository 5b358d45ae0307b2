"""Pictures and videos of a training run: files beside the log, and TensorBoard summaries that play."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tats.launched import say
from tats.media import write_video
from tats.tensorboard import add_image, add_video
from tats.video import grid
from tats.vqgan.draws import Draws
from tats.vqgan.losses import pick

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
    """Store the first clips of a batch and their reconstructions, if it is their turn.  video [B, C, T, H, W]

    In the run's folder, under the published names: `{images,videos}/{train,val}/{inputs,reconstructions}_gs-..`; and in
    TensorBoard as `train/inputs_images`, ... Of sounds there are images only, each of a whole clip.
    """
    trainer, of_sounds = module.trainer, module.vqgan.config.of_sounds
    shown = ("images",) if of_sounds else ("images", "videos")
    kinds = [kind for kind in shown if schedule.due(kind, batch_idx)]
    folder = folder_of(trainer.loggers)
    if not kinds or folder is None or not trainer.is_global_zero:
        return
    video = video[:SHOWN]
    was_training = module.training
    module.eval()
    with torch.no_grad():
        rebuilt, _ = module.vqgan(video, quantise=module.quantises)
    module.train(was_training)
    if of_sounds:
        video, rebuilt = unrolled(video), unrolled(rebuilt)
    if module.vqgan.config.of_maps:
        video, rebuilt = coloured(video), coloured(rebuilt)
    frames = Draws(module.seed, module.updates, player=3).frames(len(video), video.shape[2])
    stem = f"gs-{module.updates:06}_e-{trainer.current_epoch:06}_b-{batch_idx:06}"
    for kind in kinds:
        for name, clips in (("inputs", video), ("reconstructions", rebuilt)):
            below = folder / kind / split
            tag = f"{split}/{name}_{kind}"
            if kind == "images":
                picture = mosaic(pick(clips, frames)[:, :, None], nrow=1)  # [1, H', W', 3]
                store(below / f"{name}_{stem}.png", picture)
                add_image(trainer.loggers, tag, picture[0], module.updates)
            else:
                film = mosaic(clips, nrow=None)  # [T, H', W', 3]
                store(below / f"{name}_{stem}.mp4", film)
                add_video(trainer.loggers, tag, film, module.updates, FPS)


def folder_of(loggers: Sequence[Any]) -> Path | None:
    """The folder of a run by its loggers; None without one, and in --fast_dev_run, whose logger answers to any name."""
    folder = getattr(loggers[0], "log_dir", None) if loggers else None
    return Path(folder) if isinstance(folder, str | Path) else None


def store(path: Path, frames: np.ndarray) -> None:
    """Write a picture or a film that is only to be looked at: a full disk costs it, and not the training."""
    try:
        write_video(path, frames, FPS)
    except OSError as error:
        say(f"can't write {path}: {error.strerror or error}; training goes on")


def unrolled(sounds: Tensor) -> Tensor:
    """The pictures of a clip's sound side by side, low frequencies at the bottom, as a video of one frame.
    float [B, 1, T, H, W] in [-1, 1] -> [B, 1, 1, H, T*W] in [-0.5, 0.5]"""
    return sounds.permute(0, 1, 3, 2, 4).flatten(3).flip(2)[:, :, None] / 2


def coloured(maps: Tensor) -> Tensor:
    """Semantic maps, or the scores of their classes, as a video: a colour for the likeliest class of every pixel.
    float [B, C, T, H, W] -> [B, 3, T, H, W] in [-0.5, 0.5]"""
    hues = torch.arange(maps.shape[1], device=maps.device) / maps.shape[1] * 2 * torch.pi
    table = torch.stack([torch.cos(hues + turn) / 2 for turn in (0.0, 2.1, 4.2)], 1)  # [C, 3], around the colour wheel
    return table[maps.argmax(1)].movedim(-1, 1)


def mosaic(clips: Tensor, nrow: int | None) -> np.ndarray:
    """Clips side by side in `nrow` rows.  float [B, C, T, H, W] in [-0.5, 0.5] -> uint8 [T, H', W', 3]"""
    frames = grid(clips.float().clamp(-0.5, 0.5) + 0.5, nrow).numpy()
    return frames if frames.shape[-1] == 3 else np.repeat(frames[..., :1], 3, -1)
