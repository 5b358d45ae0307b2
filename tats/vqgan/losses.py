"""What the two players of VQGAN training minimise."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tats.vqgan.codebook import Quantized
from tats.vqgan.discriminator import Discriminator
from tats.vqgan.lpips import LPIPS
from tats.vqgan.train_config import VQGANTrainConfig


class Critics(NamedTuple):
    """The critic of frames and the critic of clips."""

    image: Discriminator
    video: Discriminator


class Terms(NamedTuple):
    """A loss, and its parts by their names in the log."""

    loss: Tensor
    parts: dict[str, Tensor]


def pick(video: Tensor, frames: Tensor) -> Tensor:
    """One frame of each clip.  video [B, C, T, H, W], frames int64 [B] -> [B, C, H, W]"""
    at = frames.to(video.device)
    return video[torch.arange(len(video), device=video.device), :, at]


def reconstruction(cfg: VQGANTrainConfig, video: Tensor, rebuilt: Tensor, of_maps: bool = False) -> Tensor:
    """Weighted difference of pixels, and of their changes over time.  video, rebuilt [B, C, T, H, W] -> scalar

    Of semantic maps `rebuilt` holds scores of the classes, and their cross entropy takes the place of all that.
    """
    if of_maps:
        return cfg.l1_weight * F.cross_entropy(rebuilt.float(), video.float() + 0.5)
    loss = cfg.l1_weight * F.l1_loss(rebuilt, video)
    if cfg.mse_weight > 0:
        loss = loss + cfg.mse_weight * F.mse_loss(rebuilt, video)
    if cfg.flicker_weight > 0 and video.shape[2] > 1:
        loss = loss + cfg.flicker_weight * F.mse_loss(rebuilt.float().diff(dim=2), video.float().diff(dim=2))
    return loss


def map_of(scores: Tensor) -> Tensor:
    """Scores of classes as a semantic map: the share of every class, less 0.5, as the data has them.  [B, C, ...]"""
    return scores.softmax(1) - 0.5


def map_accuracy(video: Tensor, rebuilt: Tensor) -> Tensor:
    """Share of the pixels of semantic maps [B, C, T, H, W] whose likeliest class is the right one."""
    return (rebuilt.argmax(1) == video.argmax(1)).float().mean()


def feature_distance(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Sum of mean absolute differences over all feature maps but the logits; no gradient into the real ones."""
    return torch.stack([F.l1_loss(f, r.detach()) for f, r in zip(fake[:-1], real[:-1])]).sum()


def critic_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """What a critic minimises, from its logits of real and of rebuilt pixels: `hinge` or `vanilla`."""
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_terms(
    cfg: VQGANTrainConfig,
    critics: Critics | None,
    lpips: LPIPS | None,
    video: Tensor,
    rebuilt: Tensor,
    quantized: Quantized,
    frames: Tensor,
    factor: float,
    of_maps: bool = False,
) -> Terms:
    """The loss of encoder, codebook and decoder.  video, rebuilt [B, C, T, H, W]; frames int64 [B]

    `factor` is 1 once the critics count, before that 0. The weights of the two critics scale their verdicts; their
    features only ask whether a weight is 0, as published. of_maps: see `reconstruction`.
    """
    zero = rebuilt.new_zeros(())
    names = ("g_image_loss", "g_video_loss", "image_gan_feat_loss", "video_gan_feat_loss", "aeloss", "perceptual_loss")
    parts = dict.fromkeys(names, zero)
    parts["recon_loss"] = reconstruction(cfg, video, rebuilt, of_maps)
    rebuilt = map_of(rebuilt) if of_maps else rebuilt
    parts["commitment_loss"], parts["perplexity"] = quantized.commitment, quantized.perplexity
    loss = parts["recon_loss"] + quantized.commitment
    real, fake = pick(video, frames), pick(rebuilt, frames)  # each [B, C, H, W]
    if cfg.perceptual_weight > 0 and lpips is not None:
        parts["perceptual_loss"] = cfg.perceptual_weight * lpips(real, fake).mean()
        loss = loss + parts["perceptual_loss"]
    if critics is not None:
        with torch.set_grad_enabled(torch.is_grad_enabled() and factor > 0):  # times 0 there is nothing to pass back
            images, image_maps = critics.image(fake)
            videos, video_maps = critics.video(rebuilt)
            parts["g_image_loss"], parts["g_video_loss"] = -images.mean(), -videos.mean()
            if cfg.image_gan_weight > 0:
                parts["image_gan_feat_loss"] = feature_distance(image_maps, critics.image(real)[1])
            if cfg.video_gan_weight > 0:
                parts["video_gan_feat_loss"] = feature_distance(video_maps, critics.video(video)[1])
        verdict = cfg.image_gan_weight * parts["g_image_loss"] + cfg.video_gan_weight * parts["g_video_loss"]
        parts["aeloss"] = factor * verdict
        features = parts["image_gan_feat_loss"] + parts["video_gan_feat_loss"]
        loss = loss + parts["aeloss"] + factor * cfg.gan_feat_weight * features
    return Terms(loss, parts)


def critic_terms(
    cfg: VQGANTrainConfig, critics: Critics, video: Tensor, rebuilt: Tensor, frames: Tensor, factor: float
) -> Terms:
    """The loss of the critics.  video, rebuilt [B, C, T, H, W]; frames int64 [B]; `factor` as for the generator"""
    rebuilt = rebuilt.detach()
    real_images = critics.image(pick(video, frames))[0]
    real_videos = critics.video(video)[0]
    fake_images = critics.image(pick(rebuilt, frames))[0]
    fake_videos = critics.video(rebuilt)[0]
    image_loss = critic_loss(real_images, fake_images, cfg.disc_loss_type)
    video_loss = critic_loss(real_videos, fake_videos, cfg.disc_loss_type)
    loss = factor * (cfg.image_gan_weight * image_loss + cfg.video_gan_weight * video_loss)
    parts = {
        "logits_image_real": real_images.mean(),
        "logits_image_fake": fake_images.mean(),
        "logits_video_real": real_videos.mean(),
        "logits_video_fake": fake_videos.mean(),
        "d_image_loss": image_loss,
        "d_video_loss": video_loss,
        "discloss": loss,
    }
    return Terms(loss, parts)
