"""Keys and values in 8 bits: whole numbers and one scale per token and head."""

import torch
from torch import Tensor


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds keys or values to 8 bits.  float [..., D] -> int8 [..., D], float32 scales [...]

    x is about `int8 * scale`; the largest entry of a row becomes 127 or -127, the error is at most half a scale.
    """
    scale = x.abs().amax(-1).float() / 127  # [...]
    codes = x.float() / scale.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
    return codes.round_().clamp_(-127, 127).to(torch.int8), scale


def widened(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers that 8 bits and scales stand for.  int8 [..., D], float32 [...] -> [..., D]"""
    wide = torch.promote_types(dtype, torch.float32)
    return (x.to(wide) * scale.to(wide)[..., None]).to(dtype)
