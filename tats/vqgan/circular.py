"""Encode an endless video with `--padding_type circular`: the frames before the first one are the last ones.

What lies around the seam is known at the end only. Every convolution therefore begins with the first output that needs
no padding, keeps the few frames that it has passed over, and computes the ends when the last frame has come. Nothing is
computed twice; the codes (small, unlike pixels) wait for the first of them.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor

from tats.vqgan.layers import ResBlock, SameConv3d
from tats.vqgan.model import VQGAN, EncoderBlock
from tats.vqgan.pieces import State, activated, flat_convolve, join

Ends = tuple[Tensor | None, Tensor | None]  # [B, C, n, H, W]: the rest of the end, and what was passed over


def begin_late(layer: SameConv3d, x: Tensor | None, state: State, begin: int) -> tuple[Tensor | None, int]:
    """The outputs that are known now and need no padding.

    `x` are the next frames of the input, whose first ever was number `begin`. Returns the outputs and the number of
    the first ever.
    """
    kept, kernel, stride = state[layer], layer.conv.kernel_size[0], layer.conv.stride[0]
    front, overlap = layer.sides[4], kernel - stride
    first = -(-(begin + front) // stride)  # the first output all of whose inputs come
    passed = first * stride - front - begin  # inputs before those of that output
    frames = join(kept.frames, x)
    ready = frames is not None and frames.shape[2] >= kernel + (0 if kept.begun else passed)
    if frames is None or not ready:
        kept.frames = frames
        return None, first
    if not kept.begun:
        kept.begun, kept.first = True, frames[:, :, : passed + overlap].clone()
        frames = frames[:, :, passed:]
    used = (frames.shape[2] - overlap) // stride * stride
    kept.frames = frames[:, :, used:].clone()
    return flat_convolve(layer, frames[:, :, : used + overlap]), first


def finish(layer: SameConv3d, ends: Ends, state: State) -> Ends:
    """The outputs at both ends, from the inputs at both ends (`None` before the first: all of them have come)."""
    kept = state[layer]
    tail, head = there(join(kept.frames, ends[0])), there(join(ends[1], kept.first))
    front, back = layer.sides[4:]
    ring = layer.padding_type == "circular"
    before = tail[:, :, tail.shape[2] - front :] if ring else head[:, :, :1].expand(-1, -1, front, -1, -1)
    after = head[:, :, :back] if ring else tail[:, :, -1:].expand(-1, -1, back, -1, -1)
    tail = torch.cat([tail, after], 2)
    known = tail.shape[2] >= layer.conv.kernel_size[0]
    return flat_convolve(layer, tail) if known else None, flat_convolve(layer, torch.cat([before, head], 2))


def residual(block: ResBlock, x: Tensor | None, state: State, begin: int) -> tuple[Tensor | None, int]:
    """x + two convolutions, where x waits for what they make of it; see `begin_late`."""
    y, first = begin_late(block.conv1, activated(block.norm1, x), state, begin)
    y, first = begin_late(block.conv2, activated(block.norm2, y), state, first)
    kept = state[block]
    waiting = join(kept.frames, x)
    if y is None or waiting is None:
        kept.frames = waiting
        return None, first
    if not kept.begun:
        kept.begun, kept.first = True, waiting[:, :, : first - begin].clone()
        waiting = waiting[:, :, first - begin :]
    kept.frames = waiting[:, :, y.shape[2] :].clone()
    return waiting[:, :, : y.shape[2]] + y, first


def finish_residual(block: ResBlock, ends: Ends, state: State) -> Ends:
    """Both ends of a residual block; see `finish`."""
    more, before = finish(block.conv1, (activated(block.norm1, ends[0]), activated(block.norm1, ends[1])), state)
    more, before = finish(block.conv2, (activated(block.norm2, more), activated(block.norm2, before)), state)
    kept = state[block]
    waiting, passed = there(join(kept.frames, ends[0])), there(join(ends[1], kept.first))
    return waiting + there(more), passed + there(before)


def there(frames: Tensor | None) -> Tensor:
    """The same frames: once the first code is known, no layer is without."""
    if frames is None:
        raise ValueError("the video ended before its first code was known")
    return frames


def encode_late(vqgan: VQGAN, video: Tensor, state: State) -> Tensor | None:
    """Codes int64 [B, t, h, w] that are known once these frames, [B, C, n, H, W], are; the first ones come last."""
    encoder = vqgan.encoder
    x, begin = begin_late(encoder.conv_first, video, state, 0)
    for block in cast("Iterable[EncoderBlock]", encoder.conv_blocks):
        x, begin = begin_late(block.down, x, state, begin)
        x, begin = residual(block.res, x, state, begin)
    return None if x is None else codes_of(vqgan, x)


def encode_ends(vqgan: VQGAN, state: State) -> tuple[Tensor, Tensor]:
    """When all frames have come: the codes of the end, and those of the front, int64 [B, t, h, w] each."""
    encoder = vqgan.encoder
    ends = finish(encoder.conv_first, (None, None), state)
    for block in cast("Iterable[EncoderBlock]", encoder.conv_blocks):
        ends = finish_residual(block.res, finish(block.down, ends, state), state)
    end, front = ends
    return codes_of(vqgan, there(end)), codes_of(vqgan, there(front))


def codes_of(vqgan: VQGAN, x: Tensor) -> Tensor:
    """What the encoder's blocks give -> codes int64 [B, t, h, w]"""
    return vqgan.codebook.nearest(vqgan.pre_vq_conv(vqgan.encoder.final_block(x)))


@torch.no_grad()
def encode_circular(vqgan: VQGAN, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """The codes of a video that comes piece by piece, all of them when it has ended.

    pieces: float [B, C, n, H, W]; yields int64 [B, t, h, w].
    """
    state = State()
    young: list[Tensor] = []  # frames, until the first code is known: a video that ends before is encoded as one
    held: list[Tensor] = []
    for video in pieces:
        if not held:
            young.append(video)
        codes = encode_late(vqgan, video, state)
        if codes is not None:
            held.append(codes.int())
            young.clear()
    if held:
        end, front = encode_ends(vqgan, state)
        yield from (codes.long() for codes in (front, *held, end))
    elif young:
        yield vqgan.encode(torch.cat(young, 2))
