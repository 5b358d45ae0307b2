"""Keys and values of what has been seen."""

import torch
from torch import Tensor

from tats.gpt.config import GPTConfig


class KVCache:
    """Static room for the keys and values of one window; nothing is allocated while it fills.

    kv: per layer a pair of tensors [B, N, L_max, D]; length: positions seen so far, the same for every video; room:
    what one step overwrites with its weights of attention, B * N * L_max numbers.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        length: int | None = None,
    ):
        shape = (batch, config.n_head, length or config.block_size, config.n_embd // config.n_head)
        self.kv: list[tuple[Tensor, Tensor]] = [
            (torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
            for _ in range(config.n_layer)
        ]
        self.room = torch.zeros(shape[0] * shape[1] * shape[2], device=device, dtype=dtype)
        self.length = 0

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Put keys and values [B, N, L, D] of new positions behind those of `layer` that are there."""
        end = self.length + k.shape[2]
        keys, values = self.kv[layer]
        if end > keys.shape[2]:
            raise ValueError(f"the cache has room for {keys.shape[2]} positions, {end} were written")
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
