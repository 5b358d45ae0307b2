"""The fast step: a static cache, weights laid side by side once, and only the logits that are asked for."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear

from tats.gpt.cache import KVCache
from tats.gpt.model import GPT, Block, attend, published_mask

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Layer:
    """The weights of one block, query, key and value in one matrix."""

    def __init__(self, block: Block, dtype: torch.dtype):
        def cast(*tensors: Tensor | nn.Module) -> Tensor:
            return torch.cat([t.detach() for t in tensors if isinstance(t, Tensor)]).to(dtype)

        attn, up, down = block.attn, block.mlp[0], block.mlp[2]
        self.ln1, self.ln2 = ((cast(ln.weight), cast(ln.bias)) for ln in (block.ln1, block.ln2))
        three = (attn.query, attn.key, attn.value)
        self.qkv = cast(*(x.weight for x in three)), cast(*(x.bias for x in three))  # [3C, C], [3C]
        self.proj = cast(attn.proj.weight), cast(attn.proj.bias)
        self.up, self.down = ((cast(x.weight), cast(x.bias)) for x in (up, down))


class Engine:
    """A transformer ready to sample one batch of windows: `reset`, then the known tokens, then token after token.

    whole_vocabulary: logits of condition ids too, else of codes only. precision: fp32 keeps the model's own type
    (float64 for a model in float64), bf16 and fp16 cast the weights. The weights are those of the moment it is made.
    """

    def __init__(self, gpt: GPT, batch: int, *, whole_vocabulary: bool = False, precision: str = "fp32"):
        self.gpt, self.config, self.batch = gpt, gpt.config, batch
        self.dtype = gpt.pos_emb.dtype if precision == "fp32" else PRECISIONS[precision]
        self.device = gpt.pos_emb.device
        self.layers = [_Layer(block, self.dtype) for block in gpt.blocks if isinstance(block, Block)]
        self.ln_f = gpt.ln_f.weight.detach().to(self.dtype), gpt.ln_f.bias.detach().to(self.dtype)
        self.first_id = 0 if whole_vocabulary else self.config.code_offset
        self.head = gpt.head.weight.detach()[self.first_id :].to(self.dtype)  # [n, C]
        self.cache = KVCache(self.config, batch, self.device, self.dtype)
        self.order = torch.arange(self.config.block_size, device=self.device)

    def resized(self, batch: int) -> "Engine":
        """The same weights with room for another number of windows."""
        other = copy.copy(self)
        other.batch, other.cache = batch, KVCache(self.config, batch, self.device, self.dtype)
        return other

    def reset(self) -> None:
        """Forget everything seen: a new window begins."""
        self.cache.length = 0

    @torch.inference_mode()
    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        row: int = -1,
        places: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Show tokens int64 [B, L] at positions [L]; returns the logits at `row` of them: [B, n].

        places, mask: as `GPT.forward` takes them.
        """
        x = self.gpt.embed(tokens, positions, places, None).to(self.dtype)  # [B, L, C]
        width, heads, length = x.shape[2], self.config.n_head, x.shape[1]
        starts = self.cache.length == 0
        if mask is None and starts and self.config.degenerate:
            whole = published_mask(self.config.block_size, self.config.n_unmasked, self.device)
            mask = whole[positions][:, positions]
        ends = self.gpt.ends(positions) if starts and mask is None else (0, 0)
        for number, layer in enumerate(self.layers):
            qkv = linear(layer_norm(x, (width,), *layer.ln1), *layer.qkv)  # [B, L, 3C]
            q, k, v = qkv.view(len(x), length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # each [B, N, L, D]
            y = attend(q, k, v, ends, self.cache, number, mask)  # [B, N, L, D]
            x = x + linear(y.transpose(1, 2).flatten(2), *layer.proj)
            x = x + linear(gelu(linear(layer_norm(x, (width,), *layer.ln2), *layer.up)), *layer.down)
        self.cache.length += length
        return linear(layer_norm(x[:, row], (width,), *self.ln_f), self.head)  # [B, n]
