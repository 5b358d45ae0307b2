"""Tests that a signal comes into are left, and what they have shown is shown again, once."""

import os
import signal

import pytest
import torch
from process_parts import loader
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from training_parts import Settings, config

from tats.training import Cadence, begin, fit
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

SIZES = {"n_hiddens": 2, "norm_type": "batch", "embedding_dim": 4, "n_codes": 10, "downsample": (2, 4, 4)}


class Signalled(VQGANTraining):
    """Gets SIGTERM in a certain test batch."""

    signalled: int | None = None
    tested = 0

    def validation_step(self, batch, batch_idx):
        self.tested += 1
        if self.tested == self.signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        super().validation_step(batch, batch_idx)


def run(folder, signalled=None):
    settings = Settings(trainer=config(folder, max_steps=4, val_check_interval=2, num_sanity_val_steps=0))
    begin(settings.trainer)
    how = VQGANTrainConfig(image_gan_weight=0.0, video_gan_weight=0.0, log_images_every=100, log_videos_every=0)
    module = Signalled(VQGANConfig(resolution=8, sequence_length=4, **SIZES), how)
    module.signalled = signalled
    loaders = loader(2, codes=False), loader(2, codes=False, train=False)
    cadence = Cadence("val/recon_loss", "train/recon_loss", (4, 8))
    return fit(module, *loaders, settings.trainer, name="tiny", cadence=cadence, settings=settings)


def shown(folder):
    """Pictures in the log, with their steps."""
    values = [
        (value.tag, event.step)
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    return [each for each in values if each[0].endswith("images")]


def kept(folder, name):
    """An entry of the checkpoint that a run has left."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[name]


@pytest.mark.parametrize("signalled", [2, 6, 8, 12])
def test_pictures_of_tests_that_were_left_are_shown_once(tmp_path, signalled):
    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "left", signalled)
    left = run(tmp_path / "left")
    assert shown(left) == shown(whole) and any(tag.startswith("val/") for tag, _ in shown(whole))
    assert kept(left, "under_way")["early"] == kept(whole, "under_way")["early"]
    assert kept(left, "callbacks")["Checkpoints"]["best"] == kept(whole, "callbacks")["Checkpoints"]["best"]
    assert len(kept(left, "callbacks")["Checkpoints"]["best"]) == 2  # each test gave one
