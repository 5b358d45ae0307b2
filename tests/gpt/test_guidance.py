"""Classifier-free guidance: scale 1 is no guidance at all, and guided sampling agrees with two passes of training."""

from functools import partial

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt import engine as engines
from tats.gpt.api import (
    continue_codes,
    sample_codes,
    sample_hierarchical_codes,
    sample_long_codes,
    sample_wide_codes,
)
from tats.gpt.condition import condition, empty_condition
from tats.gpt.course import Change
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine
from tats.gpt.guidance import Guided
from tats.gpt.objective import crop_places, predict
from tats.gpt.plans import plan_between, plan_long, plan_short, plan_wide
from tats.gpt.sample import fill, layout_of

PARTS = {
    "label": [("label", 1, 3)],
    "text": [("text", 3, 3)],
    "label+text": [("label", 1, 3), ("text", 3, 3)],
    "stft": [("stft", 4, 3)],
}
GIVEN = {
    "label": {"label": [0, 2]},
    "text": {"text": torch.tensor([[1, 2, 0], [0, 0, 1]])},
    "label+text": {"label": [0, 2], "text": torch.tensor([[1, 2, 0], [0, 0, 1]])},
    "stft": {"sound": torch.tensor([[[[0, 1], [2, 1]]], [[[2, 2], [0, 1]]]])},
}
SETTINGS = {"seeds": [3, 4], "top_k": 20, "top_p": 0.9, "temperature": 1.2}


def guided_best(gpt, cond, codes, scale, places=None):
    """Argmax over code ids of the guided logits of two training passes over a finished window: [B, t, h, w]."""
    with torch.no_grad():
        with_it, _ = predict(gpt, cond, codes, places=places)
        without, _ = predict(gpt, empty_condition(gpt.config, len(codes)), codes, places=places)
    logits = without + scale * (with_it - without)
    return logits[..., gpt.config.code_offset :].argmax(-1).view_as(codes)


def guided_gpt(shape=(5, 2, 2), key="label", **more):
    return tiny_gpt(shape, key=key, conditions=PARTS[key], empty=True, **more)


def whole(frames):
    return torch.stack(list(frames), 1)


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_guided_windows_agree_with_two_passes_of_training(key, scale):
    gpt = guided_gpt(key=key)
    cond, empty = condition(gpt.config, 2, **GIVEN[key]), empty_condition(gpt.config, 1)
    engine = Guided(Engine(gpt, 4), empty, scale)
    codes = torch.randint(37, (2, 9, 2, 2), generator=torch.Generator().manual_seed(1))
    for plan in (plan_short(5), plan_short(5, known=2), plan_long(9, 4), plan_long(7, 2), plan_long(3, 0)):
        for window in plan:
            shown = codes[:, window.frames.start : window.frames.stop]
            draws = [Draw(1)] * len(window.new)
            fill(engine, layout_of(engine.engine, cond), cond, shown, window.new, draws, torch.zeros(1, 5, 4))
            best = guided_best(gpt, cond, shown, scale)
            assert torch.equal(shown[:, window.new.start :], best[:, window.new.start :])


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize("scale, fine_scale", [(2.5, None), (0.0, 1.5), (2.0, 1.0)])
def test_both_models_of_a_hierarchy_are_guided(key, scale, fine_scale):
    coarse, fine = guided_gpt((3, 2, 2), key, stride=4), guided_gpt(key=key, n_unmasked=4)
    made = sample_hierarchical_codes(
        coarse,
        fine,
        17,
        2,
        seeds=[0, 1],
        top_k=1,
        gap_batch=4,
        cfg_scale=scale,
        cfg_scale_fine=fine_scale,
        **GIVEN[key],
    )
    codes, cond = whole(made), condition(coarse.config, 2, **GIVEN[key])
    for window in plan_long(5, 2):
        shown = codes[:, ::4][:, window.frames.start : window.frames.stop]
        best = guided_best(coarse, cond, shown, scale)
        assert torch.equal(shown[:, window.new.start :], best[:, window.new.start :])
    for window in plan_between(17, 4):
        shown = codes[:, window.frames.start : window.frames.stop]
        best = guided_best(fine, cond, shown, scale if fine_scale is None else fine_scale)
        assert torch.equal(shown[:, 1:4], best[:, 1:4])


def test_wide_pictures_are_guided():
    gpt = guided_gpt((3, 3, 2), places=(3, 6, 6))
    codes = whole(sample_wide_codes(gpt, 3, (5, 4), 2, label=[0, 2], seeds=[0, 1], top_k=1, cfg_scale=2.0))
    cond = torch.tensor([[0], [2]])
    for window in plan_wide(3, (5, 4), (3, 2), 2):
        shown = torch.zeros(2, 3, 3, 2, dtype=torch.long)
        part = codes[:, window.frames.start : window.frames.stop, window.rows.start : window.rows.stop]
        shown[:, : window.new + 1] = part[..., window.columns.start : window.columns.stop]
        box = torch.tensor([[window.rows.start, window.rows.stop, window.columns.start, window.columns.stop]])
        best = guided_best(gpt, cond, shown, 2.0, crop_places((3, 3, 2), box))
        new = (..., slice(window.new_rows.start, 3), slice(window.new_columns.start, 2))
        assert torch.equal(shown[:, window.new][new], best[:, window.new][new])


def samplers(gpt):
    """Every sampler, as functions of further settings."""
    coarse, fine = guided_gpt((3, 2, 2), stride=4), guided_gpt(n_unmasked=4)
    given = torch.randint(37, (2, 2, 2, 2), generator=torch.Generator().manual_seed(1))
    return {
        "short": partial(sample_codes, gpt, label=1, **SETTINGS),
        "long": lambda **more: whole(sample_long_codes(gpt, 8, 2, label=1, **SETTINGS, **more)),
        "continued": lambda **more: whole(continue_codes(gpt, given, 8, 2, label=1, **SETTINGS, **more)),
        "wide": lambda **more: whole(
            sample_wide_codes(guided_gpt((3, 3, 2), places=(3, 6, 6)), 4, (4, 4), label=1, **SETTINGS, **more)
        ),
        "hierarchical": lambda **more: whole(
            sample_hierarchical_codes(coarse, fine, 9, 1, label=1, **SETTINGS, **more)
        ),
    }


@pytest.mark.parametrize("name", ["short", "long", "continued", "wide", "hierarchical"])
def test_scale_1_is_no_guidance_and_costs_nothing(name, monkeypatch):
    rows = []
    embed = engines.Engine.__call__

    def counted(self, tokens, *arguments, **named):
        rows.append(tokens.shape[0] * tokens.shape[1])
        return embed(self, tokens, *arguments, **named)

    monkeypatch.setattr(engines.Engine, "__call__", counted)
    sample = samplers(guided_gpt())[name]
    plain, cost = sample(), sum(rows)
    rows.clear()
    assert torch.equal(sample(cfg_scale=1.0), plain) and sum(rows) == cost
    rows.clear()
    nothing = sample(cfg_scale=0.0)
    assert not torch.equal(nothing, plain) and sum(rows) == cost  # one pass, behind the empty condition
    rows.clear()
    assert not torch.equal(sample(cfg_scale=3.0), plain) and sum(rows) == 2 * cost


def test_without_a_condition_nothing_depends_on_what_was_asked_for():
    gpt = guided_gpt()
    made = [sample_codes(gpt, label=label, cfg_scale=0.0, **SETTINGS) for label in (0, 1, None)]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    near = sample_codes(gpt, label=1, cfg_scale=1.0 + 1e-12, **SETTINGS)
    assert torch.equal(near, sample_codes(gpt, label=1, **SETTINGS))  # two passes, the same codes


def test_draws_come_after_guidance():
    gpt = guided_gpt()
    with torch.no_grad():
        gpt.head.weight[gpt.config.code_offset + 5] += 3 * gpt.head.weight[gpt.config.code_offset + 7]
    cond, empty = torch.tensor([[1]]), empty_condition(gpt.config, 1)
    with torch.no_grad():
        rows = [gpt(tokens)[0, 0, gpt.config.code_offset :] for tokens in (cond, empty)]
    guided = rows[1] + 4.0 * (rows[0] - rows[1])
    settings = {"top_k": 3, "temperature": 0.7, "top_p": 0.95}
    made = sample_codes(gpt, 1, label=1, seeds=range(64), cfg_scale=4.0, **settings)[:, 0, 0, 0]
    allowed = Draw(**settings).probabilities(guided[None])[0]
    assert set(made.tolist()) <= set(allowed.nonzero()[:, 0].tolist())
    assert set(made.tolist()) & set(guided.topk(1).indices.tolist())


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_guidance_runs_in_every_number_format(precision):
    gpt = guided_gpt().float()
    codes = sample_codes(gpt, label=1, seeds=range(4), top_k=1, cfg_scale=2.0, precision=precision)
    best = guided_best(gpt, torch.full((4, 1), 1), codes, 2.0)
    assert (codes[:, 0, 0, 0] == best[:, 0, 0, 0]).float().mean() >= 0.5  # the first code has no history of roundings
    assert codes.min() >= 0 and codes.max() < 37


def test_the_published_choices_go_with_guidance():
    coarse, fine = guided_gpt((3, 2, 2), stride=4), guided_gpt(n_unmasked=4)
    more = {"label": 1, "as_published": True, "cfg_scale": 2.0, **SETTINGS}
    for codes in (sample_codes(guided_gpt(), **more), whole(sample_hierarchical_codes(coarse, fine, 9, 1, **more))):
        assert codes.min() >= 0 and codes.max() < 37


def test_guidance_may_change_on_the_way():
    gpt = guided_gpt()
    schedule = [Change(2, cfg_scale=3.0), Change(5, cfg_scale=0.0), Change(7, cfg_scale=1.0)]
    codes = whole(sample_long_codes(gpt, 9, 4, label=1, seeds=[0], top_k=1, schedule=schedule))
    scales = [1, 1, 3, 3, 3, 0, 0, 1, 1]
    for window in plan_long(9, 4):
        shown = codes[:, window.frames.start : window.frames.stop]
        for place in window.new:
            best = guided_best(gpt, torch.tensor([[1]]), shown, scales[window.frames[place]])
            assert torch.equal(shown[:, place], best[:, place])


def test_a_fine_model_without_condition_fills_in_what_a_guided_one_makes():
    coarse, fine = guided_gpt((3, 2, 2), stride=4), tiny_gpt(n_unmasked=4, key="none")
    made = whole(sample_hierarchical_codes(coarse, fine, 9, 1, label=1, cfg_scale=2.0, schedule=[Change(4, label=0)]))
    assert made.shape == (1, 9, 2, 2)


@pytest.mark.parametrize(
    "gpt, scale, message",
    [
        (tiny_gpt, 2.0, "--cfg_scale 2 needs a transformer that was trained with --cond_dropout above 0"),
        (tiny_gpt, 0.0, "never seen a video without its condition. Take --cfg_scale 1"),
        (lambda: tiny_gpt(key="none"), 2.0, "an unconditional transformer has no condition to be guided by"),
        (guided_gpt, -1.0, "0 or more"),
        (guided_gpt, float("nan"), "0 or more"),
        (guided_gpt, float("inf"), "0 or more"),
    ],
)
def test_guidance_that_cannot_be_is_refused(gpt, scale, message):
    gpt = gpt()
    given = {"label": 1} if gpt.config.keys else {}
    with pytest.raises(UserError, match=message):
        sample_codes(gpt, cfg_scale=scale, **given)
