"""Conditions of one part and of several: their ids, their places, who may be asked what, and sampling with them."""

import dataclasses

import pytest
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.flags import UserError, from_dict, to_dict
from tats.gpt.api import sample_codes, sample_hierarchical_codes, sample_long_codes
from tats.gpt.condition import condition, empty_condition
from tats.gpt.config import GPTConfig
from tats.gpt.draw import Draw
from tats.gpt.engine import Engine
from tats.gpt.objective import predict
from tats.gpt.plans import plan_between
from tats.gpt.sample import fill, layout_of
from tats.gpt.vocabulary import train

PARTS = [("label", 1, 3), ("text", 4, 20), ("stft", 4, 6), ("smap", 8, 5)]
GIVEN = {
    "label": [0, 2],
    "text": torch.tensor([[1, 19, 0, 0], [4, 4, 2, 7]]),
    "sound": torch.tensor([[[[0, 5], [2, 1]]], [[[2, 2], [0, 1]]]]),
    "smap": torch.arange(16).view(2, 2, 2, 2) % 5,
}
NAMES = {"label": "label", "text": "text", "stft": "sound", "smap": "smap"}
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 0}


def part_of(*keys):
    return [part for part in PARTS if part[0] in keys]


def given_for(*keys):
    return {NAMES[key]: GIVEN[NAMES[key]] for key in keys}


def test_parts_stand_in_one_order_with_ids_of_their_own():
    config = GPTConfig(**SMALL, cond_stage_key="smap+label+stft+text").fitted((2, 2, 2), 37, PARTS)
    assert config.keys == ("label", "text", "stft", "smap") and config.key == "label+text+stft+smap"
    assert [part.start for part in config.parts] == [0, 1, 5, 9]
    assert [part.first_id for part in config.parts] == [0, 3, 23, 29]
    assert (config.n_cond, config.code_offset, config.block_size) == (17, 34, 17 + 8 - 1)
    cond = condition(config, 2, **GIVEN)
    assert cond.tolist()[1] == [2, *[7, 7, 5, 10], *[25, 25, 23, 24], *[32, 33, 29, 30, 31, 32, 33, 29]]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[0])
def test_one_part_is_laid_out_as_it_always_was(part):
    key, tokens, ids = part
    config = GPTConfig(**SMALL, cond_stage_key=key).fitted((2, 2, 2), 37, [part])
    before = dataclasses.replace(config, conditions=())  # as older checkpoints say it
    assert (config.n_cond, config.code_offset) == (tokens, ids) and before.parts == config.parts
    value = {NAMES[key]: GIVEN[NAMES[key]]}
    assert torch.equal(condition(config, 2, **value), torch.as_tensor(GIVEN[NAMES[key]]).reshape(2, -1))
    assert torch.equal(condition(before, 2, **value), condition(config, 2, **value))


def test_a_part_that_says_nothing_has_an_id_behind_those_of_its_own():
    plain = GPTConfig(**SMALL, cond_stage_key="label+text").fitted((2, 2, 2), 37, PARTS[:2])
    config = GPTConfig(**SMALL, cond_stage_key="label+text").fitted((2, 2, 2), 37, PARTS[:2], empty=True)
    assert config.code_offset == plain.code_offset + 2 and config.n_classes == plain.n_classes == 3
    assert empty_condition(config, 2).tolist() == [[3, 24, 24, 24, 24]] * 2
    with pytest.raises(UserError, match=r"ids of label lie in 0\.\.2, got 3\.\.3"):
        condition(config, 1, label=3, text=GIVEN["text"][:1])
    with pytest.raises(UserError, match="--cond_dropout"):
        empty_condition(plain, 2)
    with pytest.raises(UserError, match="--cond_dropout"):
        empty_condition(GPTConfig(**SMALL, unconditional=True).fitted((2, 2, 2), 37), 1)


def test_a_configuration_of_several_parts_survives_its_plain_form(tmp_path):
    pairs = train(["a red circle"], 300)
    gpt = tiny_gpt((2, 2, 2), key="label+text", conditions=PARTS[:2], empty=True).float()
    gpt.config = dataclasses.replace(gpt.config, bpe=pairs.json)
    assert from_dict(GPTConfig, to_dict(gpt.config)) == gpt.config
    checkpoint.save(gpt, tmp_path / "gpt")
    assert checkpoint.load_transformer(tmp_path / "gpt").config == gpt.config


@pytest.mark.parametrize("key, words", [
    ("words", "takes label, text, stft, smap"),
    ("label+txt", "did you mean 'text'"),
    ("label+label", r"joined by \+"),
    ("", "takes label"),
    ("label+", "takes label"),
])  # fmt: skip
def test_an_unknown_condition_is_named(key, words):
    with pytest.raises(UserError, match=words):
        GPTConfig(cond_stage_key=key)


@pytest.mark.parametrize("given, words", [
    ({"label": 1}, "takes a label and a text, but a label was given"),
    ({"label": 1, "text": GIVEN["text"], "sound": GIVEN["sound"]}, "but a label and a text and a sound was given"),
    ({"label": 3, "text": GIVEN["text"]}, r"ids of label lie in 0\.\.2"),
    ({"label": 1, "text": GIVEN["text"] + 1}, r"ids of text lie in 0\.\.19, got 1\.\.20"),
    ({"label": 1, "text": GIVEN["text"][:, :3]}, "a text takes 4 tokens in this transformer, 3 were given"),
    ({"label": [0, 1, 2], "text": GIVEN["text"]}, "3 conditions were given for 2 videos"),
    ({"label": 1, "text": "a red circle"}, "does not hold the byte pairs"),
])  # fmt: skip
def test_what_a_transformer_does_not_take_is_said(given, words):
    with pytest.raises(UserError, match=words):
        condition(tiny_gpt(key="label+text", conditions=PARTS[:2]).config, 2, **given)


def test_a_sentence_is_all_that_a_transformer_needs_which_holds_its_byte_pairs():
    pairs = train(["a red circle", "a green square"] * 3, 300)
    gpt = tiny_gpt(key="text", conditions=[("text", 6, len(pairs))])
    gpt.config = dataclasses.replace(gpt.config, bpe=pairs.json)
    texts = ["a red circle", "A  green square"]
    ids = pairs.tokenize(texts, 6)
    assert torch.equal(condition(gpt.config, 2, text=texts), ids)
    made = sample_codes(gpt, text=texts, seeds=[3, 4])
    assert torch.equal(made, sample_codes(gpt, text=ids, seeds=[3, 4]))
    assert torch.equal(made[:1], sample_codes(gpt, text="a red circle", seeds=[3]))
    with pytest.raises(UserError, match="does not fit into 6"):
        sample_codes(gpt, text="a red circle and a green square")


@pytest.mark.parametrize("keys", [("text",), ("stft",), ("label", "text"), ("label", "text", "stft", "smap")])
@pytest.mark.parametrize("empty", [False, True])
def test_frames_between_agree_with_training_whatever_the_condition(keys, empty):
    gpt = tiny_gpt((4, 2, 2), n_unmasked=4, key="+".join(keys), conditions=part_of(*keys), empty=empty)
    cond = condition(gpt.config, 2, **given_for(*keys))
    engine = Engine(gpt, 2)
    codes = torch.randint(37, (2, 4, 2, 2), generator=torch.Generator().manual_seed(1))
    for window in plan_between(4, 3):
        fill(engine, layout_of(engine, cond), cond, codes, window.new, [Draw(1)] * 3, torch.zeros(1, 3, 4))
    with torch.no_grad():
        best = predict(gpt, cond, codes)[0][..., gpt.config.code_offset :].argmax(-1).view_as(codes)
    assert torch.equal(codes[:, 1:3], best[:, 1:3])


@pytest.mark.parametrize("keys", [("text",), ("label", "text"), ("label", "stft", "smap")])
def test_videos_of_every_sampler_depend_on_their_condition_alone(keys):
    parts, key = part_of(*keys), "+".join(keys)
    gpt = tiny_gpt(key=key, conditions=parts)
    pair = [tiny_gpt((3, 2, 2), stride=4, key=key, conditions=parts), tiny_gpt(n_unmasked=4, key=key, conditions=parts)]
    samplers = [
        lambda **given: sample_codes(gpt, **given),
        lambda **given: torch.stack(list(sample_long_codes(gpt, 7, 2, **given)), 1),
        lambda **given: torch.stack(list(sample_hierarchical_codes(*pair, 9, 1, gap_batch=4, **given)), 1),
    ]
    given = given_for(*keys)
    second = {name: value[1:] for name, value in given.items()}
    for sample in samplers:
        made = sample(seeds=[5, 5], **given)
        assert not torch.equal(made[0], made[1])
        assert torch.equal(made[1:], sample(seeds=[5], **second))


def test_a_condition_of_several_tokens_is_an_anchor_as_a_whole():
    config = GPTConfig(**SMALL, n_unmasked=4, cond_stage_key="text").fitted((3, 2, 2), 37, [PARTS[1]])
    assert config.ends == (4 + 4, 3) and config.block_size == 4 + 12 - 1


def test_a_part_may_be_missing_where_parts_were_left_out_in_training():
    gpt = tiny_gpt(key="label+text", conditions=part_of("label", "text"), empty=True).float()
    text, both = GIVEN["text"], given_for("label", "text")
    with pytest.raises(UserError, match="takes a label and a text, but a text was given"):
        condition(gpt.config, 2, text=text)
    gpt.config = dataclasses.replace(gpt.config, parts_optional=True)
    whole, nothing = condition(gpt.config, 2, **both), empty_condition(gpt.config, 2)
    label, words = condition(gpt.config, 2, label=both["label"]), condition(gpt.config, 2, text=text)
    assert torch.equal(label, torch.cat([whole[:, :1], nothing[:, 1:]], 1))
    assert torch.equal(words, torch.cat([nothing[:, :1], whole[:, 1:]], 1)) and words.dtype == torch.int64
    for given, match in ({}, "takes a label or a text, but no condition"), ({**both, "sound": text}, "and a sound was"):
        with pytest.raises(UserError, match=match):
            condition(gpt.config, 2, **given)
    codes = sample_codes(gpt, text=text, seeds=[0, 1], top_k=1)
    with torch.no_grad():
        logits, _ = predict(gpt, words, codes)
    assert torch.equal(logits[..., gpt.config.code_offset :].argmax(-1), codes.flatten(1))
    film = torch.stack(list(sample_long_codes(gpt, 7, 2, text=text, seeds=[0, 1], top_k=1)), 1)
    assert torch.equal(film[:, : codes.shape[1]], codes)


def test_checkpoints_say_whether_parts_may_be_missing(tmp_path):
    gpt = tiny_gpt(key="label+text", conditions=part_of("label", "text"), empty=True)
    for optional in (False, True):
        gpt.config = dataclasses.replace(gpt.config, parts_optional=optional)
        checkpoint.save(gpt, tmp_path / str(optional))
        assert checkpoint.load_transformer(tmp_path / str(optional)).config == gpt.config
    before = {name: value for name, value in to_dict(gpt.config).items() if name != "parts_optional"}
    assert not from_dict(GPTConfig, before).parts_optional
