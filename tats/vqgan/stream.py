"""Encode and decode endless videos: the codes and the pixels are those of `vqgan.encode` and `vqgan.decode`.

Memory depends on the piece and not on the length. This needs batch normalisation: group normalisation averages over the
whole clip.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tats.flags import UserError
from tats.vqgan.circular import encode_circular
from tats.vqgan.model import VQGAN
from tats.vqgan.pieces import State, decode_piece, encode_piece

NUMBERS = 2**23  # in the widest layer's output for a piece: 32 MiB in single precision
MOST = 8  # latent frames of a piece that is decoded: about as many as the first output waits for anyway
MOST_ENCODED = 64  # of one that is encoded: nothing waits for the codes of a film


def decode_stream(
    vqgan: VQGAN, latent_frames: Iterable[Tensor], piece: int | None = None, group_norm_in_pieces: bool = False
) -> Iterator[Tensor]:
    """The video of a stream of codes, piece by piece, in constant memory; together they equal `vqgan.decode`.

    `latent_frames`: codes int64 [B, h, w] as they come, or several at a time, [B, t, h, w]. Yields float
    [B, C, n, H, W], not clamped: the n frames that have become known. `piece` latent frames are computed together: more
    are faster, fewer take less memory; None chooses by the size of the picture. A VQGAN with group normalisation
    decodes up to its training length as one; `group_norm_in_pieces` allows longer videos, in pieces of that length that
    know nothing of each other.

    Raises:
        UserError: group normalisation, and more latent frames than a training clip has (when they have come).
        ValueError: the codes do not fit each other, or the model is in training mode.
    """
    check(vqgan, piece)
    given = [latent_frames] if isinstance(latent_frames, Tensor) else latent_frames
    codes = fitting((frame[:, None] if frame.ndim == 3 else frame for frame in given), 1, vqgan)  # each [B, t, h, w]
    if vqgan.config.norm_type == "group":
        return in_pieces(vqgan.decode, codes, 1, vqgan, group_norm_in_pieces)
    return stream(decode_piece, vqgan, regroup(codes, 1, lambda first: piece or good_piece(vqgan, first, MOST)))


def encode_stream(
    vqgan: VQGAN, video_pieces: Iterable[Tensor], piece: int | None = None, group_norm_in_pieces: bool = False
) -> Iterator[Tensor]:
    """The codes of a video that comes piece by piece, in constant memory; together they equal `vqgan.encode`.

    `video_pieces`: float [B, C, n, H, W] in [-0.5, 0.5], any n. Yields latent frames, int64 [B, h, w], as they become
    known. `piece` and `group_norm_in_pieces` as for `decode_stream`. Frames at the end that fill no latent frame are
    left out, as in one piece.

    Raises:
        UserError: group normalisation, and more frames than a training clip has (when they have come).
        ValueError: the pieces do not fit each other or fill no latent frame, or the model is in training mode.
    """
    check(vqgan, piece)
    given = fitting([video_pieces] if isinstance(video_pieces, Tensor) else video_pieces, 2, vqgan)
    factor = vqgan.config.downsample[0]

    def frames(first: Tensor) -> int:
        return factor * (piece or good_piece(vqgan, first, MOST_ENCODED))

    if vqgan.config.norm_type == "group":
        made = in_pieces(vqgan.encode, given, 2, vqgan, group_norm_in_pieces)
    elif vqgan.config.padding_type == "circular":
        made = encode_circular(vqgan, regroup(given, 2, frames))
    else:
        made = stream(encode_piece, vqgan, regroup(given, 2, frames), ahead=True)
    return (codes[:, place] for codes in made for place in range(codes.shape[1]))


@torch.no_grad()
def stream(
    step: Callable[..., Tensor | None], vqgan: VQGAN, pieces: Iterable[Tensor], ahead: bool = False
) -> Iterator[Tensor]:
    """What `step` (`decode_piece` or `encode_piece`) makes of all pieces, one after the other.

    With `ahead` a piece waits for the next one, so that the last is known as such and the end needs no step of its own.

    Raises:
        ValueError: there were frames, but nothing came of them.
    """
    state, waiting = State(), None
    came = gave = False
    for x in pieces:
        came = True
        now, waiting = (waiting, x) if ahead else (x, None)
        if now is not None and (made := step(vqgan, now, state)) is not None:
            gave = True
            yield made
    if (made := step(vqgan, waiting, state, last=True)) is not None:
        yield made
    elif came and not gave:
        raise ValueError(f"the video is shorter than a latent frame: {vqgan.config.downsample[0]} frames are needed")


@torch.no_grad()
def in_pieces(
    whole: Callable[[Tensor], Tensor], given: Iterable[Tensor], axis: int, vqgan: VQGAN, allowed: bool
) -> Iterator[Tensor]:
    """For group normalisation: `whole` (`vqgan.decode` or `vqgan.encode`) of pieces of the training length.

    `axis` counts frames in what is given. The last piece is filled up with frames of the one before it, so that the
    statistics are those of a clip of the training length; what these frames give is left out.
    """
    encodes, latents, factor = axis == 2, vqgan.latent_shape[0], vqgan.config.downsample[0]
    length = latents * factor if encodes else latents
    before: Tensor | None = None
    for x in regroup(given, axis, lambda _: length):
        if before is None:
            yield whole(x)
        elif not allowed:
            raise refusal(vqgan)
        else:
            new = x.shape[axis] // factor * factor if encodes else x.shape[axis]
            if not new:
                return
            made = whole(torch.cat([before.narrow(axis, new, length - new), x.narrow(axis, 0, new)], axis))
            kept = new // factor if encodes else new * factor
            yield made.narrow(3 - axis, made.shape[3 - axis] - kept, kept)
        before = x


def refusal(vqgan: VQGAN) -> UserError:
    """Why a long video does not go through this VQGAN, and what to do."""
    return UserError(
        f"group normalisation looks at all frames of a video together, and this VQGAN was trained on clips of "
        f"{vqgan.latent_shape[0]} latent frames. --decode_group_norm_in_pieces takes longer videos in pieces of that "
        "length, with seams; a VQGAN trained with --norm_type batch takes them exactly"
    )


def check(vqgan: VQGAN, piece: int | None) -> None:
    """Raises ValueError when videos cannot be streamed."""
    if vqgan.training:
        raise ValueError("batch statistics of a piece are not those of the video: call vqgan.eval() first")
    if piece is not None and piece < 1:
        raise ValueError(f"piece counts latent frames, 1 or more, got {piece}")


def fitting(pieces: Iterable[Tensor], axis: int, vqgan: VQGAN) -> Iterator[Tensor]:
    """The same pieces, of codes (axis 1) or of video (axis 2), as long as they fit each other.

    Raises:
        ValueError: one has other sizes than the first.
    """
    name, form = ("codes", "[B, h, w] or [B, t, h, w]") if axis == 1 else ("video pieces", "[B, C, n, H, W]")
    sizes: list[int] | None = None
    for piece in pieces:
        found = [*piece.shape[:axis], *piece.shape[axis + 1 :]]
        wrong = piece.ndim != axis + 3 or (axis == 2 and piece.shape[1] != vqgan.config.image_channels)
        if wrong or found != (sizes or found):
            expected = f", and all alike: {found} after {sizes} without time" if sizes and not wrong else ""
            raise ValueError(f"{name} must be {form}{expected}, got {list(piece.shape)}")
        sizes = found
        yield piece


def good_piece(vqgan: VQGAN, first: Tensor, most: int) -> int:
    """How many latent frames to compute together, given codes [B, t, h, w] or video [B, C, n, H, W].

    Enough that the convolutions have something to do, few enough that the widest outputs, those at full size, stay
    small beside a whole video.
    """
    factor, *shrink = vqgan.config.downsample
    rows, columns = first.shape[-2:] if first.ndim == 5 else (n * by for n, by in zip(first.shape[-2:], shrink))
    widest = len(first) * 2 * vqgan.config.n_hiddens * factor * rows * columns  # numbers for one latent frame
    return min(max(NUMBERS // widest, 1), most)


def regroup(pieces: Iterable[Tensor], axis: int, length_of: Callable[[Tensor], int]) -> Iterator[Tensor]:
    """The same frames in pieces of equal length along `axis`, but for the last; the first one given says how long."""
    waiting: list[Tensor] = []
    count, length = 0, 0
    for piece in pieces:
        length = length or length_of(piece)
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
