"""Latent frames drawn by one recorded step: the same codes as code by code, and nothing in it that asks the host."""

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.flags import UserError
from tats.gpt import cache as caches
from tats.gpt.api import sample_codes
from tats.gpt.captured import Captured, choice
from tats.gpt.condition import empty_condition
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine
from tats.gpt.guidance import Guided
from tats.gpt.sample import fill, layout_of, table_places

DRAWS = [Draw(20, 0.9, 1.2), Draw(1), Draw(None, 0.7)]


def filled(engine, captures):
    """The codes of the last two frames of a window of three, one known."""
    (engine.engine if isinstance(engine, Guided) else engine).captures = captures
    n = engine.engine.batch // 2 if isinstance(engine, Guided) else engine.batch
    codes = torch.randint(37, (n, 3, 3, 2), generator=torch.Generator().manual_seed(1))
    codes[:, 1:] = 0
    u = torch.rand(1, 2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cond = torch.arange(n)[:, None]
    for draws in (DRAWS[:2], DRAWS[2:] * 2):  # the second time with steps that are there
        fill(engine, layout_of(engine, cond), cond, codes, range(1, 3), draws, u)
    return codes


@pytest.mark.parametrize("places", [None, (3, 5, 5)])
@pytest.mark.parametrize("cache", ["full", "int8"])
def test_recorded_steps_draw_the_same_codes(monkeypatch, places, cache):
    monkeypatch.setattr(caches, "available", lambda width: False)  # 8 bits as they lie on a GPU
    gpt = tiny_gpt((3, 3, 2), places=places)
    assert torch.equal(filled(Engine(gpt, 2, cache=cache), True), filled(Engine(gpt, 2, cache=cache), False))


@pytest.mark.parametrize("scale", [3.0, torch.tensor([0.5, 2.0])])
def test_recorded_steps_are_guided(scale):
    gpt = tiny_gpt((3, 3, 2), conditions=[("label", 1, 3)], empty=True)
    made = [filled(Guided(Engine(gpt, 4), empty_condition(gpt.config, 1), scale), way) for way in (True, False)]
    assert torch.equal(*made)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("cache", ["full", "int8"])
def test_a_recorded_step_asks_the_host_nothing(draw, cache):
    gpt = tiny_gpt((3, 3, 2), places=(3, 5, 5)).to("meta")  # whose tensors have no numbers to ask for
    engine = Engine(gpt, 2, precision="bf16", cache=cache)
    layout = layout_of(engine, torch.zeros(2, 1))
    recorded = Captured(engine, table_places(engine, layout))
    logits, numbers = torch.zeros(2, 37, device="meta"), torch.zeros(2, 6, device="meta", dtype=torch.float64)
    tokens, behind = recorded(engine, draw, logits.bfloat16(), numbers, layout.start(1), 1, True)
    assert tokens.shape == (2, 6) and behind.shape == (2, 37) and behind.dtype == torch.bfloat16


def test_graphs_are_for_gpus_where_they_were_measured_to_win():
    cpu = torch.device("cpu")
    assert choice(cpu, 16, None).name == choice(cpu, 16, False).name == "torch"
    with pytest.raises(UserError, match="needs a GPU"):
        sample_codes(tiny_gpt(), label=1, cuda_graph=True)
