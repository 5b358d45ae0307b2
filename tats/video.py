"""The two forms of a video, and the only ways between them.

frames: uint8 [T, H, W, C], pixels at the edges (files, metrics); video: float [C, T, H, W] in [-0.5, 0.5], inside.
Both may carry a batch dimension in front. Grids of videos are made here too.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the brightness, ITU-R BT.601
BORDER = (255, 128, 0)  # around marked frames: orange, no colour of the embedded dataset


def from_frames(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] (or [T, H, W, C]) -> float32 [B, C, T, H, W] (or [C, T, H, W]) in [-0.5, 0.5]."""
    if frames.dtype != torch.uint8 or frames.ndim not in (4, 5):
        raise ValueError(f"frames must be uint8 [T, H, W, C] or [B, T, H, W, C], got {_what(frames)}")
    return frames.movedim(-1, -4).contiguous().float().div_(255.0).sub_(0.5)


def with_video(batch: Any) -> Any:
    """A batch with `video` float [B, C, T, H, W] where loaders have left `frames` uint8 [B, T, H, W, C], made on the
    device where these lie; any other batch as it is."""
    if not isinstance(batch, dict) or "frames" not in batch:
        return batch
    rest = {key: value for key, value in batch.items() if key != "frames"}
    return {"video": from_frames(batch["frames"]), **rest}


def to_frames(video: Tensor) -> Tensor:
    """float [B, C, T, H, W] (or [C, T, H, W]) -> uint8 [B, T, H, W, C] (or [T, H, W, C]).

    Clamped to [-0.5, 0.5], then (x + 0.5) * 255 truncated, as in the published samples: a level can come back lower by
    one, since x / 255 is rarely a float.
    """
    if not video.is_floating_point() or video.ndim not in (4, 5):
        raise ValueError(f"video must be float [C, T, H, W] or [B, C, T, H, W], got {_what(video)}")
    levels = (video.float().clamp(-0.5, 0.5) + 0.5) * 255.0
    return levels.to(torch.uint8).movedim(-4, -1).contiguous()


def preprocess(
    frames: Tensor | np.ndarray,
    resolution: int | None,
    sequence_length: int | None = None,
    sample_every_n_frames: int = 1,
    image_channels: int = 3,
) -> Tensor:
    """uint8 frames [T, H, W, C] -> float32 video [C, t, resolution, resolution] in [-0.5, 0.5].

    The published recipe: the first `sequence_length` frames (None: all), of these every `sample_every_n_frames`-th;
    bilinear without antialiasing until the shorter side is `resolution`, the longer side rounded up; the square in the
    middle. `resolution` None keeps the size. `image_channels` 1 turns colour into brightness (ITU-R BT.601), 3 repeats
    a grey channel.
    """
    frames = torch.as_tensor(frames)
    if frames.dtype != torch.uint8 or frames.ndim != 4:
        raise ValueError(f"frames must be uint8 [T, H, W, C], got {_what(frames)}")
    kept = frames[:sequence_length:sample_every_n_frames]  # [t, H, W, C]
    if resolution is None or kept.shape[1:3] == (resolution, resolution):
        video = from_frames(kept)
    else:
        video = shrink(kept, resolution).div_(255.0).sub_(0.5)
    return change_channels(video, image_channels)


def preprocess_map(ids: Tensor | np.ndarray, resolution: int, n_classes: int, sequence_length: int | None = None,
                   sample_every_n_frames: int = 1) -> Tensor:  # fmt: skip
    """Semantic map, uint8 [T, H, W, C] whose first channel holds class ids -> float32 [n_classes, t, res, res].

    One channel per class, -0.5 or 0.5 before the resize, which is the one of `preprocess`.
    """
    ids = torch.as_tensor(ids)
    if ids.dtype != torch.uint8 or ids.ndim != 4:
        raise ValueError(f"ids must be uint8 [T, H, W, C], got {_what(ids)}")
    ids = ids[:sequence_length:sample_every_n_frames, :, :, 0].long()  # [t, H, W]
    if ids.numel() and int(ids.max()) >= n_classes:
        raise ValueError(f"ids hold class {int(ids.max())}, but there are {n_classes} classes, counted from 0")
    one_hot = torch.nn.functional.one_hot(ids, n_classes).to(torch.uint8)  # [t, H, W, n_classes]
    return shrink(one_hot, resolution).sub_(0.5)


def shrink(frames: Tensor, resolution: int) -> Tensor:
    """uint8 [T, H, W, C] -> float32 [C, T, resolution, resolution], levels as they were (0 to 255).

    Only the pixels of the middle square are computed, frame by frame, so that the work stays in the cache.
    """
    total, height, width, channels = frames.shape
    scale = resolution / min(height, width)
    tall, wide = (resolution, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), resolution)
    above, below, down = _neighbours(height, tall, resolution)
    left, right, across = _neighbours(width, wide, resolution)
    first, last = int(left[0]), int(right[-1])
    rows = frames[:, :, first : last + 1].reshape(total, height, -1)  # [T, H, n * C]
    left, right, down = left - first, right - first, down[:, None]
    across = across.repeat_interleave(channels)  # [res * C]
    video = torch.empty(channels, total, resolution, resolution)
    for t, picture in enumerate(rows):
        upper, lower = picture.index_select(0, above).float(), picture.index_select(0, below).float()
        lines = torch.lerp(upper, lower, down).view(resolution, -1, channels)  # [res, n, C]
        ones, others = lines.index_select(1, left).flatten(1), lines.index_select(1, right).flatten(1)  # [res, res * C]
        video[:, t] = torch.lerp(ones, others, across).view(resolution, resolution, channels).permute(2, 0, 1)
    return video


@functools.lru_cache(maxsize=64)
def _neighbours(size: int, new_size: int, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """For the middle `kept` of `new_size` pixels: the two pixels out of `size` around each, and the second's weight.

    Pixel centres correspond (what torch calls `align_corners=False`), in float32 as torch computes it.
    """
    skipped = (new_size - kept) // 2
    centres = torch.arange(skipped, skipped + kept, dtype=torch.float32) + 0.5
    ratio = torch.tensor(size, dtype=torch.float32) / new_size
    places = (ratio * centres - 0.5).clamp_(min=0)
    before = places.long().clamp_(max=size - 1)
    return before, (before + 1).clamp_(max=size - 1), (places - before).clamp_(0, 1)


def change_channels(video: Tensor, image_channels: int) -> Tensor:
    """float [C, T, H, W] with 1 or 3 channels -> [image_channels, T, H, W]: brightness of colours, or grey repeated."""
    if len(video) == image_channels:
        return video
    if len(video) == 3 and image_channels == 1:
        red, green, blue = LUMA
        return (red * video[0] + green * video[1] + blue * video[2])[None]
    if len(video) == 1 and image_channels == 3:
        return video.expand(3, -1, -1, -1).contiguous()
    raise ValueError(f"a video of {len(video)} channels has no form of {image_channels} channels; 1 and 3 convert")


def grid(video: Tensor, nrow: int | None = None) -> Tensor:
    """Videos side by side: float [B, C, T, H, W] in [0, 1] -> uint8 [T, (H+1)*nrow+1, (W+1)*ncol+1, C].

    `nrow` rows (default ceil(sqrt(B))) and ceil(B / nrow) columns, one black pixel between, and two below
    and at the right; levels are x * 255 truncated. Both as published.
    """
    if video.ndim != 5 or not video.is_floating_point():
        raise ValueError(f"video must be float [B, C, T, H, W], got {_what(video)}")
    batch, channels, total, height, width = video.shape
    nrow = nrow or math.ceil(math.sqrt(batch))
    ncol = math.ceil(batch / nrow)
    pixels = (video.detach().cpu() * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)  # [B, T, H, W, C]
    canvas = torch.zeros(total, (height + 1) * nrow + 1, (width + 1) * ncol + 1, channels, dtype=torch.uint8)
    for i in range(batch):
        top, left = (i // ncol) * (height + 1), (i % ncol) * (width + 1)
        canvas[:, top : top + height, left : left + width] = pixels[i]
    return canvas


def mark(frames: Tensor) -> Tensor:
    """Frames with a thin border, one pixel wide per 64 of the picture.  uint8 [..., n, H, W, C] -> the same shape"""
    height, width, channels = frames.shape[-3:]
    thick = max(min(height, width) // 64, 1)
    marked = frames.clone()
    colour = torch.tensor(BORDER if channels == 3 else (255,), dtype=torch.uint8, device=frames.device)
    marked[..., :thick, :, :] = marked[..., height - thick :, :, :] = colour
    marked[..., :, :thick, :] = marked[..., :, width - thick :, :] = colour
    return marked


def mark_given(frames: Tensor, first: int, given: int) -> Tensor:
    """Frames of a video from its frame `first` on, those before `given` marked.  uint8 [..., n, H, W, C]"""
    count = min(max(given - first, 0), frames.shape[-4])
    if not count:
        return frames
    return torch.cat([mark(frames[..., :count, :, :, :]), frames[..., count:, :, :, :]], -4)


def _what(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
