"""Averages of the weights, losses that are no numbers, other batches after going on, what the log says of speed."""

import csv

import pytest
import torch
from training_parts import CADENCE, OnePlayer, Settings, clip_loader, config, fit_clips, train

from tats import checkpoint
from tats.data.loader import Clips, Loader, Order
from tats.effective import changes, rescale
from tats.ema import Ema, averaged
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.not_a_number import names_of
from tats.training import fit
from tats.wandb_log import wandb_loggers


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


class Watched(OnePlayer):
    """Remembers its weights after every step, and those that tests saw."""

    def __init__(self):
        super().__init__()
        self.after, self.tested = [], []

    def on_train_batch_end(self, *_):
        self.after.append(self.line.weight.detach().clone())

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.tested.append(self.line.weight.detach().clone())


def test_averages_follow_the_weights_and_tests_see_them(tmp_path):
    module, run = fit_clips(tmp_path, Watched, max_steps=4, ema_decay=0.4, num_sanity_val_steps=0)
    torch.manual_seed(1234)
    average = None
    before = last(run)["ema"]["state_dict"]["line.weight"]
    first = fit_clips(tmp_path / "start", Watched, max_steps=1, ema_decay=0.4, num_sanity_val_steps=0)
    start = (last(first[1])["ema"]["state_dict"]["line.weight"] - (1 - 2 / 11) * first[0].after[0]) / (2 / 11)
    average = start
    for step, weight in enumerate(module.after, 1):
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(before, average)
    torch.testing.assert_close(module.tested[-1], average)
    torch.testing.assert_close(last(run)["state_dict"]["line.weight"], module.after[-1])


def test_averages_go_on_after_a_stop(tmp_path):
    _, whole = fit_clips(tmp_path / "whole", OnePlayer, max_steps=7, ema_decay=0.9)
    fit_clips(tmp_path / "two", OnePlayer, max_steps=3, ema_decay=0.9)
    _, run = fit_clips(tmp_path / "two", OnePlayer, max_steps=7, ema_decay=0.9)
    torch.testing.assert_close(last(run)["ema"], last(whole)["ema"], rtol=0, atol=0)
    with pytest.raises(UserError, match=r"ema_decay was 0\.9, now 0\.5"):
        fit_clips(tmp_path / "two", OnePlayer, max_steps=8, ema_decay=0.5)


def test_models_are_loaded_with_their_averages(tmp_path):
    gpt = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=0, unconditional=True).fitted((1, 2, 2), 5))
    module, ema = GPTTraining(gpt, GPTTrainConfig(), 1e-3), Ema(0.9)
    ema._begin(module)
    for value in ema.shadow.values():
        value.add_(1)
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    ema.on_save_checkpoint(None, module, content)
    torch.save(content, tmp_path / "last.ckpt")
    loaded = checkpoint.load_transformer(tmp_path / "last.ckpt")
    for (name, a), b in zip(gpt.named_parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(b, a + 1, msg=name)
    with ema.swapped(module):  # a checkpoint in the middle of a test holds each in its own place, too
        content = {"state_dict": module.state_dict()}
        ema.on_save_checkpoint(None, module, content)
        stored = {key: {name: value.clone() for name, value in content[key].items()} for key in ("state_dict",)}
        averages = {name: value.clone() for name, value in content["ema"]["state_dict"].items()}
    for name, value in averaged(module).items():
        assert torch.equal(stored["state_dict"][name], value) and torch.equal(averages[name], value + 1)


def test_the_batch_of_a_loss_that_is_no_number_is_named_and_kept(tmp_path):
    with pytest.raises(UserError, match=r"not a number since batch 5 \(step 6\); its clips: .*; the batch is kept in"):
        train(tmp_path, OnePlayer(bad_batch=5), max_steps=9)
    kept = torch.load(tmp_path / "version_0" / "not_a_number" / "batch_5_process_0.pt", weights_only=True)
    assert kept["values"]["index"].tolist() == [10, 11] and kept["clips"] == ["10", "11"]
    assert (kept["batch"], kept["step"], kept["epoch"], kept["process"]) == (5, 6, 0, 0)
    torch.testing.assert_close(kept["values"]["video"], torch.tensor([[1.0] * 3, [1.1] * 3]))


def test_clips_are_called_as_their_videos():
    source = type("Named", (), {"names": ["a/x.mp4", "b/y.mp4"], "clips": torch.tensor([2, 1]).numpy()})()
    loader = type("L", (), {"dataset": Clips(source, 0, True)})
    assert names_of(loader, torch.tensor([0, 1, 2])) == ["a/x.mp4", "a/x.mp4", "b/y.mp4"]


def test_other_batches_and_rates_are_told_and_the_place_in_the_epoch_stays(tmp_path, capsys):
    def resumed(batch_size, steps):
        settings = Settings(trainer=config(tmp_path, max_steps=steps))
        loader = Loader(clip_loader().dataset, Order(7, batch_size, 0, True))
        module = OnePlayer()
        fit(module, loader, None, settings.trainer, name="tiny", cadence=CADENCE, settings=settings)
        return module

    first = resumed(4, 1)
    capsys.readouterr()
    second = resumed(2, 3)
    said = capsys.readouterr().err
    assert "warning: the effective batch 4 = 4 (batch size)" in said and "now it is 2 = 2 (batch size)" in said
    whole = [place[1] for number in range(4) for place in Order(7, 2, 0, True).batch(number)]
    assert [*first.seen[0], *second.seen[0], *second.seen[1]] == whole[:8]
    capsys.readouterr()
    resumed(2, 4)
    assert "warning" not in capsys.readouterr().err


def test_what_counts_as_a_change():
    now = {"batch_size": 2, "accumulate": 1, "processes": 3, "learning_rate": 1e-3}
    assert changes(now, now) == changes({**now, "batch_size": 6, "processes": 1}, now) == []
    (line,) = changes({**now, "learning_rate": 2e-3}, now)
    assert line == "warning: the learning rate was 0.002 before, now it is 0.001"
    counts = dict.fromkeys(("ready", "started", "processed", "completed"), 4)
    loop = {"epoch_loop.batch_progress": {"total": dict(counts), "current": dict(counts)}, "state_dict": {}}
    loop["state_dict"]["combined_loader"] = [{"epoch": 1, "batch": 4}, {"place": 1}]
    rescale(loop, 6, 12)
    assert loop["epoch_loop.batch_progress"]["current"]["ready"] == 2
    assert loop["state_dict"]["combined_loader"] == [{"epoch": 1, "batch": 2}, {"place": 1}]


def test_speed_and_memory_are_logged(tmp_path):
    _, run = train(tmp_path, max_steps=3)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/memory_gib"]]
    assert len(rows) == 3 and all(0.01 < float(row["speed/memory_gib"]) < 1000 for row in rows)


def test_weights_and_biases_is_asked_for_by_name(tmp_path, monkeypatch):
    assert wandb_loggers(None, tmp_path) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--wandb needs the package wandb"):
        train(tmp_path, max_steps=1, wandb="tats")
    assert not (tmp_path / "version_0").exists()
