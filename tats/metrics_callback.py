"""Scores of what a model makes, while it trains: on a schedule, into the log, and the best checkpoint by them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tats.callbacks import complete, step_of
from tats.checkpoints import Checkpoints
from tats.data.config import DataConfig
from tats.ema import averages
from tats.flags import UserError
from tats.gpt.api import sample_codes
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.metrics.data_side import data_clips
from tats.metrics.evaluation import How, Pair, evaluate
from tats.metrics.networks import open_network
from tats.metrics.processes import current
from tats.metrics.protocols import Protocol, find
from tats.metrics.sides import MadeClips, Reconstructions, Side, quantised
from tats.run_folder import say
from tats.score_config import ScoreConfig
from tats.vqgan.model import VQGAN

Make = Callable[[LightningModule, Protocol, Side], Side]


class Scores(Callback):
    """Scores what the model makes every `every` steps, logs it as `score/<name>` and keeps the best checkpoint by the
    Frechet distance as `best-<name>-...`. Real clips are described once. In several processes each takes its share.

    make: the generated side from (module, protocol, real side); the module is in evaluation mode meanwhile.
    """

    needs_whole_weights = True

    def __init__(self, make: Make, real: Side, protocol: Protocol, network: Any, every: int, seed: int = 0):
        self.make, self.real, self.protocol, self.network = make, real, protocol, network
        self.every, self.seed = every, seed
        self.best: list[Any] = [math.inf, None]  # value, file name
        self.scored_at = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = list(state_dict["best"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = step_of(trainer)
        if not complete(trainer) or not step or step % self.every or step == self.scored_at:
            return
        self.scored_at = step
        with averages(trainer):
            result = self.score(pl_module)
        first, second = self.network.scores
        values = {f"score/{name}": result[name] for name in (first, second)}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=1)
        say(f"step {step}: {result['line']}")
        if result[first] < self.best[0]:
            self._keep(trainer, first, result[first])

    @torch.no_grad()
    def score(self, module: LightningModule) -> dict[str, Any]:
        """The score of the model as it is now, as `tats.metrics.evaluation.evaluate` gives it."""
        getattr(self.network, "module", self.network).to(module.device)
        was = module.training
        module.eval()
        try:
            pair = Pair(self.make(module, self.protocol, self.real), self.real)
            return evaluate(self.protocol, pair, self.network, self.seed, How(current()))
        finally:
            module.train(was)

    def _keep(self, trainer: Trainer, score: str, value: float) -> None:
        """Save the new best in place of the one before; nothing without checkpoints."""
        keeper = next((each for each in trainer.callbacks if isinstance(each, Checkpoints)), None)  # type: ignore[attr-defined]
        beaten, name = self.best[1], f"best-{score}-step={step_of(trainer)}-{value:.4g}.ckpt"
        self.best = [float(value), name]
        if keeper is None:
            return
        keeper.want(name, [beaten] if beaten not in (None, name) else [])


def vqgan_scores(config: ScoreConfig, data: DataConfig, seed: int) -> list[Callback]:
    """What scores a VQGAN by its reconstructions of test clips; nothing without --score_every.

    Raises:
        UserError: the network or the data can't be read.
    """
    if config.score_every is None:
        return []
    if data.stft_data or data.smap_only:
        of = "--stft_data the VQGAN learns sounds" if data.stft_data else "--smap_only it learns semantic maps"
        raise UserError(f"--score_every compares videos; with {of}: leave it out")
    protocol = _protocol(config, data).with_choices(split="test", real_clips="consecutive")

    def make(module: LightningModule, protocol: Protocol, real: Side) -> Side:
        return Reconstructions(module.vqgan, real, protocol)

    return [_scores(config, data, protocol, make, seed)]


def gpt_scores(config: ScoreConfig, data: DataConfig, gpt: GPTConfig, vqgan: VQGAN | None, seed: int) -> list[Callback]:
    """What scores a transformer by clips that it samples: the same seeds each time, classes by turns; nothing without
    --score_every.

    Raises:
        UserError: the network, the data or the VQGAN is missing, or the transformer makes no clips by itself.
    """
    if config.score_every is None:
        return []
    if vqgan is None:
        raise UserError("--score_every decodes what the transformer samples: --vqvae is needed")
    if gpt.stride > 1 or gpt.n_unmasked or gpt.key not in ("label", "none"):
        raise UserError("--score_every is for transformers that make whole clips, by label or without condition")
    t, h, w = (latent * factor for latent, factor in zip(gpt.latent_shape, vqgan.config.downsample))
    if h != w:
        raise UserError(f"--score_every compares square pictures, this transformer makes {h}x{w}")
    every = vqgan.config.sample_every_n_frames
    length = t if data.image_folder else (t - 1) * every + 1
    clips = replace(data, vtokens=False, sequence_length=length, resolution=h, sample_every_n_frames=every)

    def make(module: LightningModule, protocol: Protocol, real: Side) -> Side:
        model = module.gpt
        if not isinstance(model, GPT):
            raise TypeError(f"{type(module).__name__}.gpt must be a GPT, got {type(model).__name__}")
        device = next(model.parameters()).device

        def sample(numbers: Sequence[int], seed: int) -> Tensor:
            label = [number % gpt.n_classes for number in numbers] if gpt.key == "label" else None
            codes = sample_codes(model, label=label, seeds=[seed * 1_000_000 + number for number in numbers])
            return quantised(vqgan.to(device).decode(codes), protocol.levels)

        return MadeClips(config.score_clips, sample, protocol, {"form": "sampled while training"}, 32)

    return [_scores(config, clips, _protocol(config, clips), make, seed)]


def _protocol(config: ScoreConfig, data: DataConfig) -> Protocol:
    """The recipe at the size of the clips that are trained on."""
    recipe = find(config.score_protocol)
    if recipe.kind != "frechet" or recipe.picture:
        raise UserError(f"--score_protocol {recipe.name} does not compare two sets of clips")
    return recipe.with_choices(
        frames=data.clip_frames,
        stride=data.sample_every_n_frames,
        generated_stride=1,
        size=(data.resolution, data.resolution),
        n_generated=config.score_clips,
        n_real=config.score_clips,
    )


def _scores(config: ScoreConfig, data: DataConfig, protocol: Protocol, make: Make, seed: int) -> Scores:
    real = data_clips(replace(data, data_path=config.score_data_path or data.data_path), protocol, seed)
    network = open_network(config.features_ckpt, config.i3d_ckpt)
    return Scores(make, real, protocol, network, config.score_every or 1, seed)
