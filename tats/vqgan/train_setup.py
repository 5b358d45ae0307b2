"""From the flags of train_vqgan.py to what it trains."""

from dataclasses import replace

from tats import checkpoint
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.vqgan.config import VQGANConfig
from tats.vqgan.lpips import LPIPS
from tats.vqgan.lpips_weights import load_lpips
from tats.vqgan.model import VQGAN
from tats.vqgan.train_config import VQGANTrainConfig


def model_config(model: VQGANConfig, data: DataConfig, training: VQGANTrainConfig) -> VQGANConfig:
    """The model's settings with the geometry of the clips; with --init_from, the architecture of that checkpoint.

    Raises:
        UserError: codes instead of pixels, clips that do not divide by --downsample, or with other channels than the
            checkpoint's.
    """
    if data.vtokens:
        raise UserError("--vtokens: a VQGAN is trained from videos, not from codes; leave the flag out")
    channels = data.smap_cond if data.smap_only else data.image_channels
    if training.init_from is not None:
        model = checkpoint.load_vqgan(training.init_from).config
        if model.image_channels != channels:
            raise UserError(
                f"--init_from {training.init_from} takes {model.image_channels} channels, the clips have {channels}"
            )
    _check_clips(model, data)
    return replace(
        model,
        image_channels=channels,
        resolution=data.resolution,
        sequence_length=data.sequence_length,
        sample_every_n_frames=1 if data.image_folder else data.sample_every_n_frames,
    )


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


def start(training: VQGANTrainConfig) -> VQGAN | None:
    """The model to go on with, None for a new one."""
    return checkpoint.load_vqgan(training.init_from) if training.init_from is not None else None
