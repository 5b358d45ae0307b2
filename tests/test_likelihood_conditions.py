"""`tats evaluate --nll` of transformers by text, sound, maps and all at once: bits equal a direct computation."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from films import film_folders
from gpt_parts import tiny_gpt
from torch.nn.functional import cross_entropy

from tats import checkpoint, evaluate, tokenize
from tats.data.sound import sound_pictures
from tats.gpt.condition import condition
from tats.gpt.objective import predict
from tats.gpt.vocabulary import train
from tats.likelihood import others
from tats.reader import read_clip, scan
from tats.video import preprocess, preprocess_map
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

CLASSES = 3  # of the semantic maps
CAPTIONS = ["a slow red ape", "an ape", "a red bee"]
PAIRS = train(CAPTIONS, 300)
PARTS = [("label", 1, 2), ("text", 16, len(PAIRS)), ("stft", 2 * 4 * 2, 18), ("smap", 4 * 2 * 2, 19)]
KEYS = ["text", "stft", "smap", "label+text+stft+smap"]
GIVEN = {"label": "label", "text": "text", "stft": "sound", "smap": "smap"}
BY_WORD = {"slow": [0, 1], "red": [0, 1, 4, 5], "ape": [0, 1, 2, 3], "bee": [4, 5]}  # clips: two of each film


def coded(folder, seed, clips, downsample, **sizes):
    """Codes of clips float [B, C, T, H, W] by a VQGAN of a few weights, stored in `folder`, whose codebook consists of
    vectors of these clips, so that they have different codes."""
    torch.manual_seed(seed)
    channels = clips.shape[1]
    config = VQGANConfig(8, 16 + seed, 4, downsample, "batch", image_channels=channels, sequence_length=8, **sizes)
    vqgan = VQGAN(config).eval()
    found = vqgan.features(clips).detach().movedim(1, -1).flatten(0, -2)  # [n, 4]
    vqgan.codebook.embeddings[:] = found[torch.randperm(len(found))[: 16 + seed]]
    checkpoint.save(vqgan, folder)
    return vqgan.encode(clips)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with films, their captions, sounds and maps, and models; of every clip of the test split its codes and
    what a transformer may be told of it."""
    root = tmp_path_factory.mktemp("conditions")
    films, random = film_folders(root / "films", {"ape": 2, "bee": 1}, 16, codec="mpeg4"), np.random.default_rng(0)
    clips = {name: [] for name in ("codes", *GIVEN)}
    for split in ("train", "test"):
        paths = sorted((films / split).rglob("*.mp4"))
        names = [path.relative_to(films / split) for path in paths]
        texts = dict(zip(map(str, names), CAPTIONS, strict=True))
        (films / split / "captions.json").write_text(json.dumps(texts))
        for path, name, text in zip(paths, names, CAPTIONS, strict=True):
            stft = random.random((16, 64, 16), np.float32).astype(np.float16)
            ids = random.integers(0, CLASSES, (16, 48, 64)).astype(np.uint8)
            for folder, array in ((films / "stft", stft), (root / "maps", ids)):
                beside = folder / split / name.with_suffix(".npy")
                beside.parent.mkdir(parents=True, exist_ok=True)
                np.save(beside, array)
            if split == "train":
                continue
            for start in (0, 8):
                clips["codes"].append(preprocess(read_clip(path, scan(path), start, 8), 16))
                clips["label"].append(["ape", "bee"].index(name.parent.name))
                clips["text"].append(text)
                clips["stft"].append(sound_pictures(stft, start, 8))
                clips["smap"].append(preprocess_map(ids[start : start + 8, ..., None], 16, CLASSES))
    for name, of, shape, sizes in (
        ("codes", "vqgan", (4, 8, 8), {"resolution": 16}),
        ("stft", "sounds", (4, 16, 8), {"resolution": 64, "width": 16}),
        ("smap", "maps_vqgan", (2, 8, 8), {"resolution": 16, "of_maps": True}),
    ):
        seed = {"codes": 1, "stft": 2, "smap": 3}[name]
        clips[name] = coded(root / of, seed, torch.stack(clips[name]), shape, **sizes)
    for key in KEYS:
        gpt = tiny_gpt((2, 2, 2), key=key, n_codes=17, conditions=[part for part in PARTS if part[0] in key.split("+")])
        gpt.config = replace(gpt.config, bpe=PAIRS.json if "text" in key else None, label_names=["ape", "bee"])
        checkpoint.save(gpt.float(), root / key)
    return root, clips


def run(root, key, data="films", *flags):
    words = ["--nll", "--gpt_ckpt", root / key, "--vqgan_ckpt", root / "vqgan", "--data_path", root / data]
    words += ["--stft_vqgan_ckpt", root / "sounds"] if "stft" in key and data == "films" else []
    if "smap" in key and data == "films":
        words += ["--smap_vqgan_ckpt", root / "maps_vqgan", "--smap_path", root / "maps"]
    words += ["--device", "cpu", "--batch_size", 4, "--num_workers", 0, "--out", root / "nll.json", *flags]
    evaluate.main([str(word) for word in words])
    return json.loads((root / "nll.json").read_text())


def direct(root, key, clips, order):
    """Bits of every clip behind the condition of the clip that `order` names: float64 [B]."""
    gpt = checkpoint.load_transformer(root / key)
    given = {}
    for part in gpt.config.parts:
        row = clips[part.key]
        given[GIVEN[part.key]] = row[order] if torch.is_tensor(row) else [row[n] for n in order]
    with torch.no_grad():
        logits, _ = predict(gpt, condition(gpt.config, len(order), **given), clips["codes"])
    logits = logits[..., gpt.config.code_offset :].double()
    return cross_entropy(logits.transpose(1, 2), clips["codes"].flatten(1), reduction="none").sum(1) / math.log(2)


@pytest.mark.parametrize("key", KEYS)
def test_bits_behind_a_condition_equal_a_direct_computation(made, key):
    root, clips = made
    result = run(root, key, "films", "--nll_shuffled")
    bits = direct(root, key, clips, range(6))
    assert result["bits_per_code"] == pytest.approx(float(bits.mean() / 8), rel=1e-5)
    assert result["bits_per_dimension"] == pytest.approx(float(bits.mean()) / (8 * 16 * 16 * 3), rel=1e-5)
    other = direct(root, key, clips, others(6, 0))
    assert result["shuffled"]["bits_per_code"] == pytest.approx(float(other.mean() / 8), rel=1e-5)
    assert abs(float((other - bits).mean())) / 8 > 1e-3  # the condition counts
    for name, rows in {"ape": range(4), "bee": range(4, 6)}.items():
        mine = result["by"]["label"][name]
        assert mine["n_videos"] == len(rows)
        assert mine["bits_per_code"] == pytest.approx(float(bits[list(rows)].mean() / 8), rel=1e-5)
    if "text" in key:
        found = {word: score["bits_per_code"] for word, score in result["by"]["word"].items()}
        for word, rows in BY_WORD.items():
            if word in found:
                assert found[word] == pytest.approx(float(bits[rows].mean() / 8), rel=1e-5)
        assert {"red", "ape"} <= found.keys()


def test_shards_hold_all_that_the_condition_needs(made):
    root, clips = made
    flags = ["--vqgan_ckpt", root / "vqgan", "--stft_vqgan_ckpt", root / "sounds", "--data_path", root / "films"]
    flags += ["--smap_vqgan_ckpt", root / "maps_vqgan", "--smap_path", root / "maps", "--out", root / "codes"]
    flags += ["--sequence_length", 8, "--window_stride", 8, "--num_workers", 0, "--device", "cpu"]
    tokenize.main([str(flag) for flag in flags])
    result = run(root, KEYS[-1], "codes", "--vtokens")
    bits = direct(root, KEYS[-1], clips, range(6))
    assert result["n_videos"] == 6
    assert result["bits_per_code"] == pytest.approx(float(bits.mean() / 8), rel=1e-5)
