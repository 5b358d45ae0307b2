"""The critics: patch by patch, is this frame, is this clip real?"""

import torch.nn.functional as F
from torch import Tensor, nn

from tats.vqgan.layers import with_room

MAX_CHANNELS = 512


class Conv2d(nn.Conv2d):
    """torch's, with right gradients where an axis is shorter than the kernel."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = with_room(input, self.kernel_size, self.padding)  # type: ignore[arg-type]
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """torch's, with right gradients where an axis is shorter than the kernel."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = with_room(input, self.kernel_size, self.padding)  # type: ignore[arg-type]
        return F.conv3d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class Discriminator(nn.Module):
    """PatchGAN critic of images (`dims` 2) or of videos (`dims` 3). Parameter names are those of the released files.

    Kernel 4 and padding 2 everywhere. `layers + 2` convolutions: the first `layers` of them halve every axis, all but
    the first and last are followed by batch normalisation, all but the last by LeakyReLU(0.2).
    """

    def __init__(self, dims: int, n_in: int, channels: int, layers: int):
        super().__init__()
        conv = {2: Conv2d, 3: Conv3d}[dims]
        batch_norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
        self.depth = layers + 2
        for j in range(self.depth):
            last = j == self.depth - 1
            n_out = 1 if last else min(channels * 2**j, MAX_CHANNELS)
            parts: list[nn.Module] = [conv(n_in, n_out, 4, stride=2 if j < layers else 1, padding=2)]
            if 0 < j < self.depth - 1:
                parts.append(batch_norm(n_out))
            if not last:
                parts.append(nn.LeakyReLU(0.2, inplace=True))
            self.add_module(f"model{j}", nn.Sequential(*parts))
            n_in = n_out

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x [B, C, H, W] or [B, C, T, H, W] -> one logit per patch, and the outputs of all layers, these included"""
        features = []
        for j in range(self.depth):
            x = getattr(self, f"model{j}")(x)
            features.append(x)
        return x, features
