"""The VQGAN: a video becomes codes, codes become a video. Parameter names are those of the released checkpoints."""

from functools import cached_property

import torch
from torch import Tensor, nn

from tats.vqgan.codebook import Codebook, Quantized
from tats.vqgan.config import VQGANConfig
from tats.vqgan.draws import Draws
from tats.vqgan.layers import ResBlock, SameConv3d, SameConvTranspose3d, Size3, norm


class EncoderBlock(nn.Module):
    """Halve the axes that still need it, double the channels."""

    def __init__(self, channels: int, strides: Size3, norm_type: str, padding_type: str):
        super().__init__()
        self.down = SameConv3d(channels, 2 * channels, 4, strides, padding_type)
        self.res = ResBlock(2 * channels, norm_type)

    def forward(self, x: Tensor) -> Tensor:
        return self.res(self.down(x))


class DecoderBlock(nn.Module):
    """Double the axes that were halved at this depth."""

    def __init__(self, n_in: int, n_out: int, strides: Size3, norm_type: str):
        super().__init__()
        self.up = SameConvTranspose3d(n_in, n_out, 4, strides)
        self.res1 = ResBlock(n_out, norm_type)
        self.res2 = ResBlock(n_out, norm_type)

    def forward(self, x: Tensor) -> Tensor:
        return self.res2(self.res1(self.up(x)))


class Encoder(nn.Module):
    """video [B, C, T, H, W] -> [B, n_hiddens * 2^stages, t, h, w]"""

    def __init__(self, cfg: VQGANConfig):
        super().__init__()
        n = cfg.n_hiddens
        self.conv_blocks = nn.ModuleList(
            EncoderBlock(n * 2**i, strides, cfg.norm_type, cfg.padding_type) for i, strides in enumerate(cfg.strides())
        )
        self.conv_first = SameConv3d(cfg.image_channels, n, 3, padding_type=cfg.padding_type)  # in the published order
        self.final_block = nn.Sequential(norm(n * 2**cfg.stages, cfg.norm_type), nn.SiLU())

    def forward(self, video: Tensor) -> Tensor:
        x = self.conv_first(video)
        for block in self.conv_blocks:
            x = block(x)
        return self.final_block(x)


class Decoder(nn.Module):
    """[B, n_hiddens * 2^stages, t, h, w] -> video [B, C, T, H, W], not clamped"""

    def __init__(self, cfg: VQGANConfig):
        super().__init__()
        n_in = cfg.n_hiddens * 2**cfg.stages
        self.final_block = nn.Sequential(norm(n_in, cfg.norm_type), nn.SiLU())
        self.conv_blocks = nn.ModuleList()
        for i, strides in enumerate(cfg.strides()):
            n_out = cfg.n_hiddens * 2 ** (cfg.stages - i)
            self.conv_blocks.append(DecoderBlock(n_in, n_out, strides, cfg.norm_type))
            n_in = n_out
        self.conv_last = SameConv3d(n_in, cfg.image_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.final_block(x)
        for block in self.conv_blocks:
            x = block(x)
        return self.conv_last(x)


class VQGAN(nn.Module):
    """Encoder, codebook, decoder. Any T, H, W works; what `downsample` does not divide is floored."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        wide = config.n_hiddens * 2**config.stages
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.pre_vq_conv = SameConv3d(wide, config.embedding_dim, 1, padding_type=config.padding_type)
        self.post_vq_conv = SameConv3d(config.embedding_dim, wide, 1)
        self.codebook = Codebook(
            config.n_codes, config.embedding_dim, config.restart_thres, restart=not config.no_random_restart
        )

    @property
    def n_codes(self) -> int:
        """Size of the codebook."""
        return self.config.n_codes

    @property
    def latent_shape(self) -> Size3:
        """Latent frames, rows and columns of one training clip."""
        return self.config.latent_shape

    @cached_property
    def reach(self) -> int:
        """How many latent frames to each side of its own one decoded frame depends on, by the convolutions alone.

        Measured: gradients through a decoder of the same shape with one channel and nothing but averages. With group
        normalisation every frame also depends on the mean and variance of the whole clip.
        """
        return measure_reach(self.config)

    def features(self, video: Tensor) -> Tensor:
        """What the codebook is asked to replace.  video [B, C, T, H, W] -> [B, embedding_dim, t, h, w]"""
        if video.ndim != 5 or video.shape[1] != self.config.image_channels:
            raise ValueError(f"video must be [B, {self.config.image_channels}, T, H, W], got {tuple(video.shape)}")
        return self.pre_vq_conv(self.encoder(video))

    def rebuild(self, embeddings: Tensor) -> Tensor:
        """[B, embedding_dim, t, h, w] -> video [B, C, T, H, W], not clamped"""
        return self.decoder(self.post_vq_conv(embeddings))

    def encode(self, video: Tensor) -> Tensor:
        """video float [B, C, T, H, W] in [-0.5, 0.5] -> codes int64 [B, t, h, w] in [0, n_codes)"""
        return self.codebook.nearest(self.features(video))

    def decode(self, codes: Tensor) -> Tensor:
        """codes int64 [B, t, h, w] in [0, n_codes) -> video float [B, C, T, H, W], not clamped"""
        if codes.ndim != 4:
            raise ValueError(f"codes must be [B, t, h, w], got {tuple(codes.shape)}")
        return self.rebuild(self.codebook.lookup(codes))

    def forward(
        self, video: Tensor, draws: Draws | None = None, *, hold: bool = False, quantise: bool = True
    ) -> tuple[Tensor, Quantized]:
        """The video again, and what the codebook made of it.  video [B, C, T, H, W] -> same shape, not clamped

        In training mode the codebook moves with the data; `draws` gives the randomness of its restarts, `hold` only
        adds the statistics up until `codebook.update()`. `quantise=False` leaves the codebook out.
        """
        z = self.features(video)  # [B, D, t, h, w]
        quantized = self.codebook(z, draws, hold=hold) if quantise else self.codebook.skip(z, draws)
        return self.rebuild(quantized.embeddings), quantized


def measure_reach(config: VQGANConfig) -> int:
    """Latent frames to each side that one decoded frame depends on (see `VQGAN.reach`)."""
    halvings = config.downsample[0].bit_length() - 1
    layers: list[nn.Module] = []
    for stage in range(config.stages):  # in time alone: 1 x 1 in space
        stride = 2 if stage < halvings else 1
        layers.append(_TimeUp(stride))
        layers += [nn.Conv1d(1, 1, 3, padding=1, bias=False) for _ in range(4)]
    layers.append(nn.Conv1d(1, 1, 3, padding=1, bias=False))
    twin = nn.Sequential(*layers).double()
    for weight in twin.parameters():
        nn.init.constant_(weight, 0.3)
    latents, factor = 6 * config.stages + 9, 2**halvings
    middle = latents // 2
    x = torch.zeros(1, 1, latents, dtype=torch.double, requires_grad=True)
    own = twin(x)[..., middle * factor : (middle + 1) * factor]
    (slope,) = torch.autograd.grad(own.sum(), x)
    seen = slope[0, 0].nonzero()[:, 0]
    return int(max(middle - seen.min(), seen.max() - middle))


class _TimeUp(nn.Module):
    """The time axis of a same-size transposed convolution."""

    def __init__(self, stride: int):
        super().__init__()
        total = 4 - stride
        self.sides = (total - total // 2, total // 2)
        self.conv = nn.ConvTranspose1d(1, 1, 4, stride=stride, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, self.sides, mode="replicate"))
