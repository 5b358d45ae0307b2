"""Inception-v3 of 2015, the network behind FID, KID and the inception score of pictures.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015; parameter names are those of
`pt_inception-2015-12-05-6726825d.pth`, the conversion of TensorFlow's release. Two habits of that release differ from
other Inception-v3: average pools do not count the zeros around the picture, and the last block pools by maximum.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.metrics.stored import fill, read_state

SIZE = 299  # width and height of its pictures
WIDTH = 2048  # features
CLASSES = 1008


def preprocess(frames: Tensor) -> Tensor:
    """uint8 frames [B, T, H, W, 3] -> float32 [B * T, 3, 299, 299] in [-1, 1]: bilinear without antialiasing."""
    pictures = frames.flatten(0, 1).movedim(-1, 1).float() / 255  # [B*T, 3, H, W]
    return 2 * F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", align_corners=False) - 1


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
    ):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """Means over 3 x 3, of the pixels inside the picture only."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35: 1, 5, 3-3 and pool, side by side."""

    def __init__(self, n_in: int, n_pool: int):
        super().__init__()
        self.branch1x1 = Conv(n_in, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(n_in, 48, 1), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(n_in, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(n_in, n_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class BlockB(nn.Module):
    """35 x 35 -> 17 x 17."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3 = Conv(n_in, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(n_in, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17: 1, 7, 7-7 and pool; a 7 x 7 is a row of 7 and a column of 7."""

    def __init__(self, n_in: int, n: int):
        super().__init__()
        row = {"kernel": (1, 7), "padding": (0, 3)}
        column = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Conv(n_in, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(n_in, n, 1), Conv(n, n, **row)  # type: ignore[arg-type]
        self.branch7x7_3 = Conv(n, 192, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(n_in, n, 1), Conv(n, n, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(n, n, **row), Conv(n, n, **column)  # type: ignore[arg-type]
        self.branch7x7dbl_5 = Conv(n, 192, **row)  # type: ignore[arg-type]
        self.branch_pool = Conv(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class BlockD(nn.Module):
    """17 x 17 -> 8 x 8."""

    def __init__(self, n_in: int):
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(n_in, 192, 1), Conv(192, 320, 3, 2)
        self.branch7x7x3_1 = Conv(n_in, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8: 1, 3, 3-3 and pool, whose last convolutions are a row of 3 and a column of 3 side by side."""

    def __init__(self, n_in: int, by_maximum: bool):
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = Conv(n_in, 320, 1)
        self.branch3x3_1 = Conv(n_in, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(n_in, 448, 1), Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(n_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.by_maximum else average(x)
        branches = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        branches += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(branches, 1)


class Inception(nn.Module):
    """Pictures float [N, 3, 299, 299] in [-1, 1] -> features [N, 2048], the last means over places."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = BlockC(768, 128), BlockC(768, 160), BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, by_maximum=False), BlockE(2048, by_maximum=True)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [N, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))  # [N, 192, 71, 71]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))  # [N, 288, 35, 35]
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # [N, 768, 17, 17]
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # [N, 2048, 8, 8]
        return x.mean((2, 3))

    def probabilities(self, features: Tensor) -> Tensor:
        """Features [N, 2048] -> softmax over 1008 classes, without the bias, as the inception score was published."""
        return F.linear(features, self.fc.weight).softmax(1)

    @classmethod
    def load(cls, path: str | Path) -> "Inception":
        """The network with the weights of `pt_inception-2015-12-05-6726825d.pth`, in evaluation mode.

        Raises:
            UserError: no such file, or it holds other weights.
        """
        network = cls()
        fill(network, read_state(path, "Inception", "Mixed_7c.branch_pool.conv.weight"), path, "Inception")
        return network
