"""The layers of the VQGAN, a piece of a video at a time: every convolution keeps the few frames that it still needs.

Nothing is computed twice, and the ends are padded as in one piece.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.vqgan.layers import ResBlock, SameConv3d, SameConvTranspose3d, conv3d
from tats.vqgan.model import VQGAN, DecoderBlock, EncoderBlock


@dataclass
class Kept:
    """What one convolution or shortcut still needs of the frames that it was given."""

    frames: Tensor | None = None  # [B, C, n, H, W], the newest
    begun: bool = False  # the front of the video is used
    first: Tensor | None = None  # [B, C, n, H, W], the oldest, where they serve the end too (see circular.py)


class State(defaultdict[nn.Module, Kept]):
    """What every layer of a network keeps between two pieces of one video: empty before the first."""

    def __init__(self) -> None:
        super().__init__(Kept)


def convolve(layer: SameConv3d | SameConvTranspose3d, x: Tensor | None, state: State, last: bool) -> Tensor | None:
    """The outputs of a convolution along time that are known now.

    `x` [B, C, n, H, W] are the next frames of its input, None where there are none yet; with `last` they are the last
    ones. Returns [B, C', m, H', W'], or None.
    """
    kept = state[layer]
    conv, mode = (layer.conv, layer.padding_type) if isinstance(layer, SameConv3d) else (layer.convt, "replicate")
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    front, back = layer.sides[4:]
    frames = join(kept.frames, x)
    if frames is None:
        return None
    least = front + 1 if mode == "reflect" else 1  # frames that the padding looks at
    at_front, up = not kept.begun, not isinstance(layer, SameConv3d)
    seen = frames.shape[2] + at_front * front + last * back
    overlap = kernel // stride - 1 if up else kernel - stride  # inputs that serve the next output too
    made = (seen - overlap) // (1 if up else stride)  # steps of the convolution
    if made < 1 or (frames.shape[2] < least and at_front and not last):
        kept.frames = frames
        return None
    if at_front or last:
        frames = F.pad(frames, (0, 0, 0, 0, at_front * front, last * back), mode=mode)
    kept.begun = True
    used = made if up else made * stride
    kept.frames = None if last else frames[:, :, used:].clone()
    if isinstance(layer, SameConv3d):
        return flat_convolve(layer, frames[:, :, : used + overlap])
    y = transposed(layer, frames)
    cut = stride - 1  # outputs that belong to the padding
    return y[:, :, at_front * cut : y.shape[2] - last * cut].contiguous()


def flat_convolve(layer: SameConv3d, frames: Tensor) -> Tensor:
    """A convolution padded in space alone."""
    if layer.pads_outside:
        frames = F.pad(frames, (*layer.sides[:4], 0, 0), mode=layer.padding_type)
    return conv3d(frames, layer.conv, (0, *layer.padding[1:]))


def transposed(layer: SameConvTranspose3d, frames: Tensor) -> Tensor:
    """A transposed convolution padded in space alone: the outputs that all of their inputs are there for."""
    convt = layer.convt
    frames = F.pad(frames, (*layer.sides[:4], 0, 0), mode="replicate")
    padding = (convt.kernel_size[0] - convt.stride[0], *convt.padding[1:])
    return F.conv_transpose3d(frames, convt.weight, convt.bias, convt.stride, padding)


def residual(block: ResBlock, x: Tensor | None, state: State, last: bool) -> Tensor | None:
    """x + two convolutions, where x waits for what they make of it."""
    y = convolve(block.conv1, activated(block.norm1, x), state, last)
    y = convolve(block.conv2, activated(block.norm2, y), state, last)
    waiting = join(state[block].frames, x)
    if y is None or waiting is None:
        state[block].frames = waiting
        return None
    n = y.shape[2]
    state[block].frames = None if last else waiting[:, :, n:].clone()
    return waiting[:, :, :n] + y


def activated(norm: nn.Module, x: Tensor | None) -> Tensor | None:
    """Normalisation and SiLU."""
    return None if x is None else F.silu(norm(x), inplace=True)


def join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Frames of `a`, then those of `b`."""
    if a is None or b is None:
        return b if a is None else a
    return torch.cat([a, b], 2)


def decode_piece(vqgan: VQGAN, codes: Tensor | None, state: State, last: bool = False) -> Tensor | None:
    """What is known of the video once these codes are.

    codes int64 [B, t, h, w], the next latent frames; `state` is changed. With `last` they end the video. Returns the
    next frames, float [B, C, n, H, W], not clamped, or None while there are none.
    """
    decoder = vqgan.decoder
    x = None if codes is None else decoder.final_block(vqgan.post_vq_conv(vqgan.codebook.lookup(codes)))
    for block in cast("Iterable[DecoderBlock]", decoder.conv_blocks):
        x = convolve(block.up, x, state, last)
        x = residual(block.res1, x, state, last)
        x = residual(block.res2, x, state, last)
    return convolve(decoder.conv_last, x, state, last)


def encode_piece(vqgan: VQGAN, video: Tensor | None, state: State, last: bool = False) -> Tensor | None:
    """What is known of the codes once these frames are.

    video float [B, C, n, H, W] in [-0.5, 0.5], the next frames; `state` is changed. With `last` they end the video.
    Returns the next latent frames, int64 [B, t, h, w], or None while there are none.
    """
    encoder = vqgan.encoder
    x = convolve(encoder.conv_first, video, state, last)
    for block in cast("Iterable[EncoderBlock]", encoder.conv_blocks):
        x = residual(block.res, convolve(block.down, x, state, last), state, last)
    return None if x is None else vqgan.codebook.nearest(vqgan.pre_vq_conv(encoder.final_block(x)))
