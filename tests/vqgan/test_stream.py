"""Videos of any length through the VQGAN: piece by piece = in one piece."""

import itertools

import pytest
import torch

import tats
from tats.flags import UserError
from tats.vqgan.config import PADDINGS, VQGANConfig
from tats.vqgan.model import VQGAN

DOWNSAMPLES = [(4, 4, 4), (1, 4, 4), (2, 4, 8), (8, 2, 2), (4, 2, 1), (4, 8, 8)]
SIDE = 16


def tiny_vqgan(downsample=(4, 4, 4), padding="replicate", norm="batch", dtype=torch.float32) -> VQGAN:
    """Random weights, and statistics that are not those of a fresh model."""
    torch.manual_seed(0)
    hiddens = 16 if norm == "group" else 4
    vqgan = VQGAN(
        VQGANConfig(8, 64, hiddens, downsample, norm, padding, resolution=SIDE, sequence_length=4 * downsample[0])
    ).eval()
    for layer in vqgan.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    return vqgan.to(dtype)


def some_codes(vqgan: VQGAN, length: int, batch: int = 1) -> torch.Tensor:
    _, h, w = vqgan.config.downsample
    return torch.randint(vqgan.n_codes, (batch, length, SIDE // h, SIDE // w))


def some_video(vqgan: VQGAN, length: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, length, SIDE, SIDE, dtype=vqgan.codebook.embeddings.dtype) - 0.5


def decoded(vqgan: VQGAN, codes: torch.Tensor, **options) -> torch.Tensor:
    return torch.cat(list(tats.decode_stream(vqgan, codes.unbind(1), **options)), 2)


def encoded(vqgan: VQGAN, pieces, **options) -> torch.Tensor:
    return torch.stack(list(tats.encode_stream(vqgan, pieces, **options)), 1)


def close(a: torch.Tensor, b: torch.Tensor, allowed: float) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= allowed * float(b.abs().max())


@pytest.mark.parametrize("downsample", DOWNSAMPLES)
@torch.no_grad()
def test_a_streamed_video_is_the_whole_one(downsample):
    vqgan = tiny_vqgan(downsample)
    for length, piece, batch in [(1, 1, 1), (2, 3, 1), (9, 2, 2), (9, 1, 1)]:
        codes = some_codes(vqgan, length, batch)
        assert close(decoded(vqgan, codes, piece=piece), vqgan.decode(codes), 1e-6)


@pytest.mark.parametrize("downsample", [(4, 4, 4), (2, 4, 8)])
@torch.no_grad()
def test_what_differs_is_rounding(downsample):
    vqgan = tiny_vqgan(downsample, dtype=torch.float64)
    codes = some_codes(vqgan, 5)
    assert close(decoded(vqgan, codes, piece=2), vqgan.decode(codes), 1e-14)


@pytest.mark.parametrize("downsample", DOWNSAMPLES)
@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_streamed_codes_are_those_of_the_whole_video(downsample, padding):
    vqgan = tiny_vqgan(downsample, padding, dtype=torch.float64)
    factor = downsample[0]
    for frames, given, piece in [(5 * factor, 3, 1), (14 * factor - 1, 7, 4)]:
        video = some_video(vqgan, frames)
        assert torch.equal(encoded(vqgan, video.split(given, 2), piece=piece), vqgan.encode(video))


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_streamed_codes_in_single_precision(padding):
    vqgan = tiny_vqgan((4, 4, 4), padding)
    video = some_video(vqgan, 85, batch=2)
    assert torch.equal(encoded(vqgan, video.split(11, 2)), vqgan.encode(video))


@torch.no_grad()
def test_a_circular_video_is_not_encoded_as_one(monkeypatch):
    vqgan = tiny_vqgan((4, 4, 4), "circular", dtype=torch.float64)
    video = some_video(vqgan, 86)
    whole = vqgan.encode(video)
    monkeypatch.setattr(VQGAN, "encode", None)
    assert torch.equal(encoded(vqgan, video.split(5, 2)), whole)


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_short_videos_fail_or_pass_as_in_one_piece(padding):
    vqgan = tiny_vqgan((4, 4, 4), padding, dtype=torch.float64)
    passed = []
    for frames in range(1, 14):
        video = some_video(vqgan, frames)
        try:
            whole = vqgan.encode(video)
        except RuntimeError:
            with pytest.raises((RuntimeError, ValueError), match=r"latent frame|size|adding"):
                list(tats.encode_stream(vqgan, video.split(2, 2)))
            continue
        assert torch.equal(encoded(vqgan, video.split(2, 2)), whole)
        passed.append(frames)
    assert passed[-1] == 13 and passed[0] >= 4


@torch.no_grad()
def test_codes_may_come_in_any_grouping():
    vqgan = tiny_vqgan()
    codes = some_codes(vqgan, 11, batch=2)
    mixed = [codes[:, :5], codes[:, 5], codes[:, 6:7], codes[:, 7:7], codes[:, 7:]]
    for given in (mixed, [codes], codes):
        made = list(tats.decode_stream(vqgan, given))
        assert torch.equal(torch.cat(made, 2), decoded(vqgan, codes))


def test_no_frames_make_no_video():
    vqgan = tiny_vqgan()
    assert list(tats.decode_stream(vqgan, [])) == list(tats.encode_stream(vqgan, [])) == []


def test_the_first_frames_come_before_the_last_codes():
    vqgan = tiny_vqgan()
    asked = itertools.count()
    endless = (some_codes(vqgan, 1)[:, next(asked) * 0] for _ in itertools.repeat(None))
    first = next(tats.decode_stream(vqgan, endless, piece=1))
    assert first.shape[2] >= 1
    assert next(asked) <= 3 * vqgan.reach


def test_every_layer_keeps_a_few_frames_only():
    from tats.vqgan.pieces import State, decode_piece, encode_piece

    vqgan = tiny_vqgan()
    for step, piece in ((decode_piece, some_codes(vqgan, 4)), (encode_piece, some_video(vqgan, 16))):
        state, sizes = State(), []
        for _ in range(6):
            step(vqgan, piece, state)
            kept = [part.frames for part in state.values() if part.frames is not None]
            assert all(part.untyped_storage().nbytes() == part.nbytes for part in kept)  # no view of a whole piece
            sizes.append(sum(part.numel() for part in kept))
        assert sizes[2:] == sizes[1:-1]


@pytest.mark.parametrize("channels_last", [False, True])
@torch.no_grad()
def test_bfloat16_and_channels_last(channels_last):
    vqgan = tiny_vqgan((4, 4, 4)).to(torch.bfloat16)
    if channels_last:
        vqgan = vqgan.to(memory_format=torch.channels_last_3d)
    codes = some_codes(vqgan, 9, batch=2)
    video = vqgan.decode(codes)
    made = decoded(vqgan, codes)
    assert made.dtype == torch.bfloat16 and close(made.float(), video.float(), 0.02)
    frames = torch.rand(2, 3, 33, SIDE, SIDE).to(torch.bfloat16) - 0.5
    assert (encoded(vqgan, frames.split(10, 2)) == vqgan.encode(frames)).float().mean() > 0.95


@torch.no_grad()
def test_autocast_holds_in_the_stream():
    vqgan = tiny_vqgan()
    codes = some_codes(vqgan, 9, batch=2)
    with torch.autocast("cpu", torch.bfloat16):
        whole, made = vqgan.decode(codes), decoded(vqgan, codes)
    assert made.dtype == whole.dtype and close(made.float(), whole.float(), 0.02)


@torch.no_grad()
def test_group_norm_decodes_clips_as_usual_and_refuses_longer_videos():
    vqgan = tiny_vqgan(norm="group")
    codes, video = some_codes(vqgan, 5), some_video(vqgan, 17)
    assert torch.equal(decoded(vqgan, codes[:, :4]), vqgan.decode(codes[:, :4]))
    assert torch.equal(encoded(vqgan, video[:, :, :15].split(4, 2)), vqgan.encode(video[:, :, :15]))
    for made in (tats.decode_stream(vqgan, codes.unbind(1)), tats.encode_stream(vqgan, [video])):
        with pytest.raises(UserError, match="--decode_group_norm_in_pieces"):
            list(made)


@torch.no_grad()
def test_group_norm_in_pieces_of_the_training_length():
    vqgan = tiny_vqgan(norm="group")
    codes, video = some_codes(vqgan, 10), some_video(vqgan, 42)
    whole = [vqgan.decode(codes[:, 0:4]), vqgan.decode(codes[:, 4:8]), vqgan.decode(codes[:, 6:10])[:, :, 8:]]
    assert torch.equal(decoded(vqgan, codes, group_norm_in_pieces=True), torch.cat(whole, 2))
    parts = [video[:, :, start : start + 16] for start in (0, 16, 24)]
    whole = [vqgan.encode(parts[0]), vqgan.encode(parts[1]), vqgan.encode(parts[2])[:, 2:]]
    assert torch.equal(encoded(vqgan, video.split(5, 2), group_norm_in_pieces=True), torch.cat(whole, 1))


def test_a_model_in_training_is_refused():
    vqgan = tiny_vqgan().train()
    with pytest.raises(ValueError, match="eval"):
        tats.decode_stream(vqgan, [])
    with pytest.raises(ValueError, match="piece"):
        tats.encode_stream(vqgan.eval(), [], piece=0)


def test_codes_of_another_shape_are_refused():
    vqgan = tiny_vqgan()
    codes = some_codes(vqgan, 2)
    for wrong in ([codes[0, 0]], [codes[:, 0], codes[:, 1, :1]]):
        with pytest.raises(ValueError, match="codes"):
            list(tats.decode_stream(vqgan, wrong))
    video = some_video(vqgan, 4)
    for wrong in ([video[0]], [video, video[:, :, :, :4]]):
        with pytest.raises(ValueError, match="video"):
            list(tats.encode_stream(vqgan, wrong))
