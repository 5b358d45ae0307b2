"""The sampling scripts with sentences, classes and semantic maps: from flags to codes and the manifest."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt

import sample_hierarchical
import sample_long
import sample_short
import tats
from tats import checkpoint
from tats.conditions import sentences
from tats.flags import UserError
from tats.gpt.vocabulary import train
from tats.video import preprocess_map
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

CLIP = {"n_codes": 37, "embedding_dim": 4, "n_hiddens": 2, "downsample": (2, 4, 4), "norm_type": "batch"}
PAIRS = train([f"a {colour} {shape}" for colour in ("red", "green") for shape in ("circle", "square")] * 3, 300)
BY_BOTH = {"key": "label+text", "conditions": [("label", 1, 3), ("text", 6, len(PAIRS))]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny VQGAN of videos and one of maps, and of transformers by class and text, and by map."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    checkpoint.save(VQGAN(VQGANConfig(**CLIP, resolution=8, sequence_length=10)).eval(), folder / "vqgan")
    of_maps = {**CLIP, "n_codes": 9, "image_channels": 3, "of_maps": True}
    checkpoint.save(VQGAN(VQGANConfig(**of_maps, resolution=8, sequence_length=10)).eval(), folder / "maps")
    for name, sizes in {
        "both": BY_BOTH,
        "coarse": {"shape": (3, 2, 2), "stride": 4, **BY_BOTH},
        "between": {"n_unmasked": 4, **BY_BOTH},
        "either": {"empty": True, **BY_BOTH},
        "map": {"key": "smap", "conditions": [("smap", 5 * 2 * 2, 9)]},
    }.items():
        gpt = tiny_gpt(**sizes).float()
        by_text = "text" in gpt.config.keys
        gpt.config = dataclasses.replace(
            gpt.config,
            bpe=PAIRS.json if by_text else None,
            label_names=["ape", "bee", "cat"] if by_text else None,
            parts_optional=name == "either",
        )
        checkpoint.save(gpt, folder / name)
    return folder


def run(script, monkeypatch, *flags):
    """Run a script in this process."""
    monkeypatch.setattr("sys.argv", [f"{script.__name__}.py", *map(str, flags), "--device", "cpu"])
    script.main()


def made_by(folder):
    """Codes and manifest of a run."""
    with np.load(folder / "codes.npz") as file:
        codes = torch.from_numpy(file["codes"]).long()
    return codes, json.loads((folder / "manifest.json").read_text())


def test_sentences_and_classes_take_turns(models, tmp_path, monkeypatch):
    (tmp_path / "lines.txt").write_text("a red circle\n\n  a green square \n")
    flags = ["--gpt_ckpt", models / "both", "--vqgan_ckpt", models / "vqgan", "--n_sample", 4, "--label", "cat", 0]
    flags += ["--text", tmp_path / "lines.txt", "--save", tmp_path / "short", "--top_k", 9]
    run(sample_short, monkeypatch, *flags)
    codes, manifest = made_by(tmp_path / "short")
    assert [video["text"] for video in manifest["videos"]] == ["a red circle", "a green square"] * 2
    assert [video["class"] for video in manifest["videos"]] == ["cat", "ape"] * 2
    gpt = tats.load_transformer(models / "both")
    texts, labels = ["a red circle", "a green square"] * 2, ["cat", "ape"] * 2
    assert torch.equal(codes, tats.sample_codes(gpt, label=labels, text=texts, seeds=range(4), top_k=9, top_p=0.92))
    with pytest.raises(UserError, match="made with other settings"):
        run(sample_short, monkeypatch, *flags, "--text", "a red circle")


def test_one_sentence_makes_long_videos_of_both_kinds(models, tmp_path, monkeypatch):
    common = ["--n_sample", 2, "--batch_size", 1, "--text", "a red square", "--label", "bee", "--top_k", 9]
    run(
        sample_long, monkeypatch, "--gpt_ckpt", models / "both", "--vqgan_ckpt", models / "vqgan", *common,
        "--save", tmp_path / "long", "--sample_length", 7, "--temporal_sample_pos", 2,
    )  # fmt: skip
    gpt = tats.load_transformer(models / "both")
    given = {"text": "a red square", "label": "bee", "seeds": [0, 1], "top_k": 9, "top_p": 0.92}
    expected = torch.stack(list(tats.sample_long_codes(gpt, 7, 2, **given)), 1)
    codes, manifest = made_by(tmp_path / "long")
    assert torch.equal(codes, expected) and manifest["settings"]["text"] == "a red square"
    run(
        sample_hierarchical, monkeypatch, "--ckpt1", models / "coarse", "--ckpt2", models / "between", *common,
        "--vqgan", models / "vqgan", "--save", tmp_path / "pair", "--sample_length", 8,
    )  # fmt: skip
    codes, manifest = made_by(tmp_path / "pair")
    assert codes.shape == (2, 9, 2, 2) and manifest["videos"][1]["text"] == "a red square"


def test_maps_are_followed_clip_by_clip_and_window_by_window(models, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    maps = [random.integers(0, 3, (length, 8, 8)).astype(np.uint8) for length in (14, 10)]
    for number, ids in enumerate(maps):
        np.save(tmp_path / f"{number}.npy", ids)
    flags = ["--gpt_ckpt", models / "map", "--vqgan_ckpt", models / "vqgan", "--smap", tmp_path, "--n_sample", 2]
    flags += ["--smap_vqgan_ckpt", models / "maps", "--top_k", 9]
    run(sample_short, monkeypatch, *flags, "--save", tmp_path / "short")
    gpt, vqgan = tats.load_transformer(models / "map"), tats.load_vqgan(models / "maps")
    smap = torch.cat([vqgan.encode(preprocess_map(ids[:10, :, :, None], 8, 3)[None]) for ids in maps])
    codes, manifest = made_by(tmp_path / "short")
    assert torch.equal(codes, tats.sample_codes(gpt, smap=smap, seeds=[0, 1], top_k=9, top_p=0.92))
    assert [video["smap"] for video in manifest["videos"]] == ["0.npy", "1.npy"]
    run(sample_long, monkeypatch, *flags, "--save", tmp_path / "long", "--sample_length", 7)
    windows = []
    for ids in maps:
        ids = ids[[min(n, len(ids) - 1) for n in range(24)]]
        windows.append(torch.cat([vqgan.encode(preprocess_map(ids[2 * t : 2 * t + 10, :, :, None], 8, 3)[None]) for t in range(7)]))  # fmt: skip  # noqa: E501
    made = tats.sample_long_codes(gpt, 7, 1, smap=torch.stack(windows), seeds=[0, 1], top_k=9, top_p=0.92)
    assert torch.equal(made_by(tmp_path / "long")[0], torch.stack(list(made), 1))


@pytest.mark.parametrize("flags, words", [
    (["--gpt_ckpt", "both"], "--text is needed, a sentence or a file"),
    (["--gpt_ckpt", "both", "--text", "missing.txt"], "--text missing.txt: no such file"),
    (["--gpt_ckpt", "both", "--text", " "], "takes a sentence"),
    (["--gpt_ckpt", "both", "--text", "a red circle and then a green one too"], r"does not fit into 6.*--truncate_cap"),
    (["--gpt_ckpt", "both", "--text", "a", "--label", "dog"], "knows no class 'dog'; its classes are ape, bee, cat"),
    (["--gpt_ckpt", "both", "--text", "a", "--label", "3"], "classes 0 to 2"),
    (["--gpt_ckpt", "both", "--text", "a", "--bpe_path", "x.txt"], "holds the byte pairs of its texts itself"),
    (["--gpt_ckpt", "both", "--text", "a", "--smap", "x.npy"], "--smap is for transformers"),
    (["--gpt_ckpt", "map"], "--smap is needed"),
    (["--gpt_ckpt", "map", "--smap", "none.npy", "--smap_vqgan_ckpt", "maps"], "--smap none.npy: no such file"),
    (["--gpt_ckpt", "map", "--text", "a"], "--text is for transformers conditioned on text"),
    (["--gpt_ckpt", "map", "--label", "1"], "--label is for transformers"),
])  # fmt: skip
def test_flags_that_do_not_go_with_the_transformer_are_named(models, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(models)
    with pytest.raises(UserError, match=words):
        run(sample_short, monkeypatch, *flags, "--vqgan_ckpt", "vqgan", "--save", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_long_sentence_is_cut_when_asked_for(models, tmp_path, monkeypatch):
    monkeypatch.chdir(models)
    flags = ["--gpt_ckpt", "both", "--vqgan_ckpt", "vqgan", "--n_sample", 1, "--save", tmp_path / "out"]
    run(sample_short, monkeypatch, *flags, "--text", "a red circle and a green square", "--truncate_captions")
    ids = PAIRS.tokenize("a red circle and a green square", 6, truncate=True)
    made = tats.sample_codes(tats.load_transformer("both"), label=0, text=ids, seeds=[0])
    assert torch.equal(made_by(tmp_path / "out")[0], made)


def test_what_text_means(tmp_path):
    path = tmp_path / "lines"
    path.write_text("one\ntwo\n", encoding="utf-8")
    assert sentences(str(path)) == ["one", "two"] and sentences("a red circle.txt") == ["a red circle.txt"]
    assert sentences("word " * 2000) == ["word " * 2000]
    for content in (b"\n \n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="--text"):
            sentences(str(path))


@pytest.mark.parametrize("array, words", [
    (np.zeros((4, 8, 8), np.int64), "must be uint8"),
    (np.full((4, 8, 8), 3, np.uint8), r"class 3, but there are 3 classes.*as --smap_vqgan_ckpt"),
    (np.zeros((0, 8, 8), np.uint8), "must be uint8"),
])  # fmt: skip
def test_maps_of_another_kind_are_refused(models, tmp_path, monkeypatch, array, words):
    np.save(tmp_path / "maps.npy", array)
    flags = ["--gpt_ckpt", models / "map", "--vqgan_ckpt", models / "vqgan", "--save", tmp_path / "out"]
    with pytest.raises(UserError, match=words):
        run(sample_short, monkeypatch, *flags, "--smap", tmp_path / "maps.npy", "--smap_vqgan_ckpt", models / "maps")


@pytest.mark.parametrize("flags, given", [
    (["--text", "a red circle"], {"text": "a red circle"}),
    (["--label", "bee"], {"label": "bee"}),
    (["--label", "bee", "--text", "a red circle"], {"label": "bee", "text": "a red circle"}),
    (["--class_cond", "--text", "a red circle"], {"label": ["ape", "bee"], "text": "a red circle"}),
    ([], {"label": ["ape", "bee"]}),
])  # fmt: skip
def test_what_is_not_said_is_left_out_where_it_was_in_training(models, tmp_path, monkeypatch, flags, given):
    own = ["--gpt_ckpt", models / "either", "--vqgan_ckpt", models / "vqgan", "--n_sample", 2, "--top_k", 9]
    run(sample_short, monkeypatch, *own, *flags, "--save", tmp_path)
    codes, manifest = made_by(tmp_path)
    gpt = tats.load_transformer(models / "either")
    assert torch.equal(codes, tats.sample_codes(gpt, **given, seeds=[0, 1], top_k=9, top_p=0.92))
    assert ("text" in manifest["videos"][0], manifest["videos"][0]["class"] is not None) == (
        "text" in given, "label" in given
    )  # fmt: skip
