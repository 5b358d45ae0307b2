"""Semantic maps that videos are made from: files of class ids, and their codes as transformers take them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tats.arrays import ArrayError, read_npy
from tats.flags import UserError, existing_path
from tats.gpt.config import GPTConfig
from tats.video import preprocess_map
from tats.vqgan.model import VQGAN

AT_ONCE = 64  # windows of maps that are encoded together


def find_maps(path: str) -> list[Path]:
    """The file of maps that --smap names, or those in the folder, sorted.

    Raises:
        UserError: nothing is there.
    """
    root = existing_path(path, "--smap")
    found = [root] if root.is_file() else sorted(each for each in root.rglob("*.npy") if not each.name.startswith("."))
    if not found:
        raise UserError(f"--smap {path}: a folder without .npy files; maps are uint8 [frames, H, W], a class per pixel")
    return found


@torch.inference_mode()
def map_codes(paths: list[Path], gpt: GPTConfig, vqgan: VQGAN, maps: VQGAN, total: int, by_window: bool) -> Tensor:
    """The codes of the maps of videos of `total` latent frames, which begin with the first map of each file.

    int64 [n, t, h, w] for n files; by_window: where the videos are longer than a window, [n, total, t, h, w], those of
    the windows that begin at latent frame 0, 1, ..., each encoded by itself, as clips are in training. vqgan: of the
    videos, whose frames they belong to. Behind its end the last map of a file goes on.

    Raises:
        UserError: a file can't be read, holds other classes, or the VQGANs are not those of the transformer.
    """
    part = gpt.part("smap")
    if part is None:
        raise ValueError("this transformer takes no maps")
    per_latent, every = vqgan.config.downsample[0], vqgan.config.sample_every_n_frames
    window = ((gpt.latent_shape[0] - 1) * gpt.stride + 1) * per_latent  # maps beside one window
    if by_window and total > gpt.latent_shape[0]:
        starts, length = range(0, total * per_latent, per_latent), window
    else:
        starts, length = range(1), max(total * per_latent, window)
    found = []
    for path in paths:
        video = _read(path, every, maps)  # [C, n, res, res]
        last = video.shape[1] - 1
        clips = [video[:, [min(start + n, last) for n in range(length)]] for start in starts]
        device = next(maps.parameters()).device
        groups = [clips[first : first + AT_ONCE] for first in range(0, len(clips), AT_ONCE)]
        found.append(torch.cat([maps.encode(torch.stack(group).to(device)) for group in groups]))  # [windows, t, h, w]
    codes = torch.stack(found) if len(starts) > 1 else torch.cat(found)
    if maps.n_codes != part.values or (codes[0, 0].numel() != part.n_cond if codes.ndim == 5 else
                                       length == window and codes[0].numel() != part.n_cond):  # fmt: skip
        raise UserError(
            f"--smap_vqgan_ckpt is not the one that this transformer was trained with: it makes {codes[0].numel()} of "
            f"{maps.n_codes} codes of {length} maps, the transformer takes {part.n_cond} of {part.values}"
        )
    return codes


def _read(path: Path, every: int, maps: VQGAN) -> Tensor:
    """The maps of a file as their VQGAN takes them: float [classes, n, res, res]."""
    try:
        ids = read_npy(path)
    except ArrayError as error:
        raise UserError(f"--smap {error}") from None
    if ids.dtype != np.uint8 or ids.ndim != 3 or not len(ids):
        raise UserError(f"--smap {path}: must be uint8 [frames, H, W], is {ids.dtype} {list(ids.shape)}")
    try:
        return preprocess_map(np.array(ids[::every])[..., None], maps.config.resolution, maps.config.image_channels)
    except ValueError as error:
        raise UserError(f"--smap {path}: {error}, as --smap_vqgan_ckpt was trained") from None
