"""Sampling agrees with training, and a video depends on its seed alone."""

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt.api import (
    continue_codes,
    sample_codes,
    sample_hierarchical_codes,
    sample_long_codes,
    sample_wide_codes,
)
from tats.gpt.condition import condition
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine
from tats.gpt.objective import predict
from tats.gpt.plans import plan_between, plan_long, plan_short
from tats.gpt.sample import fill, layout_of

CONDITIONS = {
    "none": {},
    "label": {"label": [0, 2]},
    "text": {"text": torch.tensor([[1, 2, 0], [0, 0, 1]])},
    "stft": {"sound": torch.tensor([[[[0, 1], [2, 1]]], [[[2, 2], [0, 1]]]])},
}
LENGTHS = {"none": 1, "label": 1, "text": 3, "stft": 4}


def best_of_training(gpt, cond, codes, places=None):
    """Argmax over code ids of one training pass over a finished window: [B, t, h, w]."""
    with torch.no_grad():
        logits, _ = predict(gpt, cond, codes, places=places)
    return logits[..., gpt.config.code_offset :].argmax(-1).view_as(codes)


@pytest.mark.parametrize("key", CONDITIONS)
@pytest.mark.parametrize(
    "plan", [plan_short(5), plan_short(5, known=2), plan_long(9, 4), plan_long(7, 2), plan_long(3, 0)]
)
def test_sampling_agrees_with_training(key, plan):
    gpt = tiny_gpt(key=key, n_cond=LENGTHS[key])
    cond = condition(gpt.config, 2, **CONDITIONS[key])
    engine = Engine(gpt, 2)
    codes = torch.randint(37, (2, 9, 2, 2), generator=torch.Generator().manual_seed(1))
    for window in plan:
        shown = codes[:, window.frames.start : window.frames.stop]
        fill(
            engine, layout_of(engine, cond), cond, shown, window.new, [Draw(1)] * len(window.new), torch.zeros(1, 5, 4)
        )
        best = best_of_training(gpt, cond, shown)
        assert torch.equal(shown[:, window.new.start :], best[:, window.new.start :])


@pytest.mark.parametrize("key", ["none", "label"])
@pytest.mark.parametrize("step, known", [(4, 0), (4, 7), (2, 0), (6, 0)])
def test_frames_between_agree_with_training(key, step, known):
    gpt = tiny_gpt((step + 1, 2, 2), n_unmasked=4, key=key)
    cond = condition(gpt.config, 2, **CONDITIONS[key])
    engine = Engine(gpt, 2)
    codes = torch.randint(37, (2, 2 * step + 1, 2, 2), generator=torch.Generator().manual_seed(1))
    for window in plan_between(2 * step + 1, step, known):
        shown = codes[:, window.frames.start : window.frames.stop]
        before = shown.clone()
        fill(engine, layout_of(engine, cond), cond, shown, window.new, [Draw(1)] * step, torch.zeros(1, step, 4))
        best = best_of_training(gpt, cond, shown)
        new = slice(window.new.start, step)
        assert torch.equal(shown[:, new], best[:, new])
        assert torch.equal(shown[:, : window.new.start], before[:, : window.new.start])
        assert torch.equal(shown[:, -1], before[:, -1])


def test_hierarchical_videos_agree_with_the_training_of_both_models():
    coarse, fine = tiny_gpt((3, 2, 2), stride=4), tiny_gpt((5, 2, 2), n_unmasked=4)
    made = sample_hierarchical_codes(coarse, fine, 17, 2, label=[0, 2], seeds=[0, 1], top_k=1, gap_batch=4)
    codes, cond = torch.stack(list(made), 1), torch.tensor([[0], [2]])
    keys = codes[:, ::4]
    for t in range(keys.shape[1] - 2):
        best = best_of_training(coarse, cond, keys[:, t : t + 3])
        assert torch.equal(keys[:, t + 2], best[:, 2])
    for t in range(0, 16, 4):
        best = best_of_training(fine, cond, codes[:, t : t + 5])
        assert torch.equal(codes[:, t + 1 : t + 4], best[:, 1:4])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_has_the_logits_of_the_model(precision):
    gpt = tiny_gpt().float()
    tokens = torch.randint(40, (2, 20))
    engine = Engine(gpt, 2, whole_vocabulary=True, precision=precision)
    with torch.no_grad():
        expected = gpt(tokens)
    engine(tokens[:, :7], engine.order[:7])
    engine(tokens[:, 7:12], engine.order[7:12])  # several at once behind cached ones
    for at in range(12, 20):
        logits = engine(tokens[:, at : at + 1], engine.order[at : at + 1])
        allowed = (1e-5 if precision == "fp32" else 0.1) * expected.abs().max()
        assert (logits - expected[:, at]).abs().max() < allowed


SETTINGS = {"top_k": 20, "top_p": 0.9, "temperature": 1.2, "top_p_init": 1.0, "temperature_init": 2.0}


def test_a_video_depends_on_its_seed_and_not_on_its_batch():
    gpt = tiny_gpt()
    whole = sample_codes(gpt, label=1, seeds=range(6), **SETTINGS)
    assert whole.unique(dim=0).shape[0] == 6
    assert torch.equal(whole[4:5], sample_codes(gpt, label=1, seeds=[4], **SETTINGS))
    assert torch.equal(whole[[5, 2]], sample_codes(gpt, label=[1, 1], seeds=[5, 2], **SETTINGS))
    frames = torch.stack(list(sample_long_codes(gpt, 9, 2, label=1, seeds=[7, 8], **SETTINGS)), 1)
    alone = torch.stack(list(sample_long_codes(gpt, 9, 2, label=1, seeds=[8], **SETTINGS)), 1)
    assert torch.equal(frames[1:], alone)


def test_gaps_do_not_depend_on_how_many_are_filled_at_once():
    coarse, fine = tiny_gpt((3, 2, 2), stride=4), tiny_gpt((5, 2, 2), n_unmasked=4)
    made = [
        torch.stack(list(sample_hierarchical_codes(coarse, fine, 21, 1, label=1, seeds=[3, 4], gap_batch=n)), 1)
        for n in (1, 4, 99)
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_the_first_frames_have_settings_of_their_own():
    gpt = tiny_gpt()
    plain = sample_codes(gpt, label=1, seeds=[0, 1], top_k=1)
    same = sample_codes(gpt, label=1, seeds=[0, 1], top_k=1, top_k_init=1, temperature_init=3.0)
    other = sample_codes(gpt, label=1, seeds=[0, 1], top_k=1, top_k_init=0, top_p_init=1.0, temperature_init=3.0)
    assert torch.equal(plain, same)
    assert not torch.equal(plain[:, 0], other[:, 0])
    assert not torch.equal(other[0, 0], other[1, 0])
    cond = torch.tensor([[1], [1]])
    assert torch.equal(other[:, 1:], best_of_training(gpt, cond, other)[:, 1:])


@pytest.mark.parametrize("given", [1, 3, 6])
def test_a_continued_video_begins_with_what_was_given_and_does_not_peek(given):
    gpt = tiny_gpt()
    video = torch.stack(list(sample_long_codes(gpt, 9, 3, label=1, seeds=[5, 6], **SETTINGS)), 1)
    settings = {name: value for name, value in SETTINGS.items() if not name.endswith("_init")}
    again = torch.stack(list(continue_codes(gpt, video[:, :given], 9, 3, label=1, seeds=[5, 6], **SETTINGS)), 1)
    assert torch.equal(again, video)
    other = video[:, :given].clone()
    other[:, 0] = (other[:, 0] + 1) % 37
    changed = torch.stack(list(continue_codes(gpt, other, 9, 3, label=1, seeds=[5, 6], **settings)), 1)
    assert torch.equal(changed[:, :given], other)


def test_only_ids_of_codes_are_drawn():
    gpt = tiny_gpt(code_offset=30, n_codes=4)
    with torch.no_grad():
        gpt.head.weight[:30] *= 50  # a model that would like to draw conditions
    codes = sample_codes(gpt, label=1, seeds=range(4), temperature=3.0, top_k=0, top_p=1.0)
    assert codes.min() >= 0 and codes.max() < 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda gpt: sample_codes(gpt, seeds=[0]), "takes a label, but no condition"),
        (lambda gpt: sample_codes(gpt, label=3, seeds=[0]), "ids of the condition lie in 0..2"),
        (lambda gpt: sample_codes(gpt, label="red", seeds=[0]), "stores no names"),
        (lambda gpt: sample_codes(gpt, 6, label=1), "1 to 5 latent frames"),
        (lambda gpt: list(sample_long_codes(gpt, 9, 5, label=1)), "Take 0 to 4"),
        (lambda gpt: list(sample_long_codes(gpt, 2, 3, label=1)), "more than the 2 latent frames"),
        (lambda gpt: list(sample_wide_codes(gpt, 2, (4, 4), label=1)), "--vtokens_pos"),
        (lambda gpt: list(sample_hierarchical_codes(gpt, gpt, 9, label=1)), "not trained to fill in"),
        (lambda gpt: list(sample_hierarchical_codes(gpt, tiny_gpt(n_unmasked=4), 9, label=1)), "latent_frames 4"),
        (lambda gpt: sample_codes(tiny_gpt(n_unmasked=4), label=1), "sample_hierarchical"),
        (lambda gpt: list(continue_codes(gpt, torch.zeros(1, 9, 2, 2).long(), 9, label=1)), "longer video"),
        (lambda gpt: sample_codes(gpt, label=1, top_p=1.5), "between 0 and 1"),
        (lambda gpt: sample_codes(gpt, label=1, temperature=0.0), "above 0"),
    ],
)
def test_what_cannot_be_sampled_is_said(call, message):
    with pytest.raises(UserError, match=message):
        call(tiny_gpt())


def test_a_hierarchy_ends_on_a_coarse_frame():
    coarse, fine = tiny_gpt((3, 2, 2), stride=4), tiny_gpt((5, 2, 2), n_unmasked=4)
    with pytest.raises(UserError, match="Nearest: 9 or 13"):
        sample_hierarchical_codes(coarse, fine, 10, label=1)
