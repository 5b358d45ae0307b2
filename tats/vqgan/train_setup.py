"""From the flags of train_vqgan.py to what it trains."""

from dataclasses import replace

from tats import checkpoint
from tats.data.config import DataConfig
from tats.data.spectrogram import SIZE
from tats.flags import UserError
from tats.vqgan.config import VQGANConfig
from tats.vqgan.lpips import LPIPS
from tats.vqgan.lpips_weights import load_lpips
from tats.vqgan.model import VQGAN
from tats.vqgan.train_config import VQGANTrainConfig


def model_config(model: VQGANConfig, data: DataConfig, training: VQGANTrainConfig) -> VQGANConfig:
    """The model's settings with the geometry of the clips; with --init_from, the architecture of that checkpoint.

    With --stft_data clips are sounds, whatever --resolution and --image_channels say of the videos beside them.

    Raises:
        UserError: codes instead of pixels, clips that do not divide by --downsample, or with other channels than the
            checkpoint's.
    """
    if data.vtokens:
        raise UserError("--vtokens: a VQGAN is trained from videos, not from codes; leave the flag out")
    channels = 1 if data.stft_data else data.smap_cond if data.smap_only else data.image_channels
    if training.init_from is not None:
        model = checkpoint.load_vqgan(training.init_from).config
        if model.image_channels != channels:
            raise UserError(
                f"--init_from {training.init_from} takes {model.image_channels} channels, the clips have {channels}"
            )
    if data.stft_data:
        return _of_sounds(model, data)
    if data.smap_only and (training.perceptual_weight > 0 or training.lpips_ckpt is not None):
        raise UserError("--perceptual_weight compares pictures, and with --smap_only clips are maps: leave it out")
    _check_clips(model, data)
    return replace(
        model,
        image_channels=channels,
        resolution=data.resolution,
        width=None,
        of_maps=data.smap_only,
        sequence_length=data.sequence_length,
        sample_every_n_frames=1 if data.image_folder else data.sample_every_n_frames,
    )


def _of_sounds(model: VQGANConfig, data: DataConfig) -> VQGANConfig:
    """The settings of a VQGAN of sounds: pictures of 64 x 16 with one channel, one per frame of the clip's window."""
    (height, width), (t, h, w) = SIZE, model.downsample
    if data.sequence_length % t:
        raise UserError(
            f"sounds of {data.sequence_length} frames do not divide by {t}, the first number of --downsample: change "
            f"it, or take --sequence_length {max(data.sequence_length // t, 1) * t}"
        )
    if height % h or width % w:
        raise UserError(
            f"--downsample {t} {h} {w}: the sound of a frame is a picture of {height}x{width}, the other two numbers "
            f"reach up to {height} and {width}"
        )
    return replace(
        model, image_channels=1, resolution=height, width=width, sequence_length=data.sequence_length,
        sample_every_n_frames=1,
    )  # fmt: skip


def _check_clips(model: VQGANConfig, data: DataConfig) -> None:
    """Clips must divide into codes without a rest, or they do not come back in their own size."""
    t, h, w = model.downsample
    if data.clip_frames % t:
        raise UserError(
            f"clips of {data.clip_frames} frames do not divide by {t}, the first number of --downsample: change it, or "
            f"take --sequence_length {max(data.clip_frames // t, 1) * t * data.sample_every_n_frames}"
        )
    if data.resolution % h or data.resolution % w:
        raise UserError(
            f"--resolution {data.resolution} does not divide by {h} and {w}, the other numbers of --downsample: change "
            f"these, or take --resolution {max(data.resolution // max(h, w), 1) * max(h, w)}"
        )


def perceptual(training: VQGANTrainConfig) -> LPIPS | None:
    """The perceptual distance, if the loss asks for it or weights for it are given."""
    if training.perceptual_weight == 0 and training.lpips_ckpt is None:
        return None
    return load_lpips(training.lpips_ckpt)


def start(training: VQGANTrainConfig, model: VQGANConfig) -> VQGAN | None:
    """The model to go on with, with the clips of `model` from now on; None for a new one."""
    if training.init_from is None:
        return None
    vqgan = checkpoint.load_vqgan(training.init_from)
    vqgan.config = model
    return vqgan
