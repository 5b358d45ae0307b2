"""I3D, the network behind FVD: inflated Inception over clips, 400 logits of Kinetics-400.

Parameter names are those of the published weight file `i3d_pretrained_400.pt`, converted from the original TensorFlow
release; so are its habits: zero padding chosen from the size at hand, before convolutions and pools alike.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.metrics.stored import fill, read_state

MIXED: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    # name: (channels in, (b0, b1a, b1b, b2a, b2b, b3b))
    "3b": (192, (64, 96, 128, 16, 32, 32)),
    "3c": (256, (128, 128, 192, 32, 96, 64)),
    "4b": (480, (192, 96, 208, 16, 48, 64)),
    "4c": (512, (160, 112, 224, 24, 64, 64)),
    "4d": (512, (128, 128, 256, 24, 64, 64)),
    "4e": (512, (112, 144, 288, 32, 64, 64)),
    "4f": (528, (256, 160, 320, 32, 128, 128)),
    "5b": (832, (256, 160, 320, 32, 128, 128)),
    "5c": (832, (384, 192, 384, 48, 128, 128)),
}
SIZE = 224  # width and height of the pictures that the network was trained on


def preprocess(frames: Tensor, size: tuple[int, int] = (SIZE, SIZE)) -> Tensor:
    """uint8 frames [B, T, H, W, C] -> float32 [B, C, T, *size] in [-1, 1], as for the published FVD.

    Every frame is resized by itself, bilinear without antialiasing; the aspect ratio is not kept.
    """
    if frames.ndim != 5 or frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 [B, T, H, W, C], got {frames.dtype} {list(frames.shape)}")
    pictures = frames.flatten(0, 1).movedim(-1, 1).float()  # [B*T, C, H, W]
    resized = F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
    return 2 * resized.unflatten(0, frames.shape[:2]).transpose(1, 2) / 255 - 1


def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Zeros around [B, C, T, H, W] so that a stride of s makes ceil(n / s) out of n; the odd one goes to the end."""
    pads: list[int] = []
    for n, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride)):  # F.pad begins with the last axis
        total = max(k - (n % s or s), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Unit(nn.Module):
    """Convolution with padding as in TensorFlow, then batch normalisation and ReLU; or a bias alone for the logits."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        plain: bool = False,
    ):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(n_in, n_out, kernel, stride, bias=plain)
        self.bn: nn.Module | None = None if plain else nn.BatchNorm3d(n_out, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(pad_same(x, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class Pool(nn.Module):
    """Maximum over boxes, zeros around."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side: 1, 1-3, 1-3 and pool-1."""

    def __init__(self, n_in: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(n_in, b0)
        self.b1a, self.b1b = Unit(n_in, b1a), Unit(b1a, b1b, (3, 3, 3))
        self.b2a, self.b2b = Unit(n_in, b2a), Unit(b2a, b2b, (3, 3, 3))
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(n_in, b3b)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, 1)


class I3D(nn.Module):
    """Clips float [B, 3, T, 224, 224] in [-1, 1], T >= 9, to logits [B, n_classes]: means over time.

    The endpoints are submodules in the order in which data flows; `pooled` gives the 1024 numbers below the logits.
    """

    def __init__(self, n_classes: int = 400):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        for name in ("3b", "3c"):
            self.add_module(f"Mixed_{name}", Mixed(*MIXED[name]))
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        for name in ("4b", "4c", "4d", "4e", "4f"):
            self.add_module(f"Mixed_{name}", Mixed(*MIXED[name]))
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        for name in ("5b", "5c"):
            self.add_module(f"Mixed_{name}", Mixed(*MIXED[name]))
        self.logits = Unit(1024, n_classes, plain=True)

    def pooled(self, video: Tensor) -> Tensor:
        """[B, 3, T, 224, 224] -> [B, 1024, T', 1, 1], means over 2 x 7 x 7 boxes.

        Raises:
            ValueError: the clip is too short or its pictures have the wrong size.
        """
        frames, height, width = video.shape[2:]
        if frames < 9 or not all(192 < n <= SIZE for n in (height, width)):
            raise ValueError(f"I3D takes at least 9 frames of {SIZE} x {SIZE}, got {frames} of {height} x {width}")
        x = video
        for name, endpoint in self.named_children():
            if name != "logits":
                x = endpoint(x)
        return F.avg_pool3d(x, (2, 7, 7), stride=1)

    def forward(self, video: Tensor) -> Tensor:
        return self.logits(self.pooled(video))[..., 0, 0].mean(2)  # [B, n_classes]

    @classmethod
    def load(cls, path: str | Path) -> "I3D":
        """The network with the weights of a plain state dict, in evaluation mode; runs nothing that the file holds.

        Raises:
            UserError: no such file, or it holds other keys.
        """
        key = "logits.conv3d.weight"
        state = read_state(path, "I3D", key)
        network = cls(len(state[key]))
        fill(network, state, path, "I3D")
        return network


def folded(network: I3D) -> I3D:
    """A copy for inference that computes the same with fewer passes over memory: every normalisation is folded into its
    convolution, and channels lie side by side."""
    network = copy.deepcopy(network).eval()
    for unit in network.modules():
        if isinstance(unit, Unit) and isinstance(unit.bn, nn.BatchNorm3d):
            mean, variance = unit.bn.running_mean, unit.bn.running_var
            if mean is None or variance is None:
                raise ValueError("a network without stored statistics can't be folded")
            scale = (unit.bn.weight / torch.sqrt(variance + unit.bn.eps)).detach()
            unit.conv3d.weight = nn.Parameter(unit.conv3d.weight.detach() * scale.view(-1, 1, 1, 1, 1))
            unit.conv3d.bias = nn.Parameter(unit.bn.bias.detach() - mean * scale)
            unit.bn = nn.Identity()
    return network.to(memory_format=torch.channels_last_3d).requires_grad_(False)  # type: ignore[call-overload]
