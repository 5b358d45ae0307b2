"""Conditions that are left out in training: how often, and that it depends on (seed, step, clip) alone."""

import math
from dataclasses import replace

import pytest
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.data.loader import Order
from tats.flags import UserError
from tats.gpt.condition import condition, empty_condition
from tats.gpt.config import GPTConfig
from tats.gpt.dropout import leave_out
from tats.gpt.model import GPT
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.gpt.train_setup import fit_to_data, start

BOTH = [("label", 1, 3), ("text", 2, 5)]


class Codes:
    """As much of a data set of codes as fitting an architecture asks for."""

    def __init__(self, **settings):
        from tats.data.config import DataConfig

        self.config = DataConfig(data_path="codes", vtokens=True, **settings)
        self.latent_shape, self.n_codes, self.n_classes, self.label_names = (2, 2, 2), 37, 3, ["a", "b", "c"]

    def need_classes(self):
        """There are some."""


def module_of(gpt, **flags):
    return GPTTraining(gpt, GPTTrainConfig(**flags), 1e-3, seed=7)


def batch_of(clips):
    codes = torch.zeros(len(clips), 5, 2, 2, dtype=torch.long)
    return {"video": codes, "label": clips % 3, "text": torch.stack([clips % 5, clips % 4], 1), "index": clips}


@pytest.mark.parametrize("whole, each", [(0.1, 0.0), (0.0, 0.3), (0.2, 0.5)])
def test_so_many_clips_lose_all_or_a_part(whole, each):
    config = tiny_gpt(key="label+text", conditions=BOTH, empty=True).config
    n = 4000
    cond = condition(config, n, label=torch.arange(n) % 3, text=torch.zeros(n, 2).long())
    left = leave_out(config, cond, range(n), 5, 11, whole, each)
    lost = left == empty_condition(config, 1)
    assert torch.equal(lost[:, 1], lost[:, 2])  # a text goes as a whole
    assert torch.equal(left[~lost], cond[~lost])
    expected = {0: whole + (1 - whole) * each, 1: whole + (1 - whole) * each}
    for column, share in expected.items():
        assert abs(lost[:, column].double().mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    together = whole + (1 - whole) * each**2
    assert abs(lost.all(1).double().mean() - together) < 4 * math.sqrt(together * (1 - together) / n) + 1e-9


@pytest.mark.parametrize("step", [0, 4])
def test_what_is_left_out_does_not_depend_on_processes_batches_or_order(step, monkeypatch):
    module = module_of(
        tiny_gpt(key="label+text", conditions=BOTH, empty=True), cond_dropout=0.3, cond_dropout_parts=0.3
    )
    monkeypatch.setattr(GPTTraining, "global_step", step)

    def seen(rank, world):
        order = Order(64, 24 // world, 3, True, rank, world)
        clips = torch.tensor([place for _, place in order.batch(1)])
        return dict(zip(clips.tolist(), module.condition(batch_of(clips)).tolist()))

    alone = seen(0, 1)
    assert {**seen(0, 2), **seen(1, 2)} == alone and {**seen(0, 3), **seen(1, 3), **seen(2, 3)} == alone
    monkeypatch.setattr(GPTTraining, "global_step", step + 1)
    assert seen(0, 1) != alone


def test_clips_that_are_not_trained_on_keep_their_condition():
    gpt = tiny_gpt(conditions=[("label", 1, 3)], empty=True)
    module, batch = module_of(gpt, cond_dropout=0.9), batch_of(torch.arange(30))
    module.trainer = None
    assert (module.condition(batch) == 3).sum() > 15
    module.eval()
    assert torch.equal(module.condition(batch), batch["label"][:, None])


def test_only_dropout_changes_what_a_checkpoint_is():
    flags = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=0)
    data, nothing = Codes(), type("Frozen", (), {"vqgan": None})
    published, _ = fit_to_data(flags, GPTTrainConfig(), data, nothing)
    guided, _ = fit_to_data(flags, GPTTrainConfig(cond_dropout=0.1), data, nothing)
    assert (published.empty, published.code_offset, published.vocabulary) == (False, 3, 40)
    assert (guided.empty, guided.code_offset, guided.vocabulary) == (True, 4, 41)
    assert empty_condition(guided, 2).tolist() == [[3], [3]]
    assert not (published.parts_optional or guided.parts_optional)
    several = replace(flags, cond_stage_key="label+stft")
    data.source = lambda split: type("Source", (), {"beside": {"stft": type("Part", (), {"latent_shape": (2, 2, 1), "n_codes": 5})}})  # fmt: skip  # noqa: E501
    either, _ = fit_to_data(
        several, GPTTrainConfig(cond_dropout_parts=0.1), data, type("Frozen", (), {"vqgan": None, "sound": None})
    )
    assert either.parts_optional and either.empty and either.conditions == (("label", 1, 4), ("stft", 4, 6))


def test_guidance_can_be_learned_from_a_checkpoint_without_it(tmp_path):
    gpt = tiny_gpt()
    checkpoint.save(gpt, tmp_path / "gpt")
    config = tiny_gpt(conditions=[("label", 1, 3)], empty=True).config
    new = start(config, GPTTrainConfig(init_from=str(tmp_path / "gpt"), cond_dropout=0.1), None, 0)
    old, rows = gpt.tok_emb.weight.float(), new.tok_emb.weight
    assert torch.equal(rows[:3], old[:3]) and torch.equal(rows[4:], old[3:])
    assert isinstance(new, GPT) and not torch.equal(rows[3], old[3])


@pytest.mark.parametrize(
    "flags, gpt, message",
    [
        ({"cond_dropout": 1.0}, {}, "--cond_dropout is a share from 0 to below 1, got 1.0"),
        ({"cond_dropout_parts": -0.1}, {}, "--cond_dropout_parts is a share from 0 to below 1"),
        ({"cond_dropout": 0.1}, {"unconditional": True}, "an unconditional transformer has no condition"),
        ({"cond_dropout_parts": 0.1}, {}, "for several conditions"),
    ],
)
def test_shares_that_mean_nothing_are_refused(flags, gpt, message):
    with pytest.raises(UserError, match=message):
        small = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=0, **gpt)
        fit_to_data(small, GPTTrainConfig(**flags), Codes(), type("Frozen", (), {"vqgan": None}))
