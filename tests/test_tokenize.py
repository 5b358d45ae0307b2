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
from tats.reader import read_all
from tats.video import preprocess
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


def test_whole_films_become_one_clip_of_codes_each(made, tmp_path, capsys):
    """Films of different lengths, tail frames that fill no latent frame, and windows cut from them in training."""
    film_folders(tmp_path / "films", {"ape": 2}, 13, codec="mpeg4")
    film_folders(tmp_path / "films", {"bee": 1}, 22, codec="mpeg4")
    torch.manual_seed(1)
    config = VQGANConfig(8, 32, 4, (4, 8, 8), "batch", resolution=16, sequence_length=8)
    vqgan = VQGAN(config).eval()
    checkpoint.save(vqgan, tmp_path / "vqgan")
    flags = ["--vqgan_ckpt", str(tmp_path / "vqgan"), "--data_path", str(tmp_path / "films"), "--device", "cpu"]
    tokenize.main([*flags, "--out", str(tmp_path / "codes"), "--whole", "--num_workers", "0"])
    settings = {
        "resolution": 16,
        "num_workers": 0,
        "batch_size": 2,
        "vtokens": True,
        "data_path": str(tmp_path / "codes"),
    }
    source = VideoData(DataConfig(**settings, latent_frames=3), seed=0).source("train")
    assert sorted(set(source.index.lengths)) == [3, 5] and set(source.clips) == {1}
    for clip, name in enumerate(source.index.videos):
        frames = torch.stack([torch.from_numpy(frame) for frame in read_all(tmp_path / "films" / "train" / name)])
        whole = vqgan.encode(preprocess(frames.numpy(), 16)[None])[0]
        assert torch.equal(source.last_frames(clip, source.index.lengths[clip]), whole)
        start = int(source.starts[clip]) - 1
        assert torch.equal(source.read(clip, start, None)["video"], whole[start:])
    assert VideoData(DataConfig(**settings), seed=0).latent_shape == (2, 2, 2)  # what the VQGAN was trained on
    batch = next(iter(VideoData(DataConfig(**settings, latent_frames=4), seed=0).train_loader(1)))
    assert batch["video"].shape[1:] == (4, 2, 2) and "shorter than 4 latent frames" in capsys.readouterr().err
    tokenize.main([*flags, "--out", str(tmp_path / "codes"), "--whole", "--num_workers", "0"])
    assert "these codes are there already" in capsys.readouterr().err


def test_group_norm_and_whole_films_need_a_word(made, tmp_path):
    flags = ["--vqgan_ckpt", str(made / "vqgan"), "--data_path", str(made / "films"), "--device", "cpu", "--whole"]
    with pytest.raises(UserError, match="--decode_group_norm_in_pieces"):
        tokenize.main([*flags, "--out", str(tmp_path / "codes")])
    assert not (tmp_path / "codes" / "train" / "index.json").exists()
    tokenize.main([*flags, "--out", str(tmp_path / "codes"), "--decode_group_norm_in_pieces"])
    assert (tmp_path / "codes" / "test" / "index.json").exists()


@pytest.mark.parametrize("every, picture", [(1, False), (3, False), (2, True)])
def test_all_frames_of_a_video_come_in_order(every, picture):
    from tats.data.tokenize import whole_video

    class Numbers:
        """A source whose frames are their numbers."""

        def __init__(self, frames):
            self.config = DataConfig(sequence_length=4 if picture else 4 * every, sample_every_n_frames=every, image_folder=picture)  # fmt: skip  # noqa: E501
            self.starts = [frames - self.config.span + 1]

        def read(self, video, start, draw):
            frames = torch.arange(start, start + self.config.span, every)
            return {"video": frames.view(1, -1, 1, 1).float()}

    for frames in range(Numbers(100).config.span, 40):
        found = torch.cat(list(whole_video(Numbers(frames), 0)), 1).flatten().tolist()
        complete = frames if picture else frames // every * every  # the last frame of a stride may be without a window
        assert found == list(range(0, complete, every))


def test_whole_films_have_no_windows():
    with pytest.raises(UserError, match="--whole encodes videos from end to end"):
        tokenize.TokenizeConfig(vqgan_ckpt="v", out="o", whole=True, window_stride=2)
    with pytest.raises(UserError, match="--whole"):
        tokenize.TokenizeConfig(vqgan_ckpt="v", out="o", decode_group_norm_in_pieces=True)


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
