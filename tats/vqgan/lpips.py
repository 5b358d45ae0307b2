"""Perceptual distance: how far two pictures lie apart in the features of a network that sorts photographs.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018. The published system feeds
pixels in [-0.5, 0.5] where the original metric takes [-1, 1], so the values are not standard LPIPS values.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# The networks below it, in five slices; the distance compares what each slice ends with. A convolution is (input,
# output, kernel, stride, padding), with ReLU behind it, a pool is (kernel, stride).
Layer = tuple[int, ...]
_3 = (3, 1, 1)
VGG16: tuple[tuple[Layer, ...], ...] = (
    ((3, 64, *_3), (64, 64, *_3)),
    ((2, 2), (64, 128, *_3), (128, 128, *_3)),
    ((2, 2), (128, 256, *_3), (256, 256, *_3), (256, 256, *_3)),
    ((2, 2), (256, 512, *_3), (512, 512, *_3), (512, 512, *_3)),
    ((2, 2), (512, 512, *_3), (512, 512, *_3), (512, 512, *_3)),
)
ALEXNET: tuple[tuple[Layer, ...], ...] = (
    ((3, 64, 11, 4, 2),),
    ((3, 2), (64, 192, 5, 1, 2)),
    ((3, 2), (192, 384, *_3)),
    ((384, 256, *_3),),
    ((256, 256, *_3),),
)
TRUNKS = {"vgg": VGG16, "alex": ALEXNET}
SMALLEST_SIDE = 16  # of VGG16, whose four poolings halve a picture
_SMALLEST = {"vgg": SMALLEST_SIDE, "alex": 31}


class Features(nn.Module):
    """VGG16 or AlexNet in five slices; layers are numbered through as in the common weight files."""

    def __init__(self, slices: tuple[tuple[Layer, ...], ...] = VGG16) -> None:
        super().__init__()
        number = 0
        for i, layers in enumerate(slices, start=1):
            part = nn.Sequential()
            for layer in layers:
                if len(layer) == 2:
                    part.add_module(str(number), nn.MaxPool2d(layer[0], layer[1]))
                    number += 1
                    continue
                n_in, n_out, kernel, stride, padding = layer
                part.add_module(str(number), nn.Conv2d(n_in, n_out, kernel, stride, padding))
                part.add_module(str(number + 1), nn.ReLU(inplace=True))
                number += 2
            self.add_module(f"slice{i}", part)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [B, 3, H, W] -> five feature maps [B, C_i, H_i, W_i], for VGG16 of H / 2^i, i = 0..4"""
        maps = []
        for i in range(1, 6):
            x = getattr(self, f"slice{i}")(x)
            maps.append(x)
        return maps


class Scaling(nn.Module):
    """Brings pixels to the range in which the network was trained."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class Head(nn.Module):
    """One weight per channel; the dropout of its training is never active here, it only numbers the layers."""

    def __init__(self, channels: int):
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class LPIPS(nn.Module):
    """Distance of pictures. Always in evaluation mode and frozen. Parameter names are those of the released files.

    trunk: "vgg", as losses of training take it, or "alex", as most scores do.
    """

    def __init__(self, trunk: str = "vgg") -> None:
        super().__init__()
        self.trunk = trunk
        self.scaling_layer = Scaling()
        self.net = Features(TRUNKS[trunk])
        for i, layers in enumerate(TRUNKS[trunk]):
            self.add_module(f"lin{i}", Head(layers[-1][1]))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "LPIPS":
        """Stays in evaluation mode whatever is asked: its dropout would make the loss random."""
        return super().train(False)

    def per_layer(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """The five terms of the distance, each [B, 1, 1, 1]."""
        side = _SMALLEST[self.trunk]
        if min(a.shape[-2:]) < side:
            raise ValueError(f"LPIPS needs pictures of at least {side} x {side}, got {a.shape[-2]} x {a.shape[-1]}")
        pairs = zip(self.net(self.scaling_layer(a)), self.net(self.scaling_layer(b)))
        return [
            getattr(self, f"lin{i}")((unit(x) - unit(y)).square()).mean((2, 3), keepdim=True)
            for i, (x, y) in enumerate(pairs)
        ]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b [B, 3, H, W] (or one channel, taken for all three) in [-0.5, 0.5] -> [B, 1, 1, 1], 0 for equal ones"""
        return torch.stack(self.per_layer(a, b)).sum(0)


def unit(x: Tensor) -> Tensor:
    """Every pixel's feature vector at length one.  [B, C, H, W]"""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def lpips_weights(trunk: Mapping[str, Tensor], heads: Mapping[str, Tensor], name: str = "vgg") -> dict[str, Tensor]:
    """A state dict of `LPIPS(name)`, from its trunk's (`features.N.weight`; others ignored) and the heads'
    (`linN.model...`)."""
    weights = {f"scaling_layer.{key}": tensor for key, tensor in Scaling().state_dict().items()}
    for key in Features(TRUNKS[name]).state_dict():  # slice1.0.weight
        weights[f"net.{key}"] = trunk["features." + key.split(".", 1)[1]]
    for i in range(len(TRUNKS[name])):
        weights[f"lin{i}.model.1.weight"] = heads[f"lin{i}.model.1.weight"]
    return weights
