"""The published way to sample, written anew for comparison: what `benchmarks/sampling.py` times beside ours.

Per code: keys and values of all layers and steps are joined into new tensors, the logits of the whole vocabulary are
filtered by a topk and a full sort, and a code is drawn from the softmax over that vocabulary. Everything is float32. A
sliding window shows the model its context again for every frame. `tests/test_published_sampler.py` holds this file
against the outputs of the published system.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from tats.gpt.model import GPT, published_mask

Choose = Callable[[Tensor], Tensor]  # probabilities [B, V] -> ids [B, 1]


def draw(probabilities: Tensor) -> Tensor:
    """An id per row, drawn by torch.  [B, V] -> int64 [B, 1]"""
    return torch.multinomial(probabilities, 1)


def filtered(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits [B, V] with -inf for what top-k and top-p leave out, in place; top-p sorts the whole vocabulary."""
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1]))[0][..., -1, None]
        logits[logits < kth] = -math.inf
    if top_p < 1:
        ordered, ids = logits.sort(descending=True)
        removed = ordered.softmax(-1).cumsum(-1) > top_p
        removed[..., 1:] = removed[..., :-1].clone()
        removed[..., 0] = False
        logits[removed.scatter(1, ids, removed)] = -math.inf
    return logits


class PublishedSampler:
    """The published forward pass and sampling loops over the weights of a `GPT`."""

    def __init__(self, gpt: GPT):
        self.gpt, self.config = gpt, gpt.config
        self.mask = published_mask(self.config.block_size, self.config.n_unmasked, gpt.pos_emb.device)

    def attention(self, x: Tensor, layer: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, L, C], past [2, B, N, T, D] -> output [B, L, C], keys and values of x [2, B, N, L, D]"""
        attn = self.gpt.blocks[layer].attn
        batch, length, width = x.shape
        k, q, v = (
            linear(x, part.weight, part.bias).view(batch, length, self.config.n_head, -1).transpose(1, 2)
            for part in (attn.key, attn.query, attn.value)
        )  # each [B, N, L, D]
        present = torch.stack((k, v))
        if past is not None:
            k, v = torch.cat((past[0], k), -2), torch.cat((past[1], v), -2)
        scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.shape[-1]))  # [B, N, L, T + L]
        if past is None:
            scores = scores.masked_fill(~self.mask[:length, :length], -math.inf)
        y = scores.softmax(-1) @ v  # [B, N, L, D]
        y = y.transpose(1, 2).contiguous().view(batch, length, width)
        return linear(y, attn.proj.weight, attn.proj.bias), present

    def forward(self, tokens: Tensor, past: list[Tensor] | None, start: int) -> tuple[Tensor, Tensor]:
        """tokens [B, L] at positions from `start`; past: per step [layers, 2, B, N, L, D]
        -> logits [B, L, V], keys and values of these tokens [layers, 2, B, N, L, D]"""
        gpt = self.gpt
        x = gpt.tok_emb(tokens) + gpt.pos_emb[:, start : start + tokens.shape[1]]
        joined = None if past is None else torch.cat(past, -2)  # all layers and steps, anew at every step
        presents = []
        for layer, block in enumerate(gpt.blocks):
            normed = layer_norm(x, x.shape[-1:], block.ln1.weight, block.ln1.bias)
            y, present = self.attention(normed, layer, None if joined is None else joined[layer])
            presents.append(present)
            x = x + y
            normed = layer_norm(x, x.shape[-1:], block.ln2.weight, block.ln2.bias)
            up, down = block.mlp[0], block.mlp[2]
            x = x + linear(gelu(linear(normed, up.weight, up.bias)), down.weight, down.bias)
        x = layer_norm(x, x.shape[-1:], gpt.ln_f.weight, gpt.ln_f.bias)
        return linear(x, gpt.head.weight), torch.stack(presents)

    def choose(
        self, logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, choose: Choose
    ) -> Tensor:
        """Logits [B, L, V] -> the ids that follow the last position, [B, 1]; nothing is filtered without top_k."""
        last = logits[:, -1] / temperature
        if top_k is not None:
            last = filtered(last, top_k, 1.0 if top_p is None else top_p)
        return choose(last.softmax(-1))

    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        steps: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        choose: Choose = draw,
    ) -> Tensor:
        """`steps` ids behind tokens [B, L], conditions and codes in one vocabulary: int64 [B, steps]."""
        front, past, made = tokens.shape[1], [], []
        for step in range(steps):
            start = 0 if step == 0 else front + step - 1
            logits, present = self.forward(tokens, past or None, start)
            past.append(present)
            tokens = self.choose(logits, temperature, top_k, top_p, choose)
            made.append(tokens)
        return torch.cat(made, 1)

    def sample_long(self, cond: Tensor, frames: int, context: int, frame_len: int, **settings) -> Tensor:
        """A sliding window: `context` frames from cond [B, 1], then frame after frame behind the last `context` ones,
        shown again each time.  -> ids [B, frames, frame_len]"""
        ids = self.sample(cond, context * frame_len, **settings) if context else cond[:, :0]
        for frame in range(context, frames):
            seen = ids[:, (frame - context) * frame_len :]
            ids = torch.cat([ids, self.sample(torch.cat([cond, seen], 1), frame_len, **settings)], 1)
        return ids.view(len(cond), frames, frame_len)
