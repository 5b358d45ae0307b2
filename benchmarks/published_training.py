"""Training steps as published, written anew for comparison over the modules of this project.

Transformer: separate products for query, key and value; all scores, masked, through a softmax; dropout of probability 0
where it stood; logits of all positions, their cross entropy and accuracies. VQGAN: one forward pass, backward pass and
optimizer step for the generator, then another forward pass of the moved generator for the critics; every padding a
tensor of its own, SiLU a product with a sigmoid, and a codebook with the whole matrix of distances, one-hot counts, and
a shuffle of all vectors for codes that start anew. Everything in float32 unless autocast says otherwise.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.published_vqgan import conv, final, res
from tats.gpt.model import GPT
from tats.vqgan.codebook import Codebook
from tats.vqgan.model import VQGAN

DROPOUT = 0.0
DECAY, SMOOTHING = 0.99, 1e-7
RECONSTRUCTION, FEATURES = 4.0, 4.0  # weights of the loss


def attention(x: Tensor, attn: nn.Module, mask: Tensor, heads: int) -> Tensor:
    """x [B, L, C], mask bool [L, L] -> [B, L, C]"""
    batch, length, width = x.shape
    k, q, v = (
        part(x).view(batch, length, heads, width // heads).transpose(1, 2)
        for part in (attn.get_submodule("key"), attn.get_submodule("query"), attn.get_submodule("value"))
    )  # each [B, N, L, D]
    scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.shape[-1]))  # [B, N, L, L]
    weights = F.softmax(scores.masked_fill(~mask, -math.inf), -1)
    y = F.dropout(weights, DROPOUT) @ v
    y = y.transpose(1, 2).contiguous().view(batch, length, width)
    return F.dropout(attn.get_submodule("proj")(y), DROPOUT)


def transformer_loss(gpt: GPT, mask: Tensor, cond: Tensor, codes: Tensor) -> tuple[Tensor, list[Tensor]]:
    """cond int64 [B, n_cond], codes int64 [B, t, h, w], mask bool [L, L] -> loss [], accuracies among 1 and 5"""
    target = codes.flatten(1) + gpt.config.code_offset
    tokens = torch.cat((cond, target), 1)[:, :-1]  # [B, L]
    x = F.dropout(gpt.tok_emb(tokens) + gpt.pos_emb[:, : tokens.shape[1]], DROPOUT)
    for block in gpt.blocks:
        x = x + attention(block.ln1(x), block.attn, mask, gpt.config.n_head)
        x = x + F.dropout(block.mlp(block.ln2(x)), DROPOUT)
    logits = gpt.head(gpt.ln_f(x))[:, cond.shape[1] - 1 :]  # [B, n, V]
    logits, target = logits.reshape(-1, logits.shape[-1]), target.reshape(-1)
    loss = F.cross_entropy(logits, target)
    best = logits.topk(5, 1).indices.t()  # [5, B*n]
    hit = best == target.view(1, -1).expand_as(best)
    return loss, [hit[:k].reshape(-1).float().sum(0, keepdim=True) * (100.0 / len(target)) for k in (1, 5)]


def quantise(codebook: Codebook, z: Tensor) -> tuple[Tensor, Tensor]:
    """z [B, D, t, h, w] -> embeddings with the gradient of z, commitment; the averages move."""
    codes, flat = codebook.embeddings, z.movedim(1, -1).flatten(0, 3)  # [n, D]
    distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.t() + codes.t().pow(2).sum(0, keepdim=True)
    found = distances.argmin(1)
    one_hot = F.one_hot(found, len(codes)).type_as(flat)  # [n, K]
    e = F.embedding(found.view(z.shape[0], *z.shape[2:]), codes).movedim(-1, 1)
    commitment = 0.25 * F.mse_loss(z, e.detach())
    with torch.no_grad():
        counts, sums = one_hot.sum(0), flat.t() @ one_hot  # [K], [D, K]
        codebook.N.mul_(DECAY).add_(counts, alpha=1 - DECAY)
        codebook.z_avg.mul_(DECAY).add_(sums.t(), alpha=1 - DECAY)
        n = codebook.N.sum()
        weights = (codebook.N + SMOOTHING) / (n + len(codes) * SMOOTHING) * n
        moved = codebook.z_avg / weights[:, None]
        repeats = -(-len(codes) // len(flat))
        rows = flat.repeat(repeats, 1)
        rows = rows + torch.randn_like(rows) * 0.01 / math.sqrt(flat.shape[1]) if repeats > 1 else rows
        fresh = rows[torch.randperm(len(rows))][: len(codes)]
        usage = (codebook.N[:, None] >= codebook.restart_thres).float()
        share = one_hot.mean(0)
        torch.exp(-(share * torch.log(share + 1e-10)).sum())
        codebook.embeddings.copy_(moved * usage + fresh * (1 - usage))
    return (e - z).detach() + z, commitment


def reconstruct(vqgan: VQGAN, video: Tensor) -> tuple[Tensor, Tensor]:
    """video [B, C, T, H, W] -> the same again, commitment"""
    x = conv(video, vqgan.encoder.conv_first)
    for block in vqgan.encoder.conv_blocks:
        x = res(conv(x, block.down), block.res)
    z = conv(final(x, vqgan.encoder.final_block), vqgan.pre_vq_conv)
    with torch.autocast(z.device.type, enabled=False):
        e, commitment = quantise(vqgan.codebook, z.float())
    x = final(conv(e, vqgan.post_vq_conv), vqgan.decoder.final_block)
    for block in vqgan.decoder.conv_blocks:
        x = res(res(conv(x, block.up), block.res1), block.res2)
    return conv(x, vqgan.decoder.conv_last), commitment


class Players(NamedTuple):
    """Both players, and an optimizer for each."""

    vqgan: VQGAN
    image: nn.Module
    video: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def toggle(self, player: int) -> None:
        """Only one of them gets gradients."""
        for number, optimizer in enumerate(self.optimizers):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.requires_grad_(number == player)


def of_frames(video: Tensor, frames: Tensor) -> Tensor:
    """One frame of each clip.  [B, C, T, H, W], int64 [B] -> [B, C, H, W]"""
    index = frames.view(-1, 1, 1, 1, 1).expand(-1, video.shape[1], 1, *video.shape[3:])
    return torch.gather(video, 2, index).squeeze(2)


def generator_loss(players: Players, video: Tensor, frames: Tensor) -> Tensor:
    """Reconstruction, commitment, both critics and their features.  video [B, C, T, H, W], frames int64 [B]"""
    rebuilt, commitment = reconstruct(players.vqgan, video)
    loss = RECONSTRUCTION * F.l1_loss(rebuilt, video) + commitment
    fakes = (players.image(of_frames(rebuilt, frames)), players.video(rebuilt))
    reals = (players.image(of_frames(video, frames)), players.video(video))
    for (logits, fake), (_, real) in zip(fakes, reals):
        loss = loss - logits.mean()
        for f, r in zip(fake[:-1], real[:-1]):
            loss = loss + FEATURES * F.l1_loss(f, r.detach())
    return loss


def critic_loss(players: Players, video: Tensor, frames: Tensor) -> Tensor:
    """Hinge losses of both critics, on another reconstruction."""
    rebuilt = reconstruct(players.vqgan, video)[0].detach()
    pairs = (
        (players.image(of_frames(video, frames))[0], players.image(of_frames(rebuilt, frames))[0]),
        (players.video(video)[0], players.video(rebuilt)[0]),
    )
    losses = [0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()) for real, fake in pairs]
    return losses[0] + losses[1]


def vqgan_step(players: Players, video: Tensor, frames: Tensor) -> None:
    """The two forward passes, backward passes and steps of one batch."""
    for player, loss in enumerate((generator_loss, critic_loss)):
        players.toggle(player)
        value = loss(players, video, frames)
        players.optimizers[player].zero_grad()
        value.backward()
        players.optimizers[player].step()
