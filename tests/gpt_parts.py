"""Tiny transformers with random weights, in float64, so that rounding decides nothing."""

import torch

from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT


def tiny_gpt(
    shape=(5, 2, 2),
    *,
    n_unmasked=0,
    n_cond=1,
    code_offset=3,
    n_codes=37,
    key="label",
    places=None,
    stride=0,
    conditions=(),
    empty=False,
):
    """A transformer over windows of `shape` codes. places: the shape of its table of places. conditions: (what, tokens,
    ids) of each part, in place of n_cond and code_offset; empty: every part has one id more, which says nothing."""
    torch.manual_seed(0)
    conditions = tuple((what, tokens, ids + empty) for what, tokens, ids in conditions or [(key, n_cond, code_offset)])
    if key != "none":
        n_cond, code_offset = (sum(part[place] for part in conditions) for place in (1, 2))
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
        conditions=() if key == "none" else conditions,
        empty=empty,
        places_shape=places,
    )
    gpt = GPT(config).double().eval()
    with torch.no_grad():
        for parameter in gpt.parameters():  # large enough that codes differ from place to place
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    return gpt
