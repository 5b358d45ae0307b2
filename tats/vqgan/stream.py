"""Encode and decode endless videos, layer by layer: every convolution keeps the few frames that it still needs.

Nothing is computed twice, and the ends are padded as in one piece: the codes and the pixels are those of
`vqgan.encode` and `vqgan.decode`, in memory that depends on the piece and not on the length. This needs batch
normalisation; group normalisation averages over the whole clip.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.flags import UserError
from tats.vqgan.layers import ResBlock, SameConv3d, SameConvTranspose3d, conv3d
from tats.vqgan.model import VQGAN, DecoderBlock, EncoderBlock

PIECE = 4  # latent frames that are computed together


@dataclass
class Kept:
    """What one convolution or shortcut still needs of the frames that it was given."""

    frames: Tensor | None = None  # [B, C, n, H, W]
    begun: bool = False  # the front of the video is padded and used


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
    return y[:, :, at_front * cut : y.shape[2] - last * cut]


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
    y = None if x is None else F.silu(block.norm1(x), inplace=True)
    y = convolve(block.conv1, y, state, last)
    y = None if y is None else F.silu(block.norm2(y), inplace=True)
    y = convolve(block.conv2, y, state, last)
    waiting = join(state[block].frames, x)
    if y is None or waiting is None:
        state[block].frames = waiting
        return None
    n = y.shape[2]
    state[block].frames = None if last else waiting[:, :, n:].clone()
    return waiting[:, :, :n] + y


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


def decode_stream(
    vqgan: VQGAN, latent_frames: Iterable[Tensor], piece: int = PIECE, group_norm_in_pieces: bool = False
) -> Iterator[Tensor]:
    """The video of a stream of codes, piece by piece, in constant memory; together they equal `vqgan.decode`.

    `latent_frames`: codes int64 [B, h, w] as they come, or several at a time, [B, t, h, w]. Yields float
    [B, C, n, H, W], not clamped: the n frames that have become known. `piece` latent frames are computed together: more
    are faster, fewer take less memory. A VQGAN with group normalisation decodes up to its training length as one;
    `group_norm_in_pieces` allows longer videos, in pieces of that length that know nothing of each other.

    Raises:
        UserError: group normalisation, and more latent frames than a training clip has (when they have come).
        ValueError: the codes do not fit each other, or the model is in training mode.
    """
    check(vqgan, piece)
    given = [latent_frames] if isinstance(latent_frames, Tensor) else latent_frames
    codes = (frame[:, None] if frame.ndim == 3 else frame for frame in given)  # each [B, t, h, w]
    if vqgan.config.norm_type == "group":
        return in_pieces(vqgan.decode, codes, 1, vqgan, group_norm_in_pieces)
    return stream(decode_piece, vqgan, regroup(codes, 1, piece))


def encode_stream(
    vqgan: VQGAN, video_pieces: Iterable[Tensor], piece: int = PIECE, group_norm_in_pieces: bool = False
) -> Iterator[Tensor]:
    """The codes of a video that comes piece by piece, in constant memory; together they equal `vqgan.encode`.

    `video_pieces`: float [B, C, n, H, W] in [-0.5, 0.5], any n. Yields latent frames, int64 [B, h, w], as they become
    known. `piece` and `group_norm_in_pieces` as for `decode_stream`. Frames at the end that fill no latent frame are
    left out, as in one piece.

    Raises:
        UserError: group normalisation, and more frames than a training clip has (when they have come).
        ValueError: the pieces do not fit each other, or the model is in training mode.
    """
    check(vqgan, piece)
    given = [video_pieces] if isinstance(video_pieces, Tensor) else video_pieces
    factor = vqgan.config.downsample[0]
    if vqgan.config.norm_type == "group":
        made = in_pieces(vqgan.encode, given, 2, vqgan, group_norm_in_pieces)
    else:
        made = stream(encode_piece, vqgan, regroup(given, 2, piece * factor))
    return (codes[:, place] for codes in made for place in range(codes.shape[1]))


@torch.no_grad()
def stream(step: Callable[..., Tensor | None], vqgan: VQGAN, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """What `step` (`decode_piece` or `encode_piece`) makes of all pieces, one after the other."""
    state = State()
    for x in pieces:
        made = step(vqgan, x, state)
        if made is not None:
            yield made
    made = step(vqgan, None, state, last=True)
    if made is not None:
        yield made


@torch.no_grad()
def in_pieces(
    whole: Callable[[Tensor], Tensor], given: Iterable[Tensor], axis: int, vqgan: VQGAN, allowed: bool
) -> Iterator[Tensor]:
    """For group normalisation: `whole` (`vqgan.decode` or `vqgan.encode`) of pieces of the training length."""
    factor = vqgan.config.downsample[0]
    length = vqgan.latent_shape[0] * (factor if axis == 2 else 1)
    for number, x in enumerate(regroup(given, axis, length)):
        if number and not allowed:
            raise refusal(vqgan)
        yield whole(x)


def refusal(vqgan: VQGAN) -> UserError:
    """Why a long video does not go through this VQGAN, and what to do."""
    return UserError(
        f"group normalisation looks at all frames of a video together, and this VQGAN was trained on clips of "
        f"{vqgan.latent_shape[0]} latent frames. --decode_group_norm_in_pieces takes longer videos in pieces of that "
        "length, with seams; a VQGAN trained with --norm_type batch takes them exactly"
    )


def check(vqgan: VQGAN, piece: int) -> None:
    """Raises ValueError when videos cannot be streamed."""
    if vqgan.training:
        raise ValueError("batch statistics of a piece are not those of the video: call vqgan.eval() first")
    if piece < 1:
        raise ValueError(f"piece counts latent frames, 1 or more, got {piece}")


def regroup(pieces: Iterable[Tensor], axis: int, length: int) -> Iterator[Tensor]:
    """The same frames in pieces of `length` along `axis`; the last one may be shorter."""
    waiting: list[Tensor] = []
    count = 0
    for piece in pieces:
        while piece.shape[axis]:
            taken = piece.narrow(axis, 0, min(length - count, piece.shape[axis]))
            piece = piece.narrow(axis, taken.shape[axis], piece.shape[axis] - taken.shape[axis])
            waiting.append(taken)
            count += taken.shape[axis]
            if count == length:
                yield torch.cat(waiting, axis)
                waiting, count = [], 0
    if waiting:
        yield torch.cat(waiting, axis)
