"""Tiny transformers with random weights, in float64, so that rounding decides nothing."""

import torch

from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT


def tiny_gpt(shape=(5, 2, 2), *, n_unmasked=0, n_cond=1, code_offset=3, n_codes=37, key="label", places=None, stride=0):
    """A transformer over windows of `shape` codes; `places`: the shape of its table of places."""
    torch.manual_seed(0)
    t, h, w = shape
    config = GPTConfig(
        n_layer=2,
        n_head=2,
        n_embd=16,
        block_size=n_cond + t * h * w - 1,
        n_unmasked=n_unmasked,
        sample_every_n_latent_frames=stride,
        unconditional=key == "none",
        cond_stage_key="label" if key == "none" else key,
        vtokens_pos=places is not None,
        n_codes=n_codes,
        code_offset=0 if key == "none" else code_offset,
        latent_shape=shape,
        n_cond=n_cond,
        places_shape=places,
    )
    gpt = GPT(config).double().eval()
    with torch.no_grad():
        for parameter in gpt.parameters():  # large enough that codes differ from place to place
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    return gpt
