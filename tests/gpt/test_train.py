"""Training the transformer: sizes that follow from the data, loss, learning rate, start weights, checkpoints."""

import dataclasses
import math

import pytest
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.flags import UserError, from_dict, to_dict
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.objective import loss, predict
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.gpt.train_setup import rate, start
from tats.schedule import rate_factor

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=0)
LABEL = [("label", 1, 5)]


def module_of(gpt, **flags):
    return GPTTraining(gpt, GPTTrainConfig(**flags), 1e-3)


def batch_of(gpt, seed=0, n=3):
    t, h, w = gpt.config.latent_shape
    codes = torch.randint(gpt.config.n_codes, (n, t, h, w), generator=torch.Generator().manual_seed(seed))
    return {"video": codes, "label": torch.arange(n) % 3, "index": torch.arange(n)}


def test_a_window_that_does_not_fit_is_refused_with_the_right_number():
    assert SMALL.fitted((4, 3, 3), 10, LABEL).block_size == 36
    assert dataclasses.replace(SMALL, block_size=50).fitted((4, 3, 3), 10, LABEL).block_size == 50
    with pytest.raises(UserError, match="has 36 positions"):
        dataclasses.replace(SMALL, block_size=35).fitted((4, 3, 3), 10, LABEL)
    with pytest.raises(UserError, match="has 45 positions"):
        dataclasses.replace(SMALL, block_size=46, n_unmasked=9).fitted((5, 3, 3), 10, LABEL)
    with pytest.raises(UserError, match="must be the 9 codes"):
        dataclasses.replace(SMALL, n_unmasked=4).fitted((5, 3, 3), 10, LABEL)
    with pytest.raises(UserError, match="at least 3 latent frames"):
        dataclasses.replace(SMALL, n_unmasked=9).fitted((2, 3, 3), 10, LABEL)
    with pytest.raises(UserError, match="equal heads"):
        GPTConfig(n_head=3, n_embd=8)


def test_a_config_survives_its_plain_form():
    config = SMALL.fitted((4, 3, 3), 10, [("label", 1, 2)], label_names=["a", "b"], places_shape=(4, 6, 6))
    assert from_dict(GPTConfig, to_dict(config)) == config


def test_the_loss_counts_the_codes_between_unless_all_are_asked_for():
    gpt = tiny_gpt(n_unmasked=4)
    batch = batch_of(gpt)
    logits, target = predict(gpt, batch["label"][:, None], batch["video"])
    new, everything = (module_of(gpt, loss_on=on).step(batch)[0] for on in ("new", "all"))
    assert torch.allclose(new, loss(logits[:, 4:16], target[:, 4:16]))
    assert torch.allclose(everything, loss(logits, target))


def test_replaced_codes_depend_on_the_clip_and_not_on_the_batch(monkeypatch):
    gpt = tiny_gpt()
    module, batch = module_of(gpt, pkeep=0.7), batch_of(gpt, n=40)
    monkeypatch.setattr(GPTTraining, "global_step", 5)
    keep, random = disturbed(module, batch)
    keep_part, random_part = disturbed(module, {name: value[7:9] for name, value in batch.items()})
    assert torch.equal(keep[7:9], keep_part) and torch.equal(random[7:9], random_part)
    assert abs(keep.double().mean() - 0.7) < 4 * math.sqrt(0.21 / keep.numel())
    assert random.min() >= 0 and random.max() < gpt.config.vocabulary and random.unique().numel() > 30
    module.eval()
    assert torch.equal(module.step(batch)[0], module_of(gpt).step(batch)[0])


def disturbed(module, batch):
    return module.disturbed(batch, module.condition(batch), batch["video"], None)


def test_own_codes_are_drawn_from_what_the_model_says_behind_the_true_ones(monkeypatch):
    gpt = tiny_gpt((2, 2, 2))
    module, batch = module_of(gpt, own_codes=0.6), batch_of(gpt, n=2000)
    batch["video"], batch["label"] = batch["video"][:1].expand(2000, -1, -1, -1), batch["label"] * 0  # all alike
    monkeypatch.setattr(GPTTraining, "global_step", 3)
    keep, ids = disturbed(module, batch)
    assert torch.equal(keep.all(1), keep.any(1))  # whole windows
    gone = ~keep[:, 0]
    assert abs(gone.double().mean() - 0.6) < 4 * math.sqrt(0.24 / 2000)
    assert torch.equal(ids[~gone], batch["video"].flatten(1)[~gone] + gpt.config.code_offset)
    logits, _ = predict(gpt, module.condition(batch)[:1], batch["video"][:1])
    shares = logits[0, :, gpt.config.code_offset :].softmax(-1).detach()  # [8, n_codes]
    counts = torch.stack(
        [torch.bincount(c, minlength=len(s)) for c, s in zip(ids[gone].T - gpt.config.code_offset, shares)]
    )
    expected = shares * gone.sum()
    squares = ((counts - expected) ** 2 / expected).sum(1)  # chi square, n_codes - 1 degrees of freedom
    free = shares.shape[1] - 1
    assert (squares < free + 5 * math.sqrt(2 * free)).all(), squares
    part = {name: value[7:9] for name, value in batch.items()}
    assert torch.equal(disturbed(module, part)[1], ids[7:9])


def test_own_codes_leave_anchors_and_targets_alone():
    gpt = tiny_gpt(n_unmasked=4)
    module, batch = module_of(gpt, own_codes=1.0, pkeep=0.999), batch_of(gpt, n=30)
    keep, ids = disturbed(module, batch)
    assert not keep[:, 4:-4].any() and keep[:, :4].float().mean() > 0.9 and keep[:, -4:].float().mean() > 0.9
    module.train()
    value = module.step(batch)[0]
    logits, target = predict(gpt, module.condition(batch), batch["video"], keep=keep, random=ids)
    assert torch.allclose(value, loss(logits[:, 4:-4], target[:, 4:-4]))
    assert torch.equal(target, batch["video"].flatten(1) + gpt.config.code_offset)
    with pytest.raises(UserError, match="share from 0 to 1"):
        GPTTrainConfig(own_codes=1.5)


def test_every_nth_latent_frame_of_a_clip_is_kept():
    gpt = tiny_gpt(stride=2)
    codes = torch.arange(9)[None, :, None, None].expand(1, 9, 2, 2)
    assert module_of(gpt).codes({"video": codes})[0, :, 0, 0].tolist() == [0, 2, 4, 6, 8]


def test_training_learns_and_stores_the_transformer_alone():
    gpt = tiny_gpt((2, 2, 2)).float()
    module, batch = GPTTraining(gpt, GPTTrainConfig(), 1e-2), batch_of(gpt)
    assert module.codes_per_clip == 8
    optimizer = module.configure_optimizers()
    before = module.step(batch)[0]
    for _ in range(30):
        optimizer.zero_grad()
        module.step(batch)[0].backward()
        optimizer.step()
    assert module.step(batch)[0] < 0.7 * before
    assert all(name.startswith("gpt.") for name in module.state_dict())
    assert len(module.state_dict()) == len(gpt.state_dict())


def test_the_learning_rate_rises_and_falls():
    factors = [rate_factor(step, "cosine", 4, 14, falls_from=4) for step in range(15)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0 and factors[9] == pytest.approx(0.5) and factors[14] == pytest.approx(0.0)
    assert rate_factor(10**6, "cosine", 4, math.inf, falls_from=4) == 1.0


def test_learning_rate_and_effective_batch_are_told_with_their_factors():
    value, lines = rate(GPTTrainConfig(base_lr=1e-3), 2, 3, 4)
    assert value == pytest.approx(0.024)
    assert "effective batch 24" in lines[0] and "0.001 (--base_lr)" in lines[1] and "3 (processes)" in lines[1]
    assert rate(GPTTrainConfig(lr=0.5), 2, 3, 4)[0] == 0.5


def test_weights_can_start_from_another_transformer_with_other_classes(tmp_path):
    other = tiny_gpt((2, 2, 2), code_offset=3).float()
    checkpoint.save(other, tmp_path / "gpt")
    config = dataclasses.replace(other.config, n_layer=7, n_head=1, n_embd=4, code_offset=5)
    gpt = start(config, GPTTrainConfig(init_from=str(tmp_path / "gpt")), None, 0)
    assert (gpt.config.n_layer, gpt.config.n_head, gpt.config.n_embd) == (2, 2, 16)
    assert torch.equal(gpt.head.weight[5:], other.head.weight[3:])
    assert torch.equal(gpt.blocks[1].attn.proj.weight, other.blocks[1].attn.proj.weight)
    with pytest.raises(UserError, match="n_codes 37 instead of 99"):
        start(dataclasses.replace(config, n_codes=99), GPTTrainConfig(init_from=str(tmp_path / "gpt")), None, 0)


def test_a_longer_condition_can_be_learned_from_a_transformer_with_a_shorter_one(tmp_path):
    other = GPT(SMALL.fitted((2, 2, 2), 10, [("label", 1, 2)]))
    torch.nn.init.normal_(other.pos_emb)
    checkpoint.save(other, tmp_path / "gpt")
    flags = GPTTrainConfig(init_from=str(tmp_path / "gpt"))
    both, sound = (dataclasses.replace(SMALL, cond_stage_key=key) for key in ("label+stft", "stft"))
    gpt = start(both.fitted((2, 2, 2), 10, [("label", 1, 2), ("stft", 4, 6)]), flags, None, 0)
    assert torch.equal(gpt.pos_emb[:, 4:], other.pos_emb) and not gpt.pos_emb[:, :4].any()
    assert torch.equal(gpt.tok_emb.weight[8:], other.tok_emb.weight[2:])
    assert torch.equal(gpt.tok_emb.weight[:2], other.tok_emb.weight[:2])
    with pytest.raises(UserError, match="it has 7 positions behind its condition instead of 11"):
        start(sound.fitted((3, 2, 2), 10, [("stft", 4, 6)]), flags, None, 0)


def test_checkpoints_hold_what_a_loader_needs(tmp_path):
    gpt = GPT(SMALL.fitted((2, 2, 2), 10, [("label", 1, 2)], label_names=["a", "b"]))
    module = GPTTraining(gpt, GPTTrainConfig(), 1e-3, extra={"vqgan": "abc"})
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    again = checkpoint.load_transformer(tmp_path / "last.ckpt")
    assert again.config == gpt.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), gpt.parameters(), strict=True))
