"""Keys and values of what has been seen."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tats import kernels
from tats.gpt.config import GPTConfig


class KVCache:
    """Static room for the keys and values of a batch of windows; nothing is allocated while it fills.

    kv: per layer a pair of tensors [B, N, L_max, D]; room: what one step overwrites with its weights of attention,
    B * N * L_max numbers. A pass of the model calls `enter`, then per layer `write` and perhaps `look`, then `leave`.
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
        self.batch, self.size, self.device = batch, shape[2], torch.device(device)
        self._filled = [0] * batch  # positions seen by each window
        self._rows: list[int] | None = None  # windows that the present pass is for; None: all
        self._at: list[int] = self._filled  # where its tokens begin in each of them
        self._even = True  # at the same place in all of them
        self.begins = True  # they had seen nothing before

    @property
    def length(self) -> int:
        """Positions seen so far, the most of any window; setting it sets all windows."""
        return max(self._filled)

    @length.setter
    def length(self, length: int) -> None:
        self._filled = [length] * self.batch

    @property
    def lengths(self) -> Tensor | None:
        """Positions seen so far by each window, int64 [B]; None where all have seen equally many (`length`)."""
        if min(self._filled) == max(self._filled):
            return None
        return torch.tensor(self._filled, device=self.device)

    @lengths.setter
    def lengths(self, lengths: Tensor | Sequence[int]) -> None:
        self._filled = [int(length) for length in lengths]
        if len(self._filled) != self.batch:
            raise ValueError(f"lengths must hold one number for each of {self.batch} windows, got {len(self._filled)}")

    def seen(self, rows: Tensor | Sequence[int] | None = None) -> list[int]:
        """Positions seen so far by some windows (None: by all)."""
        return list(self._filled) if rows is None else [self._filled[int(row)] for row in rows]

    def reset(self, rows: Tensor | Sequence[int] | None = None) -> None:
        """Forget what these windows have seen (None: all)."""
        for row in range(self.batch) if rows is None else rows:
            self._filled[int(row)] = 0

    def rewind(self, lengths: Sequence[int], rows: Tensor | Sequence[int] | None = None) -> None:
        """Forget what some windows (None: all) have seen behind the first `lengths` positions of each."""
        for row, length in zip(range(self.batch) if rows is None else rows, lengths, strict=True):
            self._filled[int(row)] = length

    def enter(self, rows: Tensor | Sequence[int] | None, count: int) -> bool:
        """Begin a pass that shows `count` new tokens to some windows (None: all); True where these are empty.

        rows: numbers of windows, each at most once.
        """
        self._rows = None if rows is None else [int(row) for row in rows]
        self._at = self.seen(self._rows)
        self._even = min(self._at) == max(self._at)
        end = max(self._at) + count
        if end > self.size:
            raise ValueError(f"the cache has room for {self.size} positions, {end} were written")
        self.begins = max(self._at) == 0
        return self.begins

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Put keys and values [B', N, L, D] of new tokens behind those of `layer` that their windows have."""
        keys, values = self.kv[layer]
        if self._even and self._rows is None:
            at = slice(self._at[0], self._at[0] + k.shape[2])
            keys[:, :, at], values[:, :, at] = k, v
            return
        for i, (row, start) in enumerate(zip(self._rows or range(self.batch), self._at)):
            at = slice(start, start + k.shape[2])
            keys[row, :, at], values[row, :, at] = k[i], v[i]

    def look(self, layer: int, q: Tensor, mask: Tensor | None = None) -> Tensor:
        """New tokens, written before, look at themselves and at all before them.  q [B', N, L, D] -> [B', N, L, D]

        mask: bool [L, m], which of the last m positions each of them looks at instead, the L new ones included.
        """
        keys, values = self.kv[layer]  # each [B, N, L_max, D]
        count = q.shape[2]
        if self._even and self._rows is None:
            return _look(q, keys, values, self._at[0] + count, self.room, mask)
        if self.device.type != "cpu":
            if self._rows is not None:
                keys, values = keys[self._rows], values[self._rows]
            ends = torch.tensor(self._at, device=self.device) + count  # [B']
            if mask is None:
                return kernels.decode_new_tokens(q, keys, values, ends)
            seen = _seen(mask, ends[:, None, None], keys.shape[2])[:, None]  # [B', 1, L, L_max]
            return scaled_dot_product_attention(q, keys, values, attn_mask=seen)
        found = [
            _look(q[i : i + 1], keys[row : row + 1], values[row : row + 1], start + count, self.room, mask)
            for i, (row, start) in enumerate(zip(self._rows or range(self.batch), self._at))
        ]
        return torch.cat(found)

    def leave(self, count: int) -> None:
        """End the pass: its windows have seen `count` positions more."""
        for row in range(self.batch) if self._rows is None else self._rows:
            self._filled[row] += count


def _look(q: Tensor, keys: Tensor, values: Tensor, end: int, room: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the last of `end` cached tokens.  q [B, N, L, D]; keys, values [B, N, L_max, D] -> [B, N, L, D]"""
    if mask is None and q.shape[2] == 1:
        return kernels.decode_attention(q[:, :, 0], keys, values, end, room)[:, :, None]
    if mask is None:
        mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
    seen = _seen(mask, end, end)  # [L, end]
    return scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=seen)


def _seen(mask: Tensor, end: Tensor | int, size: int) -> Tensor:
    """Which of `size` positions are looked at: bool mask [L, m] says it of the last m in front of `end`; all before
    them are, none behind.  bool [L, size], or [B, L, size] for ends [B, 1, 1]."""
    count, last = mask.shape
    place = torch.arange(size, device=mask.device) - end + last  # [size] or [B, 1, size]
    inside = mask[torch.arange(count, device=mask.device)[:, None], place.clamp(0, last - 1)]  # [L, size], [B, L, size]
    return (inside | (place < 0)) & (place < last)
