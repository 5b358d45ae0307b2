"""The settings of the VQGAN. No torch here: `--help` stays fast."""

from dataclasses import dataclass

from tats.flags import UserError, arg

PADDINGS = ["replicate", "constant", "reflect", "circular"]


@dataclass(frozen=True)
class VQGANConfig:
    """How a video becomes codes. The flags of train_vqgan.py; stored in every checkpoint."""

    embedding_dim: int = arg(256, "width of one code vector")
    n_codes: int = arg(2048, "size of the codebook")
    n_hiddens: int = arg(240, "channels of the first convolution; doubled at every stage")
    downsample: tuple[int, int, int] = arg((4, 4, 4), "shrinking of time, height and width; powers of two")
    norm_type: str = arg("group", "normalisation; only batch decodes long videos in pieces", ["group", "batch"])
    padding_type: str = arg("replicate", "border of the encoder's first and shrinking convolutions", PADDINGS)
    restart_thres: float = arg(1.0, "a code used less often than this (moving average of counts) starts anew")
    no_random_restart: bool = arg(False, "keep codes that nothing uses")

    image_channels: int = arg(3, "channels of the video", flag=False)
    resolution: int = arg(64, "height and width of the training clips", flag=False)
    width: int | None = arg(None, "width of the training clips where it is not the height: of sounds", flag=False)
    sequence_length: int = arg(16, "frames read per training clip", flag=False)
    sample_every_n_frames: int = arg(1, "of these, every n-th is kept", flag=False)
    of_maps: bool = arg(False, "channels are the classes of semantic maps; decoded, their scores", flag=False)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "n_codes", "n_hiddens", "image_channels", "resolution", "sequence_length"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for factor in self.downsample:
            if factor < 1 or factor & (factor - 1):
                raise UserError(f"--downsample takes powers of two, got {factor} in {tuple(self.downsample)}")
        if max(self.downsample) == 1:
            raise UserError("--downsample 1 1 1 shrinks nothing: give at least one axis a factor of 2, e.g. 1 2 2")
        if self.norm_type == "group" and self.n_hiddens % 16:
            below = max(self.n_hiddens // 16, 1) * 16
            raise UserError(
                f"--norm_type group has 32 groups, so --n_hiddens must be a multiple of 16, got {self.n_hiddens}: "
                f"take {below} or {below + 16}, or --norm_type batch"
            )

    @property
    def stages(self) -> int:
        """Number of shrinking blocks: the largest exponent in `downsample`."""
        return max(self.downsample).bit_length() - 1

    def strides(self) -> list[tuple[int, int, int]]:
        """Stride of each encoder block: an axis with factor 2^m is halved in the first m blocks."""
        halvings = [factor.bit_length() - 1 for factor in self.downsample]
        t, h, w = ([2 if stage < m else 1 for stage in range(self.stages)] for m in halvings)
        return list(zip(t, h, w))

    @property
    def of_sounds(self) -> bool:
        """Whether it was trained on the pictures of sounds, whose numbers lie in [-1, 1], instead of videos."""
        return self.width is not None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of one training clip."""
        t, h, w = self.downsample
        return (
            self.sequence_length // self.sample_every_n_frames // t,
            self.resolution // h,
            (self.width or self.resolution) // w,
        )
