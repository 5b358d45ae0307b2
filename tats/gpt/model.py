"""GPT over codes. Parameter names are those of the released checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from tats import kernels
from tats.gpt.cache import KVCache
from tats.gpt.config import GPTConfig
from tats.gpt.linear import Linear


def published_mask(block_size: int, n_unmasked: int, device: torch.device | str | None = None) -> Tensor:
    """The mask stored in released checkpoints: bool [block_size, block_size], rows ask and columns answer.

    For 1 < n_unmasked < block_size / 2 it is the rule of `kernels.attention` with the anchors of `GPTConfig.ends`;
    outside it degenerates (n_unmasked 1: all ones), which only `as_published` sampling may use.
    """
    mask = torch.ones(block_size, block_size, dtype=torch.bool, device=device).tril()
    if n_unmasked:
        mask[:, : n_unmasked + 1] = True
        mask[:, -n_unmasked + 1 :] = True
        mask[-n_unmasked + 1 :, n_unmasked + 1 : -n_unmasked + 1] = False
    return mask


class Attention(nn.Module):
    """Every token looks at the tokens it may see."""

    def __init__(self, cfg: GPTConfig, layer: int):
        super().__init__()
        self.layer, self.n_head = layer, cfg.n_head
        self.key = Linear(cfg.n_embd, cfg.n_embd)
        self.query = Linear(cfg.n_embd, cfg.n_embd)
        self.value = Linear(cfg.n_embd, cfg.n_embd)
        self.proj = Linear(cfg.n_embd, cfg.n_embd)

    def forward(self, x: Tensor, ends: tuple[int, int], cache: KVCache | None, mask: Tensor | None) -> Tensor:
        """x [B, L, C] -> [B, L, C]; ends: anchors among these L; mask: bool [L, L], takes the place of the rule."""
        if torch.is_autocast_enabled(x.device.type):  # once, instead of once for each of the three
            x = x.to(torch.get_autocast_dtype(x.device.type))
        q, k, v = (
            linear(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )  # each [B, N, L, D]
        y = attend(q, k, v, ends, cache, self.layer, mask)  # [B, N, L, D]
        return self.proj(y.transpose(1, 2).flatten(2))  # [B, L, C]


def attend(
    q: Tensor, k: Tensor, v: Tensor, ends: tuple[int, int], cache: KVCache | None, layer: int, mask: Tensor | None
) -> Tensor:
    """Attention of new tokens to each other and to the cached ones.  q, k, v [B, N, L, D] -> [B, N, L, D]"""
    if cache is not None:
        cache.write(layer, k, v)
        if not cache.begins:  # behind cached tokens: all of them came before
            return cache.look(layer, q, mask)
    if mask is not None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return kernels.attention(q, k, v, *ends)


class Block(nn.Module):
    """Attention and a two-layer network, each on normalised input and added to it."""

    def __init__(self, cfg: GPTConfig, layer: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(cfg.n_embd)
        self.ln2 = nn.LayerNorm(cfg.n_embd)
        self.attn = Attention(cfg, layer)
        self.mlp = nn.Sequential(Linear(cfg.n_embd, 4 * cfg.n_embd), nn.GELU(), Linear(4 * cfg.n_embd, cfg.n_embd))

    def forward(self, x: Tensor, ends: tuple[int, int], cache: KVCache | None, mask: Tensor | None) -> Tensor:
        """x [B, L, C] -> [B, L, C]"""
        x = x + self.attn(self.ln1(x), ends, cache, mask)
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    """Scores for the code that follows each position of a window.

    Without anchors (`config.n_unmasked` 0) positions see what comes before them; with anchors everybody also sees the
    condition, the first frame, and the last frame but its final code.

    checkpointing: keep only the inputs of the blocks for the backward pass, which computes each block a second time.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config, self.checkpointing = config, False
        self.tok_emb = nn.Embedding(config.vocabulary, config.n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        if config.places_shape is not None:
            self.vtokens_pos_emb = nn.Parameter(torch.zeros(1, *config.places_shape, config.n_embd))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = Linear(config.n_embd, config.vocabulary, bias=False)
        self.apply(_initialise)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        places: Tensor | None = None,
        embeddings: Tensor | None = None,
        mask: Tensor | None = None,
        then: Callable[[Tensor, Tensor], Any] | None = None,
    ) -> Any:
        """Logits of what follows each position.

        tokens: int64 [B, L], ids below `config.vocabulary`. positions: int64 [n + L], places in the window, each below
        `config.block_size`; None: 0, 1, 2, ... cache: what was seen before; the new positions are added to it.
        places: int64 [B or 1, M, 3] (frame, row, column): where the codes that the last M positions predict lie in the
        table of places (models with `vtokens_pos`). embeddings: float [B, n, C], put before the tokens.
        mask: bool [n + L, n + L], instead of the model's own rule, in a pass that starts a window.
        Returns float [B, n + L, vocabulary]; with `then`, what it makes of [B, n + L, C], which enters the head, and
        the head's weight [vocabulary, C].
        """
        x = self.embed(tokens, positions, places, embeddings)  # [B, n + L, C]
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        starts = cache is None or cache.enter(None, x.shape[1])
        if mask is None and self.config.degenerate and starts:
            whole = published_mask(self.config.block_size, self.config.n_unmasked, x.device)
            mask = whole[positions][:, positions]
        ends = self.ends(positions) if mask is None else (0, 0)
        again = self.checkpointing and cache is None and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, ends, cache, mask, use_reentrant=False) if again else block(x, ends, cache, mask)
        if cache is not None:
            cache.leave(x.shape[1])
        x = self.ln_f(x)
        return self.head(x) if then is None else then(x, self.head.weight)  # [B, n + L, V]

    def ends(self, positions: Tensor) -> tuple[int, int]:
        """How many of these (ascending) positions are anchors in front, and how many at the end.

        positions [L], or [B, L] with the same anchors in every row.
        """
        prefix, suffix = self.config.ends
        if prefix + suffix == 0:
            return 0, 0
        front, back = (positions < prefix).sum(-1), (positions >= self.config.block_size - suffix).sum(-1)
        if positions.dim() == 2:
            if bool((front != front[0]).any() or (back != back[0]).any()):
                raise ValueError("windows that are shown at once must have equally many anchors among their positions")
            front, back = front[0], back[0]
        return int(front), int(back)

    def embed(
        self, tokens: Tensor, positions: Tensor | None, places: Tensor | None, embeddings: Tensor | None
    ) -> Tensor:
        """What enters the first block: float [B, n + L, C]; arguments as in `forward`, positions [B, n + L] too."""
        x = self.tok_emb(tokens)  # [B, L, C]
        if embeddings is not None:
            x = torch.cat([embeddings.to(x.dtype), x], 1)  # [B, n + L, C]
        length = x.shape[1]
        if positions is None:
            if length > self.config.block_size:
                raise ValueError(f"{length} positions do not fit into a window of {self.config.block_size}")
            x = x + self.pos_emb[:, :length]
        else:
            if positions.shape not in ((length,), (len(x), length)):
                raise ValueError(
                    f"positions must be [{length}], one per embedding and token, or [{len(x)}, {length}]; "
                    f"got {[*positions.shape]}"
                )
            x = x + self.pos_emb[0, positions]
        if places is not None:
            if self.config.places_shape is None:
                raise ValueError("places were given, but this transformer has no table of places (vtokens_pos)")
            if not places.shape[1] <= length:
                raise ValueError(f"{places.shape[1]} places were given for {length} positions")
            frame, row, column = places.unbind(-1)  # each [B, M]
            where = self.vtokens_pos_emb[0, frame, row, column]  # [B, M, C]
            x = torch.cat([x[:, : length - places.shape[1]], x[:, length - places.shape[1] :] + where], 1)
        return x


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, norms 1 and 0; the tables of positions stay 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
