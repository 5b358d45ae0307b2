"""Tiny training runs that tests share: a line through points, with one optimizer or two."""

import dataclasses

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from tats.data.loader import Clips, Loader, Order
from tats.flags import arg
from tats.trainer_config import TrainerConfig
from tats.training import Cadence, begin, fit

CADENCE = Cadence("val/loss", "train/loss", (4, 8))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the tiny run."""

    width: int = arg(3, "something of the model")
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)


class OnePlayer(LightningModule):
    """A line through points; remembers which batches it saw."""

    def __init__(self, bad_batch: int = -1):
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.seen: list[list[int]] = []
        self.bad_batch = bad_batch

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def loss(self, batch):
        return (self.line(batch["video"]) - 1).square().mean()

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        loss = self.loss(batch) * (
            float("nan") if self.trainer.fit_loop.epoch_loop.total_batch_idx == self.bad_batch else 1
        )
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def on_save_checkpoint(self, checkpoint):
        checkpoint.update(kind="tiny", config={}, extra={})


class TwoPlayers(OnePlayer):
    """Two optimizers, each stepped once per batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(3, 1)

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.line, self.other)]

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        for part, optimizer in zip((self.line, self.other), self.optimizers()):
            loss = (part(batch["video"]) - 1).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train/loss", loss)
        return {"loss": loss}


class Points(torch.utils.data.Dataset):
    """Twelve points."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"video": torch.full((3,), index / 10), "index": index}


def loader():
    return DataLoader(Points(), batch_size=2)


def config(folder, **changes):
    usual = {"default_root_dir": str(folder), "enable_model_summary": False, "enable_progress_bar": False}
    return TrainerConfig(**{**usual, "device": "cpu", "log_every_n_steps": 1, **changes})


def train(folder, module=None, **changes):
    settings = Settings(trainer=config(folder, **changes))
    module = module or OnePlayer()
    return module, fit(module, loader(), loader(), settings.trainer, name="tiny", cadence=CADENCE, settings=settings)


def names(run):
    return sorted(path.name for path in (run / "checkpoints").glob("*.ckpt"))


class Numbers:
    """A source of seven clips: each is its own number, and the draw that belongs to it."""

    span, starts, clips = 1, np.full(7, 5), np.ones(7, int)

    def read(self, video, start, draw):
        return {"video": torch.tensor([video, start, draw.random()])}


def clip_loader(train=True, workers=0):
    return Loader(Clips(Numbers(), 0, train), Order(7, 2, 0, train), workers)


def fit_clips(folder, kind, workers=0, **changes):
    settings = Settings(trainer=config(folder, **changes))
    loaders = (clip_loader(workers=workers), clip_loader(train=False))
    begin(settings.trainer)
    module = kind()
    return module, fit(module, *loaders, settings.trainer, name="tiny", cadence=CADENCE, settings=settings)
