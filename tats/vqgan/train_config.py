"""The settings of VQGAN training. No torch here: `--help` stays fast."""

from dataclasses import dataclass
from typing import ClassVar

from tats.flags import UserError, arg


@dataclass(frozen=True)
class VQGANTrainConfig:
    """What the VQGAN is trained for. The defaults are the published ones; what is new is off."""

    lr: float = arg(3e-4, "learning rate before scaling: * accumulate * processes/8 * batch_size/4")
    disc_channels: int = arg(64, "channels of the critics' first convolution")
    disc_layers: int = arg(3, "convolutions of the critics that halve their input")
    discriminator_iter_start: int = arg(50000, "step from which the critics count")
    disc_loss_type: str = arg("hinge", "loss of the critics", ["hinge", "vanilla"])
    image_gan_weight: float = arg(1.0, "weight of the critic of frames; no critics are trained when both are 0")
    video_gan_weight: float = arg(1.0, "weight of the critic of clips")
    l1_weight: float = arg(4.0, "weight of the mean absolute difference of pixels; of semantic maps: of cross entropy")
    mse_weight: float = arg(0.0, "weight of the mean squared difference of pixels")
    flicker_weight: float = arg(0.0, "weight of the mean squared difference of changes from frame to frame")
    gan_feat_weight: float = arg(0.0, "weight of the critics' features, compared between clip and reconstruction")
    perceptual_weight: float = arg(0.0, "weight of the perceptual distance (LPIPS) of one frame per clip")
    lpips_ckpt: str | None = arg(None, "weights for it: VGG16, or a released VQGAN checkpoint, which holds them")
    init_from: str | None = arg(None, "VQGAN checkpoint to go on with as a new run; its architecture holds")
    shared_forward: bool = arg(False, "one reconstruction for both players: faster, another recipe")
    adam_betas: tuple[float, float] = arg((0.5, 0.9), "decay of Adam's averages, of both players")
    lr_schedule: str = arg("constant", "learning rate over the run", ["constant", "cosine"])
    warmup_steps: int = arg(0, "steps in which the learning rate rises from 0")
    vq_start_step: int = arg(0, "train without the codebook until this step")
    rate_weight: float = arg(
        0.0, "in training, codes cost their rarity times this: fewer codes for what looks alike (0: as published)"
    )
    codebook_start: str = arg("data", "first codes: vectors of the first batch, or their k-means", ["data", "kmeans"])
    channels_last: bool = arg(False, "keep channels last in memory: other rounding; faster with batch norm on CPUs")
    compile: bool = arg(False, "compile the networks (torch.compile): minutes at the start, other rounding")
    log_images_every: int = arg(750, "batches between two pictures in the log, and at 2, 4, 8 ... 512 (0: none)")
    log_videos_every: int = arg(1500, "batches between two videos in the log, and at 2, 4, 8 ... 512 (0: none)")

    notes: ClassVar[dict[str, tuple[int | str, str]]] = {
        "i3d_feat": (0, "never had an effect; left out"),
    }

    def __post_init__(self) -> None:
        if self.rate_weight < 0:
            raise UserError(f"--rate_weight must not be negative, got {self.rate_weight}")
        weights = ("image_gan", "video_gan", "l1", "mse", "flicker", "gan_feat")
        for name in (f"{each}_weight" for each in weights):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        for name in ("warmup_steps", "vq_start_step", "log_images_every", "log_videos_every"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        if min(self.disc_channels, self.disc_layers) < 1:
            raise UserError(
                "--disc_channels and --disc_layers must be at least 1, "
                f"got {self.disc_channels} and {self.disc_layers}; to train without critics, "
                "set --image_gan_weight 0 --video_gan_weight 0"
            )
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise UserError(f"--adam_betas takes two numbers in [0, 1), got {self.adam_betas}")
        if self.perceptual_weight < 0:
            raise UserError(f"--perceptual_weight must not be negative, got {self.perceptual_weight}")

    @property
    def has_critics(self) -> bool:
        """Whether there is a second player: at least one of the two weights is not 0."""
        return self.image_gan_weight > 0 or self.video_gan_weight > 0
