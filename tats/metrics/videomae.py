"""The vision transformer of VideoMAE v2, behind the content-debiased FVD: it was trained to see motion, not looks.

Wang et al., "VideoMAE V2", 2023; Ge et al., "On the Content Bias in Frechet Video Distance", 2024. Parameter names are
those of `vit_g_hybrid_pt_1200e_ssv2_ft.pth` (fine-tuned on Something-Something v2); all sizes are read from the file.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.flags import UserError
from tats.metrics.stored import fill, read_state

SIZE, FRAMES = 224, 16
HEAD_WIDTH = 88  # 16 heads of the giant's 1408 channels


def preprocess(frames: Tensor) -> Tensor:
    """uint8 frames [B, T, H, W, 3] -> float32 [B, 3, T, 224, 224] in [0, 1]: bilinear without antialiasing."""
    pictures = frames.flatten(0, 1).movedim(-1, 1).float() / 255  # [B*T, 3, H, W]
    resized = F.interpolate(pictures, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return resized.unflatten(0, frames.shape[:2]).transpose(1, 2)


def places(count: int, width: int) -> Tensor:
    """Fixed codes of `count` places [count, width]: sines and cosines in turn (Vaswani et al. 2017, section 3.5)."""
    rates = 10000.0 ** (-2 * (torch.arange(width, dtype=torch.float64) // 2) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos()).float()


class Attention(nn.Module):
    """Every patch looks at every patch; keys have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        q, k, v = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, N, L, D]
            for each in F.linear(x, self.qkv.weight, bias).chunk(3, 2)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and a network of two layers, each behind its normalisation."""

    def __init__(self, width: int, hidden: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Boxes of 2 frames and `patch` x `patch` pixels become tokens."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv3d(3, width, (2, patch, patch), (2, patch, patch))

    def forward(self, video: Tensor) -> Tensor:
        return self.proj(video).flatten(2).transpose(1, 2)  # [B, L, width]


class VideoMAE(nn.Module):
    """Clips float [B, 3, 16, 224, 224] in [0, 1] -> features [B, width]: the normalised mean of all tokens."""

    def __init__(self, width: int, depth: int, hidden: int, patch: int, n_classes: int):
        super().__init__()
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, hidden, max(1, width // HEAD_WIDTH)) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, n_classes)

    def forward(self, video: Tensor) -> Tensor:
        x = self.patch_embed(video)
        x = x + places(x.shape[1], x.shape[2]).to(x)
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(1))

    @classmethod
    def load(cls, path: str | Path) -> "VideoMAE":
        """The network with the weights of a checkpoint, in evaluation mode.

        Raises:
            UserError: no such file, or it holds other weights.
        """
        state = read_state(path, "VideoMAE", "patch_embed.proj.weight")
        first = state["patch_embed.proj.weight"]  # [width, 3, 2, patch, patch]
        needed = ("blocks.0.mlp.fc1.weight", "head.weight")
        if first.ndim != 5 or any(name not in state for name in needed):
            raise UserError(f"{path} holds no VideoMAE weights: {', '.join(needed)} are expected")
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        hidden, n_classes = len(state[needed[0]]), len(state[needed[1]])
        network = cls(len(first), depth, hidden, first.shape[-1], n_classes)
        fill(network, state, path, "VideoMAE")
        return network
