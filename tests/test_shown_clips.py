"""A transformer shows what it makes while it trains, and learns the same as one that does not."""

from pathlib import Path

import pytest
import torch
from process_parts import Films
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_parts import CADENCE, Settings, config

from tats.data.loader import Clips, Loader, Order
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.shown_clips import gpt_clips
from tats.trainer_config import TrainerConfig
from tats.training import fit
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN
from tats.vqgan.pictures import folder_of

SIZES = {"n_hiddens": 2, "norm_type": "batch", "embedding_dim": 4, "n_codes": 10, "downsample": (2, 4, 4)}
SMALL = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=0, unconditional=True).fitted((2, 2, 2), 10)


class Labelled(Films):
    """The same pieces of code, with classes."""

    def read(self, video, start, draw):
        return {**super().read(video, start, draw), "label": video % 3}


def trained(folder, gpt: GPTConfig, every: int) -> tuple[GPT, Path]:
    """A transformer after four steps, and the folder of its run."""
    torch.manual_seed(0)
    vqgan, source = VQGAN(VQGANConfig(resolution=8, sequence_length=4, **SIZES)).eval(), Labelled(codes=True)
    module = GPTTraining(GPT(gpt), GPTTrainConfig(), 1e-3, seed=5)
    clips = Loader(Clips(source, 3, True), Order(12, 2, 3, True))
    settings = Settings(trainer=config(folder, max_steps=4, num_sanity_val_steps=0, limit_val_batches=0))
    run = fit(module, clips, clips, settings.trainer, name="tiny", cadence=CADENCE, settings=settings,
              callbacks=gpt_clips(every, gpt, vqgan, settings.trainer))  # fmt: skip
    assert module.training
    return module.gpt, run


@pytest.mark.parametrize("kind", ["none", "label"])
def test_clips_are_shown_and_change_nothing(tmp_path, kind):
    gpt = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=0, unconditional=kind == "none", cond_stage_key="label")
    gpt = gpt.fitted((2, 2, 2), 10, [("label", 1, 3)] if kind == "label" else [])
    shown, run = trained(tmp_path / "shown", gpt, every=2)
    silent, other = trained(tmp_path / "silent", gpt, every=0)
    assert all(torch.equal(value, silent.state_dict()[name]) for name, value in shown.state_dict().items())
    assert sorted(path.name for path in (run / "videos").iterdir()) == [f"samples_gs-{n:06}.mp4" for n in (2, 4)]
    events = EventAccumulator(str(run))
    events.Reload()
    assert [entry.step for entry in events.Images("samples/videos")] == [2, 4]
    assert not (other / "videos").exists()


def test_a_run_that_keeps_nothing_has_no_folder_for_films(tmp_path):
    assert folder_of([]) is folder_of([DummyLogger()]) is None  # the latter is that of --fast_dev_run
    assert folder_of([TensorBoardLogger(tmp_path, name="", version="version_0")]) == tmp_path / "version_0"


def test_models_that_make_no_clips_by_themselves_show_none():
    vqgan, alone = VQGAN(VQGANConfig(resolution=8, sequence_length=4, **SIZES)), TrainerConfig()
    assert len(gpt_clips(5, SMALL, vqgan, alone)) == 1
    assert gpt_clips(0, SMALL, vqgan, alone) == gpt_clips(5, SMALL, None, alone) == []
    assert gpt_clips(5, SMALL, vqgan, TrainerConfig(strategy="ddp_fully_sharded")) == []
    fine = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=0, n_unmasked=4, unconditional=True)
    assert gpt_clips(5, fine.fitted((3, 2, 2), 10), vqgan, alone) == []
