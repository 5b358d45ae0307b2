"""Films of what a transformer makes while it trains: in the run's folder, and playing in the log."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tats.callbacks import complete, step_of
from tats.ema import averages
from tats.gpt.api import sample_codes
from tats.gpt.config import GPTConfig
from tats.gpt.train import GPTTraining
from tats.tensorboard import add_video
from tats.trainer_config import STRATEGIES, TrainerConfig
from tats.vqgan.model import VQGAN
from tats.vqgan.pictures import FPS, SHOWN, folder_of, mosaic, store


class ShownClips(Callback):
    """Every `every` steps the first process samples a few clips, from the same seeds each time, and shows them side by
    side: as `videos/samples_gs-STEP.mp4`, and as `samples/videos` in the log. The batch at hand gives the conditions.

    What training draws does not depend on it, nor does it on what training draws.
    """

    def __init__(self, vqgan: VQGAN, every: int) -> None:
        self.vqgan, self.every = vqgan, every
        self.shown_at = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        step = step_of(trainer)
        if not complete(trainer) or not step or step % self.every or step == self.shown_at:
            return
        self.shown_at = step
        folder = folder_of(trainer.loggers)
        if folder is None or not trainer.is_global_zero or not isinstance(pl_module, GPTTraining):
            return
        with averages(trainer), evaluating(pl_module):
            film = mosaic(self.clips(pl_module, batch), nrow=None)  # [T, H', W', 3]
        store(folder / "videos" / f"samples_gs-{step:06}.mp4", film)
        add_video(trainer.loggers, "samples/videos", film, step, FPS)

    @torch.no_grad()
    def clips(self, module: GPTTraining, batch: Mapping[str, Any]) -> Tensor:
        """Clips float [B, C, T, H, W] by the model as it is now, conditioned on the first ones of a batch."""
        given = {name: value[:SHOWN] for name, value in module.given(batch).items()}
        count = min([SHOWN, *map(len, given.values())])
        codes = sample_codes(module.gpt, **given, seeds=range(count))
        return self.vqgan.to(codes.device).decode(codes)


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """The module is in evaluation mode inside, and operations whose sums come in any order are allowed."""
    training, strict = module.training, torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    module.eval()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        module.train(training)


def gpt_clips(every: int, gpt: GPTConfig, vqgan: VQGAN | None, trainer: TrainerConfig) -> list[Callback]:
    """What shows clips of a transformer; nothing where it makes no whole clips by itself, where no VQGAN turns codes
    into pictures, or where no process has all of its weights."""
    sharded = STRATEGIES.get(trainer.strategy or "auto") == "fsdp"
    alone = gpt.stride == 1 and not gpt.n_unmasked
    return [ShownClips(vqgan, every)] if every and alone and vqgan is not None and not sharded else []
