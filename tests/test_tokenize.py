"""`tats tokenize`, then a transformer that trains from its codes without decoding video."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from films import film_folders

from tats import checkpoint, tokenize
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.flags import UserError
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Films of two classes, a tiny VQGAN for them, and their codes."""
    root = tmp_path_factory.mktemp("codes")
    film_folders(root / "films", {"ape": 2, "bee": 2}, 12, codec="mpeg4")
    torch.manual_seed(0)
    clip = {"resolution": 16, "sequence_length": 8}
    vqgan = VQGAN(VQGANConfig(n_codes=32, embedding_dim=8, n_hiddens=16, downsample=(4, 8, 8), **clip)).eval()
    checkpoint.save(vqgan, root / "vqgan")
    flags = ["--vqgan_ckpt", str(root / "vqgan"), "--data_path", str(root / "films"), "--out", str(root / "codes")]
    tokenize.main(
        [
            *flags,
            "--sequence_length",
            "8",
            "--num_workers",
            "0",
            "--batch_size",
            "3",
            "--window_stride",
            "2",
            "--device",
            "cpu",
        ]
    )
    return root


def test_codes_are_those_of_the_clips(made):
    vqgan = checkpoint.load_vqgan(made / "vqgan")
    settings = {"sequence_length": 8, "resolution": 16, "num_workers": 0, "batch_size": 2}
    codes = VideoData(DataConfig(data_path=str(made / "codes"), vtokens=True, **settings), seed=0)
    pixels = VideoData(DataConfig(data_path=str(made / "films"), **settings), seed=0).source("train")
    index = codes.source("train").index
    assert index.start == [0, 2, 4] * 4 and codes.latent_shape == (2, 2, 2) and codes.label_names == ["ape", "bee"]
    batch = next(iter(codes.train_loader()))
    for at, clip, label in zip(batch["index"].tolist(), batch["video"], batch["label"].tolist(), strict=True):
        source = pixels.read(index.video[at], index.start[at], None)
        assert torch.equal(vqgan.encode(source["video"][None])[0], clip) and label == source["label"]


def test_codes_know_their_vqgan(made):
    data = VideoData(DataConfig(data_path=str(made / "codes"), vtokens=True), seed=0)
    data.need_vqgan(checkpoint.fingerprint(checkpoint.load_vqgan(made / "vqgan")))
    other = VQGAN(VQGANConfig(n_codes=32, embedding_dim=8, n_hiddens=16, downsample=(4, 8, 8))).eval()
    with pytest.raises(UserError, match="codes of another VQGAN"):
        data.need_vqgan(checkpoint.fingerprint(other))


def test_a_transformer_trains_from_codes_alone(made, tmp_path):
    shutil.copytree(made / "codes", tmp_path / "codes")  # no video within reach
    small = ["--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--block_size", "8", "--batch_size", "4"]
    where = ["--data_path", str(tmp_path / "codes"), "--vtokens", "--default_root_dir", str(tmp_path / "run")]
    command = [
        sys.executable,
        str(ROOT / "train_transformer.py"),
        *where,
        *small,
        "--num_workers",
        "0",
        "--max_steps",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").rglob("*.ckpt"))


def test_a_stride_below_one_is_refused():
    with pytest.raises(UserError, match="--window_stride counts frames, 1 or more, got 0"):
        tokenize.TokenizeConfig(vqgan_ckpt="v", out="o", window_stride=0)
