"""The ways to train that `benchmarks/training.py` compares, and the check that they are the same training.

A way is one step: forward and backward pass of the transformer, or both players' steps of the VQGAN.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks import published_training
from benchmarks.published_training import Players
from tats.compiling import compile_in_place
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT, published_mask
from tats.gpt.objective import accuracy, learn, loss, predict, window
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import CRITIC, GENERATOR, VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

Way = Callable[[], Any]

TRANSFORMERS = {  # layers, heads, width, codes, ids of the condition, latent frames, rows, columns, clips
    "ci": (2, 2, 64, 100, 3, (2, 4, 4), 2),
    "demo": (4, 4, 128, 1024, 12, (4, 8, 8), 16),
    "4 layers": (4, 16, 1024, 16384, 101, (4, 16, 16), 1),
    "6 layers": (6, 16, 1024, 16384, 101, (4, 16, 16), 2),
}
STEPS = ("published", "fp32, logits at once", "fp32", "bf16, logits at once", "bf16", "bf16, checkpointing")
COMPILED = "bf16, compiled"
VQGANS = {"ci": (16, 4, 64, 8), "16x64x64": (64, 32, 16384, 256)}  # pixels, n_hiddens, codes, their width
VQGAN_STEPS = ("published", "fp32", "bf16", "bf16, shared")
LAYOUTS = tuple(f"{kind}, channels {place}" for kind in ("fp32", "bf16") for place in ("first", "last"))
ALLOWED = {"fp32": (1e-5, 1e-3), "bf16": (1e-2, 1e-1)}  # relative differences of losses and of all gradients
VQGAN_ALLOWED = {"fp32": (1e-4, 2e-2), "bf16": (3e-2, 2.5e-1)}  # batch normalisation of few numbers amplifies rounding


def in_format(way: str) -> contextlib.AbstractContextManager[Any]:
    """autocast as Lightning's bf16-mixed has it, for ways in bf16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=way.startswith("bf16"))


def transformer(size: str, names: Sequence[str]) -> tuple[GPT, dict[str, Way]]:
    """A transformer of one of `TRANSFORMERS`, and its training step in every way: without the optimizer, after the
    gradients of the step before are forgotten; it returns the loss. All ways share the weights; compiled blocks are
    copies of them."""
    n_layer, n_head, n_embd, n_codes, offset, (t, h, w), clips = TRANSFORMERS[size]
    torch.manual_seed(0)
    gpt = GPT(
        GPTConfig(
            n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=t * h * w, n_codes=n_codes, code_offset=offset,
            latent_shape=(t, h, w), n_cond=1, conditions=(("label", 1, offset),),
        )
    ).train()  # fmt: skip
    cond, codes = torch.randint(offset, (clips, 1)), torch.randint(n_codes, (clips, t, h, w))
    mask = published_mask(gpt.config.block_size, 0)

    compiled = copy.deepcopy(gpt) if COMPILED in names else gpt
    if COMPILED in names:
        compile_in_place(compiled.blocks)

    def forward(way: str) -> Tensor:
        if way == "published":
            return published_training.transformer_loss(gpt, mask, cond, codes)[0]
        if "at once" in way:
            logits, target = predict(gpt, cond, codes)
            accuracy(logits.detach(), target)
            return loss(logits, target)
        model = compiled if way == COMPILED else gpt
        model.checkpointing = "checkpointing" in way
        return learn(model, window(model, cond, codes))[0]

    def step(way: str) -> Tensor:
        gpt.zero_grad()
        compiled.zero_grad()
        with in_format(way):
            value = forward(way)
        value.backward()
        if way == COMPILED:  # gradients stand in one place, whatever the way
            for p, other in zip(gpt.parameters(), compiled.parameters()):
                p.grad = other.grad
        return value.detach()

    return gpt, {way: partial(step, way) for way in names}


def operations(size: str) -> int:
    """Products and sums that a training step of the transformer needs: three times those of its forward pass."""
    n_layer, _, width, n_codes, offset, (t, h, w), clips = TRANSFORMERS[size]
    length = t * h * w
    weights = 12 * n_layer * width**2 + width * (n_codes + offset)
    seen = n_layer * width * length  # causal attention: on average half of the window, keys and values
    return 6 * clips * length * (weights + seen)


class Alone(VQGANTraining):
    """VQGAN training without a Trainer around it: no logs, and optimizers of its own."""

    trainer: Any = SimpleNamespace(is_last_batch=False, precision_plugin=SimpleNamespace(scaler=None))

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.own = self.configure_optimizers()

    def log(self, *_: Any, **__: Any) -> None:
        """Nothing is logged."""

    def note(self, *_: Any, **__: Any) -> None:
        """Nothing is logged."""

    def manual_backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Gradients, at once."""
        loss.backward()

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Those of both players."""
        return self.own


def vqgan(size: str, way: str, norm: str = "batch") -> tuple[Alone, Tensor]:
    """VQGAN training with both critics at work, and one random clip [1, 3, 16, H, W]."""
    side, n_hiddens, n_codes, width = VQGANS[size]
    torch.manual_seed(0)
    model = VQGANConfig(
        n_hiddens=n_hiddens, n_codes=n_codes, embedding_dim=width, downsample=(4, 8, 8), norm_type=norm,
        resolution=side, restart_thres=0.1,
    )  # fmt: skip
    config = VQGANTrainConfig(
        discriminator_iter_start=0, gan_feat_weight=published_training.FEATURES, shared_forward="shared" in way,
        channels_last=way.endswith("last"),
        disc_channels=64 if side > 16 else 4,
    )  # fmt: skip
    module = Alone(model, config, lr=1e-4).train()
    codebook = module.vqgan.codebook
    with torch.no_grad():  # codes that have been used: nothing starts anew, so that both ways see the same codebook
        codebook.N.uniform_(5, 10)
        codebook.z_avg.copy_(codebook.embeddings * codebook.N[:, None])
    return module, torch.rand(1, 3, 16, side, side) - 0.5


def players(module: Alone) -> Players:
    """The same modules and optimizers for the published step."""
    return Players(module.vqgan, module.image_discriminator, module.video_discriminator, module.own)


def vqgan_step(size: str, way: str, norm: str = "batch") -> Way:
    """One step of both players."""
    module, video = vqgan(size, way, norm)
    if way == "published":
        both = players(module)
        return lambda: published_training.vqgan_step(both, video, module.draws(GENERATOR).frames(1, video.shape[2]))

    def step() -> None:
        with in_format(way):
            module.training_step({"video": video}, 0)

    return step


def gradients(parameters: Any) -> Tensor:
    """All gradients in one vector; those that are missing count as zeros."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def apart(
    way: str, value: Tensor, slopes: Tensor, truth: tuple[Tensor, Tensor], allowed: dict[str, Any]
) -> list[float]:
    """Relative distances of a loss and of its gradients from the published ones.

    Raises:
        ValueError: further than is allowed in this number format.
    """
    found = [float((value - truth[0]).abs() / truth[0].abs()), float((slopes - truth[1]).norm() / truth[1].norm())]
    for what, far, most in zip(("loss", "gradients"), found, allowed[way[:4]]):
        if not far <= most:
            raise ValueError(f"{way}: {what} {far:.2g} away from the published step, allowed {most}")
    return found


def check_transformer(gpt: GPT, ways: dict[str, Way]) -> dict[str, list[float]]:
    """How far loss and gradients of every way are from the published ones, which come first."""
    found, truth = {"published": [0.0, 0.0]}, None
    for way, step in ways.items():
        value, slopes = step().double(), gradients(gpt.parameters())
        if truth is None:
            truth = value, slopes
        else:
            found[way] = apart(way, value, slopes, truth, ALLOWED)
    gpt.zero_grad()
    return found


def check_vqgan(size: str, names: tuple[str, ...], norm: str = "batch") -> dict[str, list[float]]:
    """The same for the generator and the critics of one batch: the further of both."""
    found: dict[str, list[float]] = {}
    for player in (GENERATOR, CRITIC):
        truth = None
        for way in ("published", *names):
            module, video = vqgan(size, way, norm)
            draws = module.draws(player)
            frames = draws.frames(1, video.shape[2])
            parameters = module.players()[player]
            with in_format(way):
                if way == "published":
                    losses = published_training.generator_loss, published_training.critic_loss
                    both = players(module)
                    both.toggle(player)
                    value = losses[player](both, video, frames)
                elif player == GENERATOR:
                    value = module.generator_loss(video, draws, hold=True)[0].loss
                else:
                    value = module.critic_loss(video, draws, hold=True).loss
            value.backward()
            value, slopes = value.detach().double(), gradients(parameters)
            if truth is None:
                truth = value, slopes
            else:
                far = apart(way, value, slopes, truth, VQGAN_ALLOWED)
                found[way] = [max(pair) for pair in zip(far, found.get(way, far))]
    return {"published": [0.0, 0.0], **found}
