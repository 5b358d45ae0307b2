"""Keys and values of what has been seen."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tats import kernels
from tats.gpt.config import GPTConfig
from tats.kernels.decode_attention import attend_arrays, blas, quantized, widened
from tats.kernels.decode_attention.bags import BagCache, available

FEW = 8  # new tokens that look at an 8-bit cache one by one; more of them widen it first
LARGE = 1 << 18  # keys of a window from which on 8 bits are faster on a CPU, for one video as for many
WIDE = 1 << 16  # keys and values that are read for nothing sooner than another call is made


class KVCache:
    """Static room for the keys and values of a batch of windows; nothing is allocated while it fills.

    kv: per layer a pair of tensors [B, N, L_max, D]; room: what one step overwrites with its weights of attention,
    B * N * L_max numbers. eight: keys and values are whole numbers of 8 bits with a scale per token and head (on a CPU
    laid out for sums of rows, and `kv` is empty). A pass of the model calls `enter`, then per layer `write` and perhaps
    `look`, or `step` for one token per window; then `leave`.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        length: int | None = None,
        eight: bool = False,
    ):
        heads, size, width = config.n_head, length or config.block_size, config.n_embd // config.n_head
        self.batch, self.size, self.device, self.dtype, self.eight = batch, size, torch.device(device), dtype, eight
        self._numpy = self.device.type == "cpu" and not eight and dtype in (torch.float32, torch.float64)
        self.bags: BagCache | None = None
        if eight and self.device.type == "cpu" and available(width):
            self.bags = BagCache(config.n_layer, batch, heads, size, width)
        layers = 0 if self.bags else config.n_layer
        shape, kept = (batch, heads, size, width), torch.int8 if eight else dtype
        zeros = lambda shape, dtype: torch.zeros(shape, device=device, dtype=dtype)
        self.kv = [(zeros(shape, kept), zeros(shape, kept)) for _ in range(layers)]
        sizes = shape[:3], torch.float32
        self.scales: list[tuple[Tensor, Tensor]] = [(zeros(*sizes), zeros(*sizes)) for _ in range(layers * eight)]
        self._out = zeros((batch, heads, width), dtype)  # of a step
        self.room = torch.zeros(0 if self.bags else batch * heads * size, device=device, dtype=dtype)
        self._filled = [0] * batch  # positions seen by each window
        self._windows = [*range(batch)]  # those that the present pass is for
        self._at = [0] * batch  # where its tokens begin in each of them
        self._even = True  # the pass is for all windows, and at the same place in each
        self._hidden: np.ndarray | None = None  # [B, 1, 1, end]: -inf where a window has seen less than the longest one
        self._quick = False  # `step` goes through numpy
        self.begins = True  # the windows of the pass had seen nothing before

    @property
    def kv(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer."""
        return self._kv

    @kv.setter
    def kv(self, kv: list[tuple[Tensor, Tensor]]) -> None:
        self._kv = kv
        self._arrays = [(k.numpy(), v.numpy()) for k, v in kv] if self._numpy else []  # the same memory

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
        if len(lengths) != self.batch:
            raise ValueError(f"lengths must hold one number for each of {self.batch} windows, got {len(lengths)}")
        self._filled = [int(length) for length in lengths]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, scales included."""
        tensors = [x for pair in self.kv + self.scales for x in pair]
        return sum(x.nbytes for x in tensors) + (self.bags.nbytes if self.bags else 0)

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
        self._windows = [*range(self.batch)] if rows is None else [int(row) for row in rows]
        self._at = [self._filled[row] for row in self._windows]
        first, last = min(self._at), max(self._at)
        self._even = rows is None and first == last
        self.begins = last == 0
        if last + count > self.size:
            raise ValueError(f"the cache has room for {self.size} positions, {last + count} were written")
        self._hidden, self._quick = None, False
        if self.device.type != "cpu" and (self.eight or not self._even):
            self._begin = torch.tensor(self._at, device=self.device)
        if self.bags is not None:
            if count == 1 or (count <= FEW and not self.begins):
                pairs = [(row, at + n + 1) for row, at in zip(self._windows, self._at) for n in range(count)]
                self.bags.aim([row for row, _ in pairs], [end for _, end in pairs])
        elif count == 1 and rows is None and self._numpy and not torch.compiler.is_compiling():
            self._go_quick(last + 1)
        return self.begins

    def _go_quick(self, end: int) -> None:
        """Let the `step` of this pass go through numpy where that was measured to be faster; `end`: of the longest."""
        _, heads, width = self._out.shape
        if kernels.dispatch.chosen("decode_attention", self.device, width) != "torch":
            return
        if not blas.faster(min(self.batch * heads, 64), width, self.dtype, torch.get_num_threads()):
            return
        if not self._even:
            wasted = end * self.batch - sum(self._at) - self.batch
            if wasted * heads * width * 2 > WIDE * self.batch:
                return
            behind = np.arange(end) > np.array(self._at)[:, None]  # [B, end]
            self._hidden = np.where(behind, -np.inf, 0.0).astype(self._arrays[0][0].dtype)[:, None, None]
        self._quick = True

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        """`write` and `look` of one token per window.  queries, keys and values [M, 3, N, D] -> [M, N*D]

        What it returns may be overwritten by the next step.
        """
        if self._quick:
            keys, values = self._arrays[layer]
            new = qkv.numpy()
            windows, at = (slice(None), self._at[0]) if self._even else (self._windows, self._at)
            keys[windows, :, at], values[windows, :, at] = new[:, 1], new[:, 2]
            end = max(self._at) + 1
            attend_arrays(new[:, 0], keys, values, end, self.room.numpy(), self._out.numpy(), self._hidden)
            return self._out.flatten(1)
        q, k, v = qkv[..., None, :].unbind(1)  # each [M, N, 1, D]
        self.write(layer, k, v)
        return (v if self.begins else self.look(layer, q)).flatten(1)

    def fixed(self, layer: int, qkv: Tensor, lengths: Tensor) -> Tensor:
        """`step` behind the first `lengths` int64 [B] tokens of every window, which the host is not told.

        Nothing is checked, and what the host knows of lengths is left as it is.
        """
        if self.bags is not None:
            raise ValueError("a step that is recorded needs keys and values as tensors: a full cache")
        q, *new = qkv.unbind(1)  # each [B, N, D]
        every = torch.arange(self.batch, device=self.device)
        if self.eight:
            (k, k_scale), (v, v_scale) = (quantized(x) for x in new)
            for room, x in zip((*self.kv[layer], *self.scales[layer]), (k, v, k_scale, v_scale)):
                room[every, :, lengths] = x
            k_scale, v_scale = self.scales[layer]
            return kernels.decode_new_tokens(q[:, :, None], *self.kv[layer], lengths + 1, (k_scale, v_scale)).flatten(1)
        keys, values = self.kv[layer]
        keys[every, :, lengths], values[every, :, lengths] = new
        if kernels.which("decode_attention", self.device, q.shape[2]).name == "fused":
            return kernels.decode_new_tokens(q[:, :, None], keys, values, lengths + 1).flatten(1)
        seen = torch.arange(self.size, device=self.device) <= lengths[:, None]  # [B, L_max]; the rest is no NaN here
        return scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen[:, None, None]).flatten(1)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Put keys and values [M, N, L, D] of new tokens behind those of `layer` that their windows have."""
        if self.bags is not None:
            self.bags.write(layer, self._windows, self._at, k, v)
            return
        pairs = list(zip(self.kv[layer], (k, v)))
        if self.eight:
            (k, k_scale), (v, v_scale) = quantized(k), quantized(v)
            pairs = [*zip(self.kv[layer], (k, v)), *zip(self.scales[layer], (k_scale, v_scale))]
        for room, new in pairs:
            if self._even:
                room[:, :, self._at[0] : self._at[0] + k.shape[2]] = new
                continue
            for i, (row, start) in enumerate(zip(self._windows, self._at)):
                room[row, :, start : start + k.shape[2]] = new[i]

    def look(self, layer: int, q: Tensor, mask: Tensor | None = None) -> Tensor:
        """New tokens, written before, look at themselves and at all before them.  q [M, N, L, D] -> [M, N, L, D]

        mask: bool [L, m], which of the last m positions each of them looks at instead, the L new ones included.
        """
        count = q.shape[2]
        if self.bags is not None and count <= FEW and mask is None:
            asked = q.transpose(1, 2).flatten(0, 1)  # [M*L, N, D]
            return self.bags.look(layer, asked).view(len(q), count, *asked.shape[1:]).transpose(1, 2)
        if self._even and not self.eight:
            return _look(q, *self.kv[layer], self._at[0] + count, self.room, mask)
        if self.device.type != "cpu":
            return self._look_each(layer, q, mask)
        found = []
        for i, (row, start) in enumerate(zip(self._windows, self._at)):
            keys, values = self._floats(layer, row, start + count, q.dtype)
            found.append(_look(q[i : i + 1], keys, values, start + count, self.room, mask))
        return torch.cat(found)

    def leave(self, count: int) -> None:
        """End the pass: its windows have seen `count` positions more."""
        for row in self._windows:
            self._filled[row] += count

    def _look_each(self, layer: int, q: Tensor, mask: Tensor | None) -> Tensor:
        """`look` on a GPU, where windows differ or keys and values are in 8 bits."""
        pairs = [*self.kv[layer], *(self.scales[layer] if self.eight else ())]
        if self._windows != [*range(self.batch)]:
            pairs = [x[self._windows] for x in pairs]
        ends = self._begin + q.shape[2]  # [M]
        keys, values, *scales = pairs
        if mask is None and q.shape[2] <= FEW:
            return kernels.decode_new_tokens(q, keys, values, ends, (scales[0], scales[1]) if scales else None)
        if scales:
            keys, values = widened(keys, scales[0], q.dtype), widened(values, scales[1], q.dtype)
        mask = _causal(q.shape[2], q.device) if mask is None else mask
        seen = _seen(mask, ends[:, None, None], self.size)[:, None]  # [M, 1, L, L_max]
        return scaled_dot_product_attention(q, keys, values, attn_mask=seen)

    def _floats(self, layer: int, row: int, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of one window [1, N, end or more, D] in the type of its queries."""
        if self.bags is not None:
            k, v = self.bags.widened(layer, row, end)
            return k.to(dtype), v.to(dtype)
        k, v = (x[row : row + 1] for x in self.kv[layer])
        if self.eight:
            k_scale, v_scale = (x[row : row + 1] for x in self.scales[layer])
            return widened(k, k_scale, dtype), widened(v, v_scale, dtype)
        return k, v


def _look(q: Tensor, keys: Tensor, values: Tensor, end: int, room: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the last of `end` cached tokens.  q [B, N, L, D]; keys, values [B, N, L_max, D] -> [B, N, L, D]"""
    if mask is None and q.shape[2] == 1:
        return kernels.decode_attention(q[:, :, 0], keys, values, end, room)[:, :, None]
    seen = _causal_until(q.shape[2], end, q.device) if mask is None else _seen(mask, end, end)  # [L, end]
    return scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=seen)


def _causal(length: int, device: torch.device) -> Tensor:
    """New tokens look at themselves and at those in front of them: bool [L, L]."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


@lru_cache(maxsize=1)  # all layers ask for the same one
def _causal_until(length: int, end: int, device: torch.device) -> Tensor:
    """The same for the last of `end` tokens: bool [L, end]."""
    return _seen(_causal(length, device), end, end)


def _seen(mask: Tensor, end: Tensor | int, size: int) -> Tensor:
    """Which of `size` positions are looked at: bool mask [L, m] says it of the last m in front of `end`; all before
    them are, none behind.  bool [L, size], or [B, L, size] for ends [B, 1, 1]."""
    count, last = mask.shape
    place = torch.arange(size, device=mask.device) - end + last  # [size] or [B, 1, size]
    inside = mask[torch.arange(count, device=mask.device)[:, None], place.clamp(0, last - 1)]  # [L, size], [B, L, size]
    return (inside | (place < 0)) & (place < last)


def eight_is_faster(config: GPTConfig, device: torch.device) -> bool:
    """True where steps over an 8-bit cache were measured to take less time; the same for any number of windows, so that
    what a video becomes does not depend on those beside it."""
    width = config.n_embd // config.n_head
    if device.type != "cpu":
        return kernels.which("decode_attention", device, width).name == "fused"
    return available(width) and config.block_size * config.n_embd >= LARGE
