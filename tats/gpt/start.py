"""Where a new transformer may start from, beside the published random weights: what its tokens and places mean.

Small data and short runs gain most: without this, the transformer must first find out which codes look alike and
which positions are neighbours in time and space.
"""

import math

import torch
from torch import Tensor

from tats.gpt.model import GPT

STRENGTH = 0.1  # standard deviation of the rows of codes; random rows have 0.02
WAVES = 0.05  # amplitude of the waves of places


@torch.no_grad()
def codes_from_codebook(gpt: GPT, vectors: Tensor, generator: torch.Generator | None = None) -> None:
    """Let codes with similar vectors start with similar rows of the embedding and of the head, in place.

    vectors float [n_codes, D]: the codebook. Each row is a fixed random projection of its vector, plus a little noise
    that keeps equal vectors apart.
    """
    config = gpt.config
    if len(vectors) != config.n_codes:
        raise ValueError(f"vectors must hold {config.n_codes} codes, got {len(vectors)}")
    spread = (vectors - vectors.mean(0)) / vectors.std().clamp(min=1e-8)  # [n_codes, D]
    ids = slice(config.code_offset, config.code_offset + config.n_codes)
    for table, strength in ((gpt.tok_emb.weight, STRENGTH), (gpt.head.weight, 0.02)):
        width = table.shape[1]
        projection = torch.randn(spread.shape[1], width, generator=generator) / spread.shape[1] ** 0.5
        noise = 0.005 * torch.randn(len(spread), width, generator=generator)
        table[ids] = (strength * spread.cpu() @ projection + noise).to(table)


@torch.no_grad()
def positions_from_grid(gpt: GPT) -> None:
    """Let positions start as sines and cosines of frame, row and column of the code that they predict, in place.

    As in A. Vaswani et al., "Attention is all you need", 2017, section 3.5, on three axes; wavelengths from twice the
    extent of an axis down to a few steps.
    """
    config = gpt.config
    t, h, w = config.latent_shape
    place = torch.arange(config.block_size - config.n_cond + 1)  # [n] of the codes predicted
    axes = torch.stack([place // (h * w), place // w % h, place % w], 1).double()  # [n, 3]
    bands = config.n_embd // 6
    parts = []
    for axis, extent in zip(axes.T, (t, h, w)):
        frequency = math.pi / (2.0 * extent) ** (torch.arange(bands, dtype=torch.float64) / max(bands - 1, 1))
        angle = axis[:, None] * frequency  # [n, bands]
        parts += [angle.sin(), angle.cos()]
    waves = torch.cat(parts, 1).to(gpt.pos_emb)  # [n, 6 * bands]
    gpt.pos_emb[0, config.n_cond - 1 :, : waves.shape[1]] = WAVES * waves
