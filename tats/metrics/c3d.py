"""C3D, the network behind the inception score of videos: eight convolutions in three dimensions.

Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", 2015. Layers carry the names of its
Caffe release (conv1a ... conv5b, fc6, fc7, fc8), which the UCF-101 weights keep; the Sports-1M conversion says conv1
and conv2, and pads before the last pool where Caffe's pool runs over the edge: both are read and each keeps its habit.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.metrics.stored import fill, read_state

SIZE = 112  # width and height of its pictures
FRAMES = 16
MEAN = (90.25164795, 97.65701294, 101.4083252)  # blue, green and red of UCF-101, where a file holds no mean clip
CONVOLUTIONS = {
    "conv1a": (3, 64),
    "conv2a": (64, 128),
    "conv3a": (128, 256),
    "conv3b": (256, 256),
    "conv4a": (256, 512),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}
# pools behind these layers
_POOLED = {"conv1a": (1, 2, 2), "conv2a": (2, 2, 2), "conv3b": (2, 2, 2), "conv4b": (2, 2, 2)}
_SHORT = {"conv1": "conv1a", "conv2": "conv2a"}  # names of the Sports-1M conversion


def preprocess(frames: Tensor) -> Tensor:
    """uint8 frames [B, 16, H, W, 3] -> float32 [B, 3, 16, 112, 112]: blue, green, red from 0 to 255; corners stay
    corners when pictures are resized."""
    pictures = frames.flatten(0, 1).movedim(-1, 1).flip(1).float()  # [B*16, 3, H, W]
    resized = F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", align_corners=True)
    return resized.unflatten(0, frames.shape[:2]).transpose(1, 2)


class C3D(nn.Module):
    """Clips float [B, 3, 16, 112, 112] from 0 to 255, blue first -> logits [B, n_classes]."""

    mean: Tensor

    def __init__(self, n_classes: int = 101, padded: bool = False):
        super().__init__()
        self.padded = padded  # the last pool begins with a row of padding, instead of ending over the edge
        for name, (n_in, n_out) in CONVOLUTIONS.items():
            self.add_module(name, nn.Conv3d(n_in, n_out, 3, padding=1))
        self.fc6, self.fc7, self.fc8 = nn.Linear(8192, 4096), nn.Linear(4096, 4096), nn.Linear(4096, n_classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1, 1))  # or [3, 16, 112, 112]

    def pooled(self, video: Tensor) -> Tensor:
        """[B, 3, 16, 112, 112] -> [B, 8192], what the convolutions see.

        Raises:
            ValueError: clips of another size or length.
        """
        if video.shape[1:] != (3, FRAMES, SIZE, SIZE):
            raise ValueError(f"C3D takes 16 frames of 112 x 112, got {list(video.shape[1:])}")
        x = video - self.mean
        for name in CONVOLUTIONS:
            x = F.relu(getattr(self, name)(x))
            if name in _POOLED:
                x = F.max_pool3d(x, _POOLED[name])
        x = F.max_pool3d(x, 2, padding=(0, 1, 1)) if self.padded else F.max_pool3d(x, 2, ceil_mode=True)
        return x.flatten(1)  # [B, 512 * 1 * 4 * 4]

    def forward(self, video: Tensor) -> Tensor:
        return self.fc8(F.relu(self.fc7(F.relu(self.fc6(self.pooled(video))))))

    @classmethod
    def load(cls, path: str | Path) -> "C3D":
        """The network with the weights of a plain state dict, in evaluation mode; "mean" [3, 16, 112, 112] or [3, 1, 1,
        1] may lie beside them.

        Raises:
            UserError: no such file, or it holds other weights.
        """
        state = read_state(path, "C3D", "fc8.weight")
        padded = "conv1.weight" in state
        named = {_SHORT.get(key.split(".")[0], key.split(".")[0]) + key[key.find(".") :] if "." in key else key: value
                 for key, value in state.items()}  # fmt: skip
        network = cls(len(state["fc8.weight"]), padded)
        if "mean" in named:
            network.mean = torch.empty_like(named["mean"])
        else:
            named["mean"] = network.mean
        fill(network, named, path, "C3D")
        return network
