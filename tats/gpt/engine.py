"""The fast step: a static cache, weights packed once for the fastest kernels, only the logits that are asked for."""

import copy
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from tats.flags import UserError
from tats.gpt.cache import KVCache, eight_is_faster
from tats.gpt.model import GPT, Block, attend, published_mask
from tats.gpt.packed import PRECISIONS, Packed, pack

CACHES = ("auto", "full", "int8")

_ENGINES: "weakref.WeakKeyDictionary[GPT, dict[tuple, tuple[tuple, Engine]]]" = weakref.WeakKeyDictionary()


class _Layer:
    """The weights of one block, query, key and value in one matrix."""

    def __init__(self, block: Block, precision: str, dtype: torch.dtype, rows: int):
        attn, up, down = block.attn, block.mlp[0], block.mlp[2]
        three = (attn.query, attn.key, attn.value)
        weight, bias = torch.cat([x.weight.detach() for x in three]), torch.cat([x.bias.detach() for x in three])
        self.ln1, self.ln2 = _norm(block.ln1, dtype), _norm(block.ln2, dtype)
        self.qkv = pack(weight, bias, precision, rows)  # [3C, C], [3C]
        others = [x for x in (attn.proj, up, down) if isinstance(x, nn.Linear)]
        self.proj, self.up, self.down = (pack(x.weight, x.bias, precision, rows) for x in others)


class Engine:
    """A transformer ready to sample one batch of windows: `reset`, then the known tokens, then token after token.

    whole_vocabulary: logits of condition ids too, else of codes only. precision: a key of `tats.gpt.packed.PRECISIONS`.
    fp32 keeps the model's own type (float64 for a model in float64). On a CPU the others are formats of the weights
    (int8: of what they are multiplied with too); activations, keys and values stay float32 there, on a GPU they take
    the format (int8: bf16). cache: full; int8, keys and values in 8 bits; auto: full, but int8 where the precision is
    int8 and that is faster. The weights are those of the moment it is made; the model itself is not kept.
    """

    def __init__(
        self,
        gpt: GPT,
        batch: int,
        *,
        whole_vocabulary: bool = False,
        precision: str = "fp32",
        cache: str = "auto",
        consume: bool = False,
    ):
        """consume: take the weights out of the model, block after block, as they are packed."""
        self.config, self.batch, self.device = gpt.config, batch, gpt.pos_emb.device
        own = gpt.pos_emb.dtype
        if precision == "fp32" or self.device.type == "cpu":
            self.dtype = own if own == torch.float64 and precision == "fp32" else torch.float32
        else:
            self.dtype = torch.bfloat16 if precision == "int8" else PRECISIONS[precision]
        self.tables = _tables(gpt)
        self.layers = []
        for number, block in enumerate(gpt.blocks):
            if not isinstance(block, Block):
                raise ValueError("the weights of this transformer were taken for one number format: load it again")
            self.layers.append(_Layer(block, precision, self.dtype, batch))
            if consume:
                gpt.blocks[number] = nn.Identity()
        self.ln_f = _norm(gpt.ln_f, self.dtype)
        self.first_id = 0 if whole_vocabulary else self.config.code_offset
        self.head: Packed = pack(gpt.head.weight[self.first_id :], None, precision, batch)  # [n, C]
        if consume:
            gpt.head.weight = nn.Parameter(gpt.head.weight.detach().new_empty(0, self.config.n_embd))
        self.precision, self.cache_kind = precision, checked(cache)
        self.cache = self._room(batch)
        self.order = torch.arange(self.config.block_size, device=self.device)
        self.captures = False  # latent frames are drawn by recorded steps (`tats.gpt.captured`)
        self.captured: dict[bool, Any] = {}  # what draws them, guided or not

    def resized(self, batch: int, cache: str | None = None) -> "Engine":
        """The same weights with room of its own for any number of windows; cache: of another kind than here."""
        other = copy.copy(self)
        other.cache_kind = checked(cache or self.cache_kind)
        other.batch, other.cache, other.captured = batch, other._room(batch), {}
        return other

    def _room(self, batch: int) -> KVCache:
        """A cache for that many windows, in 8 bits where that was asked for or is faster."""
        eight = self.cache_kind == "int8"
        if self.cache_kind == "auto" and self.precision == "int8":
            eight = eight_is_faster(self.config, self.device)
        return KVCache(self.config, batch, self.device, self.dtype, eight=eight)

    def reset(self, rows: Tensor | Sequence[int] | None = None) -> None:
        """Forget everything that some windows have seen (None: all): new ones begin."""
        self.cache.reset(rows)

    def seen(self, rows: Sequence[int] | None = None) -> list[int]:
        """How many positions some windows have seen (None: all)."""
        return self.cache.seen(rows)

    def rewind(self, lengths: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """Forget what some windows (None: all) have seen behind the first `lengths` positions of each."""
        self.cache.rewind(lengths, rows)

    @torch.inference_mode()
    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        row: int | None = -1,
        rows: Tensor | Sequence[int] | None = None,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Show tokens int64 [B', L] at positions [L], or [B', L] where windows differ.

        rows: the windows they are shown to, int64 [B'], each at most once; None: all. Windows may have seen differently
        many positions before. places, mask: as `GPT.forward` takes them. Returns the logits at `row` of the tokens:
        [B', n]; None: at all of them, [B', L, n].
        """
        x = self.tables.embed(tokens, positions, places, None).to(self.dtype)  # [B', L, C]
        batch, length, width = x.shape
        starts = self.cache.enter(rows, length)
        if length > 1 and not starts and self.config.ends != (0, 0) and 0 in self.cache.seen(rows):
            raise ValueError("windows of a model with anchors that begin can't be shown together with others")
        if mask is None and starts and self.config.degenerate:
            whole = published_mask(self.config.block_size, self.config.n_unmasked, self.device)
            at = positions if positions.dim() == 1 else positions[0]
            mask = whole[at][:, at]
        ends = self.tables.ends(positions) if starts and mask is None else (0, 0)
        if length == 1 and mask is None:
            look = self.cache.step
        else:
            look = partial(self._look, batch, ends, mask)
        x = self._blocks(x.flatten(0, 1), look).view(batch, length, width)
        self.cache.leave(length)
        if row is not None:
            return self.head(layer_norm(x[:, row], (width,), *self.ln_f))  # [B', n]
        logits = self.head(layer_norm(x.flatten(0, 1), (width,), *self.ln_f))  # [B'*L, n]
        return logits.view(batch, length, -1)

    @torch.inference_mode()
    def fixed(self, tokens: Tensor, positions: Tensor, lengths: Tensor, places: Tensor | None = None) -> Tensor:
        """A step that is the same operations wherever windows stand, as a recorded one must be.

        tokens int64 [B, 1], positions int64 [1] or [B, 1]; lengths int64 [B]: how many positions each window has seen,
        which the host is not told. Returns logits [B, n].
        """
        x = self.tables.embed(tokens, positions, places, None).to(self.dtype)[:, 0]  # [B, C]
        x = self._blocks(x, partial(self.cache.fixed, lengths=lengths))
        return self.head(layer_norm(x, x.shape[1:], *self.ln_f))

    def _blocks(self, x: Tensor, look: Callable[[int, Tensor], Tensor]) -> Tensor:
        """All blocks.  x [R, C] -> [R, C], perhaps in its memory; look: (layer, qkv [R, 3, N, D]) -> [R, C]"""
        width, heads = x.shape[1:], self.config.n_head
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(layer_norm(x, width, *layer.ln1))  # [R, 3C]
            x = layer.proj.add(look(number, qkv.view(len(x), 3, heads, -1)), x)
            x = layer.down.add(gelu(layer.up(layer_norm(x, width, *layer.ln2))), x)
        return x

    def _look(self, batch: int, ends: tuple[int, int], mask: Tensor | None, layer: int, qkv: Tensor) -> Tensor:
        """Attention of several tokens of each window.  qkv [B'*L, 3, N, D] -> [B'*L, C]"""
        q, k, v = qkv.unflatten(0, (batch, -1)).permute(2, 0, 3, 1, 4)  # each [B', N, L, D]
        return attend(q, k, v, ends, self.cache, layer, mask).transpose(1, 2).reshape(len(qkv), -1)


def checked(cache: str) -> str:
    """The kind of cache, if there is one of this name."""
    if cache not in CACHES:
        raise UserError(f"--cache takes {', '.join(CACHES)}, got {cache!r}")
    return cache


def prepared(
    gpt: GPT, batch: int, *, whole_vocabulary: bool = False, precision: str = "fp32", cache: str = "auto"
) -> Engine:
    """An engine with room of its own for `batch` windows; weights are packed once for a model that does not change.

    Packing takes seconds for large models, and a run asks for engines batch after batch.
    """
    kept = _ENGINES.setdefault(gpt, {})
    key, state = (whole_vocabulary, precision), _state(gpt)
    if key not in kept or kept[key][0] != state:
        engine = Engine(gpt, batch, whole_vocabulary=whole_vocabulary, precision=precision, cache="full")
        kept.clear()  # one set of packed weights beside the model, not one per format
        kept[key] = state, engine.resized(0)
    return kept[key][1].resized(batch, cache)


def only_packed(gpt: GPT, *, whole_vocabulary: bool = False, precision: str = "fp32") -> None:
    """Pack a model that will do nothing but sample in this format, and let go of its own weights one by one.

    A large model in 8 bit then takes a quarter of its room, and never both. `prepared` finds what was packed; anything
    else that needs the weights raises ValueError.
    """
    engine = Engine(gpt, 1, whole_vocabulary=whole_vocabulary, precision=precision, cache="full", consume=True)
    _ENGINES[gpt] = {(whole_vocabulary, precision): (_state(gpt), engine)}


def _state(gpt: GPT) -> tuple:
    """What differs after weights were moved, replaced or written to."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in gpt.parameters())


def _norm(norm: nn.LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)


def _tables(gpt: GPT) -> GPT:
    """The transformer without its blocks and head: what embeds tokens and knows the anchors."""
    tables = copy.copy(gpt)
    tables._modules = {"tok_emb": gpt.tok_emb}
    return tables
