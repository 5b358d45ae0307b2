"""The layers of encoder and decoder: convolutions that keep the size, residual blocks, normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size3 = tuple[int, int, int]
SMALL = 20480  # clips x channels x frames x rows, up to which torch takes its slow convolution for a single clip


def same_padding(kernel: int, strides: Size3) -> tuple[int, ...]:
    """Padding that makes the output `input / stride` long, in F.pad's order (last axis first): the odd one in front."""
    sides: list[int] = []
    for stride in reversed(strides):
        total = kernel - stride
        sides += [total - total // 2, total // 2]
    return tuple(sides)


def with_room(x: Tensor, kernel: tuple[int, ...], padding: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """x [B, C, ...] and the zero padding that its convolution is still to add: none where x has it already.

    In bf16 on CPUs the gradient of the weights is wrong (oneDNN of torch 2.13: other numbers, infinite ones, NaN) where
    an axis is shorter than the kernel and the convolution pads by itself, as in the last layers of critics of 16
    frames. Zeros that are part of the input do no harm.
    """
    half = x.dtype == torch.bfloat16 or (torch.is_autocast_enabled("cpu") and x.dtype == torch.float32)
    short = any(size < side for size, side in zip(x.shape[2:], kernel))
    if x.device.type != "cpu" or not (half and short and any(padding)):
        return x, padding
    return F.pad(x, [side for each in reversed(padding) for side in (each, each)]), (0,) * len(padding)


def conv3d(x: Tensor, conv: nn.Conv3d, padding: tuple[int, ...]) -> Tensor:
    """A convolution with another zero padding than its own.

    On a CPU torch sends a single small clip through a convolution that takes up to ten times as long and rounds
    otherwise (`use_mkldnn` in ATen/native/Convolution.cpp), and 1 x 1 x 1 kernels round by the number of frames. Here
    every size goes the same way, so that a piece of a video has the values of the whole. torch.compile takes its own.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if plain and not torch.compiler.is_compiling():
        if max(conv.kernel_size) == 1:
            y = F.linear(x.movedim(1, -1), conv.weight.flatten(1), conv.bias)  # [B, T, H, W, C]
            return y.movedim(-1, 1).contiguous()
        fast = torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available()
        if fast and len(x) == 1 and x.shape[:4].numel() <= SMALL:
            return torch.mkldnn_convolution(x, conv.weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups)
    x, padding = with_room(x, conv.kernel_size, padding)
    return F.conv3d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)


class SameConv3d(nn.Module):
    """3D convolution whose output has the input's size divided by the stride."""

    def __init__(self, n_in: int, n_out: int, kernel: int, strides: Size3 = (1, 1, 1), padding_type: str = "replicate"):
        super().__init__()
        self.padding_type = padding_type
        self.sides = same_padding(kernel, strides)
        even = self.sides[::2] == self.sides[1::2]
        zeros = padding_type == "constant" and even  # zeros on both sides alike: the convolution pads by itself
        width, height, time = self.sides[::2] if zeros else (0, 0, 0)
        self.pads_outside = not zeros and any(self.sides)
        self.padding = (time, height, width)
        self.conv = nn.Conv3d(n_in, n_out, kernel, stride=strides, padding=self.padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_outside:
            x = F.pad(x, self.sides, mode=self.padding_type)
        return conv3d(x, self.conv, self.padding)


class SameConvTranspose3d(nn.Module):
    """Transposed 3D convolution whose output has the input's size times the stride."""

    def __init__(self, n_in: int, n_out: int, kernel: int, strides: Size3):
        super().__init__()
        self.sides = same_padding(kernel, strides)
        self.convt = nn.ConvTranspose3d(n_in, n_out, kernel, stride=strides, padding=kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convt(F.pad(x, self.sides, mode="replicate"))


def norm(channels: int, norm_type: str) -> nn.Module:
    """Normalisation over groups of channels of one clip, or over the batch."""
    if norm_type == "group":
        return nn.GroupNorm(32, channels, eps=1e-6)
    return nn.BatchNorm3d(channels)


class ResBlock(nn.Module):
    """x + two convolutions, each after normalisation and SiLU. Same channels in and out."""

    def __init__(self, channels: int, norm_type: str):
        super().__init__()
        self.norm1 = norm(channels, norm_type)
        self.conv1 = SameConv3d(channels, channels, 3)
        self.norm2 = norm(channels, norm_type)
        self.conv2 = SameConv3d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x), inplace=not self.training))
        y = self.conv2(F.silu(self.norm2(y), inplace=not self.training))
        return x + y
