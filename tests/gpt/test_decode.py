"""Parallel decoding: Jacobi draws the codes of one by one in fewer steps, diagonal waves do when nothing is missing."""

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt.api import sample_codes, sample_hierarchical_codes, sample_long_codes, sample_wide_codes
from tats.gpt.diagonal import sight, waves
from tats.gpt.draw import Draw
from tats.gpt.objective import predict
from tats.gpt.steps import Steps
from tats.gpt.wanted import Draws

SETTINGS = {"top_k": 20, "top_p": 0.9, "temperature": 1.2, "top_p_init": 1.0, "temperature_init": 2.0}


def short(**more):
    return sample_codes(tiny_gpt((3, 3, 4)), label=[0, 1, 2], seeds=[5, 6, 7], **SETTINGS, **more)


def guided(**more):
    gpt = tiny_gpt((3, 3, 4), conditions=[("label", 1, 3)], empty=True)
    return sample_codes(gpt, label=[0, 2], seeds=[5, 6], cfg_scale=2.5, **SETTINGS, **more)


def long(**more):
    gpt = tiny_gpt((3, 3, 4), places=(3, 6, 6))
    return torch.stack(list(sample_long_codes(gpt, 6, 2, label=[0, 2], seeds=[5, 6], **SETTINGS, **more)), 1)


def hierarchical(**more):
    pair = tiny_gpt((3, 2, 3), stride=4), tiny_gpt((5, 2, 3), n_unmasked=6)
    return torch.stack(list(sample_hierarchical_codes(*pair, 13, 2, label=1, seeds=[5, 6], **SETTINGS, **more)), 1)


def published(**more):
    pair = tiny_gpt((3, 2, 3), stride=4), tiny_gpt((5, 2, 3), n_unmasked=6)
    given = {"label": 1, "seeds": [5, 6], "top_k": 20, "as_published": True}
    return torch.stack(list(sample_hierarchical_codes(*pair, 9, 2, **given, **more)), 1)


WAYS = [short, guided, long, hierarchical, published]


@pytest.mark.parametrize("make", WAYS)
def test_jacobi_draws_the_codes_that_are_drawn_one_by_one(make):
    one_by_one = Steps()
    expected = make(steps=one_by_one)
    for block in (1, 5, 1000):
        steps = Steps()
        assert torch.equal(make(decode="jacobi", jacobi_block=block, steps=steps), expected)
        assert (steps.codes, steps.windows) == (one_by_one.codes, one_by_one.windows)
        assert steps.steps == one_by_one.steps if block == 1 else steps.steps < one_by_one.steps


@pytest.mark.parametrize("make", WAYS)
def test_diagonal_waves_as_far_apart_as_a_row_is_wide_draw_the_codes_one_by_one(make):
    assert torch.equal(make(decode="diagonal", diagonal_lag=4), make())


@pytest.mark.parametrize("lag, steps", [(1, 17), (2, 23), (3, 29)])
def test_diagonal_takes_a_step_per_wave(lag, steps):
    counted = Steps()
    made = short(decode="diagonal", diagonal_lag=lag, steps=counted)
    assert counted.steps == steps == 3 * (4 + 2 * lag) - 1
    assert made.shape == (3, 3, 3, 4) and made.min() >= 0 and made.max() < 37
    assert lag > 1 or not torch.equal(made, short())


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_every_format_decodes_in_parallel(precision):
    gpt = tiny_gpt((2, 3, 4)).float()
    for way in ("diagonal", "jacobi"):
        made = sample_codes(gpt, label=1, seeds=[0], top_k=1, precision=precision, decode=way, diagonal_lag=4)
        logits, _ = predict(gpt, torch.tensor([[1]]), made)
        best = logits[..., 3:].max(-1).values
        chosen = logits[..., 3:].gather(-1, made.flatten(1)[..., None])[..., 0]
        assert ((best - chosen) / logits.std() < 0.5).all()  # greedy up to the rounding of the format


def test_waves_hold_every_code_once_behind_its_neighbours():
    for lag in (1, 2, 3, 4):
        found = [code for _, wave in waves(3, 4, lag) for code in wave]
        assert sorted(found) == list(range(12))
        at = {code: number for number, (_, wave) in enumerate(waves(3, 4, lag)) for code in wave}
        for code, number in at.items():
            assert code % 4 == 0 or at[code - 1] < number
            above = range(code - 4, min(code - 4 + lag, code - code % 4))
            assert all(at[other] < number for other in above if other >= 0)
        assert [code for begins, _ in waves(3, 4, lag) for code in begins] == ([4, 8] if lag < 4 else [])


def test_a_code_sees_what_is_drawn_in_front_of_it_and_what_stands_in_only_for_itself():
    assert sight([0, 4], [1], [3]).int().tolist() == [[1, 0, 1, 0], [1, 0, 1, 1]]


def test_every_row_and_frame_is_drawn_by_its_own_settings():
    kinds = [Draw(1), Draw(None, None, 3.0)]
    draws = Draws([[kinds[0], kinds[1]], [kinds[1], kinds[1]]])
    logits, u = torch.randn(2, 4, 9), torch.rand(2, 4, dtype=torch.float64)
    frame = torch.tensor([[0, 0, 1, 1]])
    made = draws(logits, frame, u)
    for row in range(2):
        for place in range(4):
            draw = kinds[0] if row == 0 and place < 2 else kinds[1]
            assert made[row, place] == draw(logits[row, place][None], u[row, place][None])[0]


def test_wrong_settings_are_told():
    gpt = tiny_gpt((2, 2, 2), places=(2, 4, 4))
    for settings, said in [
        ({"decode": "spiral"}, "raster, diagonal or jacobi"),
        ({"jacobi_block": 0}, "--jacobi_block"),
        ({"diagonal_lag": 0}, "--diagonal_lag"),
    ]:
        with pytest.raises(UserError, match=said):
            sample_codes(gpt, label=1, **settings)
    with pytest.raises(UserError, match="trained size"):
        sample_wide_codes(gpt, 2, (3, 3), 1, label=1, decode="jacobi")
