"""The published VQGAN's way of encoding and decoding, written anew for comparison over the weights of a `VQGAN`.

Every padding is a tensor of its own, SiLU is a product with a sigmoid, batch normalisation uses its stored averages,
and the codebook takes the whole matrix of distances and a one-hot matrix. Everything is float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.vqgan.layers import ResBlock, SameConv3d, SameConvTranspose3d
from tats.vqgan.model import VQGAN


def silu(x: Tensor) -> Tensor:
    """x times its sigmoid, as two operations."""
    return x * torch.sigmoid(x)


def conv(x: Tensor, layer: SameConv3d | SameConvTranspose3d) -> Tensor:
    """A padded copy, then a convolution that pads nothing (transposed: that cuts the padding off again)."""
    mode = layer.padding_type if isinstance(layer, SameConv3d) else "replicate"
    x = F.pad(x, layer.sides, mode=mode)
    if isinstance(layer, SameConvTranspose3d):
        return layer.convt(x)
    inner = layer.conv
    return F.conv3d(x, inner.weight, inner.bias, inner.stride)


def res(x: Tensor, block: ResBlock) -> Tensor:
    """x + two convolutions, each after normalisation and SiLU."""
    y = conv(silu(block.norm1(x)), block.conv1)
    return x + conv(silu(block.norm2(y)), block.conv2)


def final(x: Tensor, block: nn.Sequential) -> Tensor:
    """Normalisation and SiLU."""
    return silu(block[0](x))


@torch.no_grad()
def encode(vqgan: VQGAN, video: Tensor) -> Tensor:
    """video [B, C, T, H, W] -> codes int64 [B, t, h, w]"""
    x = conv(video, vqgan.encoder.conv_first)
    for block in vqgan.encoder.conv_blocks:
        x = res(conv(x, block.down), block.res)
    x = conv(final(x, vqgan.encoder.final_block), vqgan.pre_vq_conv)
    codes = vqgan.codebook.embeddings
    flat = x.movedim(1, -1).flatten(0, 3)  # [n, D]
    distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.t() + codes.t().pow(2).sum(0, keepdim=True)
    found = distances.argmin(1)
    share = F.one_hot(found, len(codes)).type_as(flat).mean(0)
    torch.exp(-(share * torch.log(share + 1e-10)).sum())  # perplexity, computed whenever something is encoded
    return found.view(len(x), *x.shape[2:])


@torch.no_grad()
def decode(vqgan: VQGAN, codes: Tensor) -> Tensor:
    """codes int64 [B, t, h, w] -> video [B, C, T, H, W]"""
    x = F.embedding(codes, vqgan.codebook.embeddings).movedim(-1, 1)
    x = final(conv(x, vqgan.post_vq_conv), vqgan.decoder.final_block)
    for block in vqgan.decoder.conv_blocks:
        x = res(res(conv(x, block.up), block.res1), block.res2)
    return conv(x, vqgan.decoder.conv_last)
