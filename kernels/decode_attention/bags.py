"""An 8-bit cache on a CPU, read by FBGEMM's weighted sums of 8-bit rows: nothing is widened in memory.

Attention of one token is two such sums. Scores are the sum of the keys' channels, each weighted with the number that
the token asks for in it, so a row holds one channel of a block of tokens. The result is the sum of the values, each
weighted with its share, so a row holds one token. A row ends with the step and the offset of its 8-bit numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # tokens of a row of keys: long rows are read fastest, and up to this many unfilled places are read too
MIDDLE = 128  # 8-bit numbers are stored without sign, moved by this
TAIL = 8  # bytes behind the numbers of a row: float32 step, float32 offset


class _Part(NamedTuple):
    """Heads that have seen equally many tokens, and where their numbers lie in the rooms of a step."""

    pairs: slice  # of a window and an end
    windows: slice
    heads: int
    blocks: int
    end: int
    keys: slice  # of the weights of rows of keys
    scores: slice
    values: slice  # of the weights of values


class BagCache:
    """Keys and values of all layers in 8 bits, as `quantized` makes them: one scale per token and head.

    keys: per layer uint8 [B, N, blocks, D, BLOCK + 8]; values: per layer uint8 [B, N, L_max, D + 8]; key_scales: per
    layer float32 [B, N, L_max]. `aim` says once per step which windows are looked at and how far, for all layers.
    """

    def __init__(self, layers: int, batch: int, heads: int, length: int, width: int):
        if not available(width):
            raise ValueError(f"this build of torch has no 8-bit sums for heads {width} wide: a multiple of 4, FBGEMM")
        self.batch, self.heads, self.length, self.width = batch, heads, length, width
        self.block = min(BLOCK, -(-length // 4) * 4)
        self.blocks = -(-length // self.block)
        keys, values = (batch, heads, self.blocks, width, self.block + TAIL), (batch, heads, length, width + TAIL)
        self.keys = [np.full(keys, MIDDLE, np.uint8) for _ in range(layers)]
        self.values = [np.zeros(values, np.uint8) for _ in range(layers)]
        self.key_scales = [np.zeros((batch, heads, length), np.float32) for _ in range(layers)]
        for rows in self.keys:  # scales belong to tokens, not to these rows
            rows.view(np.float32)[..., self.block // 4 :] = 1.0, -MIDDLE
        self._tables = [(_table(k), _table(v)) for k, v in zip(self.keys, self.values)]
        self._order = np.arange(max(length, self.blocks * width), dtype=np.int32)
        self._parts: list[_Part] = []
        self._most = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values with their scales."""
        return sum(x.nbytes for kind in (self.keys, self.values, self.key_scales) for x in kind)

    def write(self, layer: int, rows: Sequence[int], at: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Put keys and values float [M, N, L, D] into the windows `rows`, from the places `at` on."""
        codes, scales = _rounded(np.stack([k.numpy(), v.numpy()]))  # [2, M, N, L, D], [2, M, N, L]
        keys, values, sizes = self.keys[layer], self.values[layer], self.key_scales[layer]
        steps, tail = values.view(np.float32), self.width // 4
        if k.shape[2] == 1:
            even = len(rows) == self.batch and min(at) == max(at)
            window, place = (slice(None), at[0]) if even else (np.asarray(rows), np.asarray(at))
            keys[window, :, place // self.block, :, place % self.block] = codes[0, :, :, 0]
            values[window, :, place, : self.width] = codes[1, :, :, 0]
            sizes[window, :, place] = scales[0, :, :, 0]
            steps[window, :, place, tail] = scales[1, :, :, 0]
            steps[window, :, place, tail + 1] = -MIDDLE * scales[1, :, :, 0]
            return
        for i, (row, start) in enumerate(zip(rows, at)):
            stop = start + k.shape[2]
            values[row, :, start:stop, : self.width] = codes[1, i]
            sizes[row, :, start:stop] = scales[0, i]
            steps[row, :, start:stop, tail] = scales[1, i]
            steps[row, :, start:stop, tail + 1] = -MIDDLE * scales[1, i]
            for block in range(start // self.block, -(-stop // self.block)):
                front = block * self.block
                first, last = max(start, front), min(stop, front + self.block)
                keys[row, :, block, :, first - front : last - front] = codes[0, i, :, first - start : last - start].mT

    def aim(self, rows: Sequence[int], ends: Sequence[int]) -> None:
        """The next looks are of one token each, at the first `ends` tokens of the windows `rows`, which may repeat."""
        if list(rows) == [*range(self.batch)] and min(ends) == max(ends):
            groups = [(slice(0, self.batch), slice(0, self.batch), self.batch * self.heads, ends[0])]
        else:
            pairs = enumerate(zip(rows, ends))
            groups = [(slice(i, i + 1), slice(row, row + 1), self.heads, end) for i, (row, end) in pairs]
        self._parts, keys, scores, values = [], 0, 0, 0
        for pair, windows, heads, end in groups:
            blocks = -(-end // self.block)
            ends_at = keys + heads * blocks * self.width, scores + heads * blocks * self.block, values + heads * end
            rooms = slice(keys, ends_at[0]), slice(scores, ends_at[1]), slice(values, ends_at[2])
            self._parts.append(_Part(pair, windows, heads, blocks, end, *rooms))
            keys, scores, values = ends_at
        if max(keys, values) > self._most:
            self._make_room(max(keys, values, self.batch * self.heads * max(self.length, self.blocks * self.width)))
        starts = []
        for part in self._parts:
            head = np.arange(part.heads, dtype=np.int32)[:, None] + part.windows.start * self.heads
            for ids, where, each, all_ in (
                (self._key_ids, part.keys, part.blocks * self.width, self.blocks * self.width),
                (self._value_ids, part.values, part.end, self.length),
            ):
                room = ids[where].reshape(part.heads, each)
                np.add(head * np.int32(all_), self._order[:each], out=room)
            starts.append(np.arange(part.heads, dtype=np.int32) * part.end + part.values.start)
        self._key_bags = torch.from_numpy(self._bags[: keys // self.width])
        self._value_bags = torch.from_numpy(np.concatenate(starts))
        self._used = torch.from_numpy(self._key_ids[:keys]), torch.from_numpy(self._value_ids[:values])

    def look(self, layer: int, q: Tensor) -> Tensor:
        """Attention of the aimed tokens.  q float [M, N, D] -> [M, N, D], scaled by 1/sqrt(D)"""
        keys, values = self._tables[layer]
        key_ids, value_ids = self._used
        asked, scale = q.numpy(), np.float32(self.width**-0.5)
        for part in self._parts:
            room = self._asked[part.keys].reshape(-1, self.heads, part.blocks, self.width)
            np.multiply(asked[part.pairs, :, None], scale, out=room, casting="same_kind")
        weights = torch.from_numpy(self._asked[: len(key_ids)])
        scores = _sums(keys, key_ids, self._key_bags, weights).view(-1).numpy()
        for part in self._parts:
            found = scores[part.scores].reshape(part.heads, part.blocks * self.block)[:, : part.end]
            sizes = self.key_scales[layer][part.windows].reshape(part.heads, self.length)[:, : part.end]
            shares = self._shares[part.values].reshape(part.heads, part.end)
            np.multiply(found, sizes, out=shares)
            tensor = torch.from_numpy(shares)
            torch.softmax(tensor, -1, out=tensor)
        out = _sums(values, value_ids, self._value_bags, torch.from_numpy(self._shares[: len(value_ids)]))
        return out.view(q.shape).to(q.dtype)

    def widened(self, layer: int, row: int, end: int) -> tuple[Tensor, Tensor]:
        """The first `end` keys and values of a window as float32 [1, N, end, D] each."""
        keys = self.keys[layer][row, :, :, :, : self.block].swapaxes(2, 3).reshape(self.heads, -1, self.width)[:, :end]
        values = self.values[layer][row, :, :end, : self.width]
        steps = self.values[layer].view(np.float32)[row, :, :end, self.width // 4]
        whole = ((keys, self.key_scales[layer][row, :, :end]), (values, steps))
        k, v = (torch.from_numpy((x.astype(np.float32) - MIDDLE) * step[..., None]) for x, step in whole)
        return k[None], v[None]

    def _make_room(self, most: int) -> None:
        """What every step overwrites: ids of rows and their weights, of keys and of values."""
        self._most = most
        self._key_ids, self._value_ids = np.zeros(most, np.int32), np.zeros(most, np.int32)
        self._asked, self._shares = np.zeros(most, np.float32), np.zeros(most, np.float32)
        self._bags = np.arange(-(-most // self.width), dtype=np.int32) * np.int32(self.width)


def _sums(table: Tensor, ids: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows: those from each start to the next.  uint8 [R, D + 8], [n], [bags], [n] -> [bags, D]"""
    return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(table, ids, starts, False, 0, False, weights)


def _table(x: np.ndarray) -> Tensor:
    """All rows one below the other, in the same memory."""
    return torch.from_numpy(x).view(-1, x.shape[-1])


def _rounded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`quantized`, with the numbers moved by 128.  float [..., D] -> uint8 [..., D], float32 [...]"""
    scales = (np.abs(x).max(-1) / 127).astype(np.float32, copy=False)
    steps = x / np.maximum(scales, np.finfo(np.float32).tiny)[..., None]
    np.rint(steps, out=steps)
    steps += MIDDLE
    return steps.astype(np.uint8), scales


def available(width: int) -> bool:
    """True where this build of torch has the sums, for heads of this width."""
    return "fbgemm" in torch.backends.quantized.supported_engines and width % 4 == 0
