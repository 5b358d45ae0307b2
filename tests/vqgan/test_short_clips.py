"""Clips that are shorter than a kernel: gradients in bf16 are those of float32, rounded."""

import copy

import pytest
import torch

from tats.vqgan.discriminator import Conv2d, Conv3d, Discriminator
from tats.vqgan.layers import SameConv3d, SameConvTranspose3d

LAYERS = {
    "critic of videos": lambda stride: Conv3d(32, 32, 4, stride=stride, padding=2),
    "zeros": lambda stride: SameConv3d(32, 32, 2 + stride, (stride,) * 3, "constant"),
    "replicate": lambda stride: SameConv3d(32, 32, 2 + stride, (stride,) * 3),
    "transposed": lambda stride: SameConvTranspose3d(32, 32, 4, (stride,) * 3),
}


def gradients(layer, x, dtype):
    """Output, and gradients of the input and of all weights, in one format, for the same rounded numbers."""
    layer, x = copy.deepcopy(layer).bfloat16().to(dtype), x.bfloat16().to(dtype).requires_grad_()
    y = layer(x)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator).bfloat16().to(dtype))
    return [y, x.grad, *(weight.grad for weight in layer.parameters())]


def agree(layer, x):
    """Compare both formats."""
    for one, other in zip(gradients(layer, x, torch.float32), gradients(layer, x, torch.bfloat16), strict=True):
        assert (other.float() - one).norm() <= 0.02 * one.norm()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_convolutions_of_few_frames_have_right_gradients(kind, stride, frames):
    torch.manual_seed(0)
    for side in (2, 5):
        if kind not in ("zeros", "replicate") or stride == 1 or min(frames, side) > 1:
            agree(LAYERS[kind](stride), torch.randn(2, 32, frames, side, side))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_convolutions_of_small_pictures_have_right_gradients(side):
    torch.manual_seed(0)
    agree(Conv2d(64, 64, 4, stride=2, padding=2), torch.randn(2, 64, side, side))


def test_a_critic_in_bf16_learns_what_one_in_float32_learns():
    torch.manual_seed(0)
    critic, video = Discriminator(3, 3, 32, 3), torch.rand(2, 3, 16, 32, 32) - 0.5
    found = []
    for half in (False, True):
        own = copy.deepcopy(critic)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits, _ = own(video)
        logits.float().square().mean().backward()
        found.append([weight.grad for weight in own.parameters()])
    for one, other in zip(*found, strict=True):
        if one.norm() > 1e-4:  # what stands before batch normalisation has no gradient but rounding
            assert (other - one).norm() <= 0.2 * one.norm()
