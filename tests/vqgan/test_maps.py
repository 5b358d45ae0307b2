"""A VQGAN of semantic maps: it learns classes, its critics see maps, and what does not go with maps is refused."""

import numpy as np
import pytest
import torch

from tats import checkpoint
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.metrics_callback import vqgan_scores
from tats.score_config import ScoreConfig
from tats.video import preprocess_map
from tats.vqgan.config import VQGANConfig
from tats.vqgan.draws import Draws
from tats.vqgan.losses import map_accuracy, map_of, reconstruction
from tats.vqgan.pictures import coloured
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig
from tats.vqgan.train_setup import model_config

MODEL = VQGANConfig(8, 16, 8, (2, 4, 4), "batch")
CLIPS = DataConfig(data_path="maps", smap_cond=4, smap_only=True, sequence_length=4, resolution=16)
NO_CRITICS = VQGANTrainConfig(image_gan_weight=0, video_gan_weight=0)


def maps(n=2):
    """float [n, 4, 4, 16, 16]: quarters of four classes, which change places over time."""
    quarters = np.kron(np.array([[0, 1], [2, 3]]), np.ones((8, 8), int))
    frames = np.stack([(quarters + shift) % 4 for shift in (0, 0, 1, 1)]).astype(np.uint8)
    return torch.stack([preprocess_map(np.roll(frames, each, 0)[..., None], 16, 4) for each in range(n)])


def test_the_right_classes_cost_nothing_and_wrong_ones_much():
    video = maps()
    sure = video * 40
    assert reconstruction(NO_CRITICS, video, sure, of_maps=True) < 1e-6 and map_accuracy(video, sure) == 1
    wrong = sure.roll(1, 1)
    assert reconstruction(NO_CRITICS, video, wrong, of_maps=True) > 100 and map_accuracy(video, wrong) == 0
    even = reconstruction(NO_CRITICS, video, torch.zeros_like(video), of_maps=True)
    assert even == pytest.approx(4 * np.log(4))
    assert torch.allclose(map_of(sure), video, atol=1e-6)


def test_training_learns_the_classes():
    torch.manual_seed(0)
    config = model_config(MODEL, CLIPS, NO_CRITICS)
    assert config.of_maps and config.image_channels == 4
    module, video = VQGANTraining(config, NO_CRITICS, lr=3e-3), maps()
    (optimizer,) = module.configure_optimizers()
    losses = []
    for step in range(40):
        terms, rebuilt = module.generator_loss(video, Draws(0, step, 0))
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(float(terms.parts["recon_loss"].detach()))
    assert losses[-1] < 0.2 * losses[0] and map_accuracy(video, rebuilt) > 0.9


def test_critics_see_maps_and_not_scores():
    torch.manual_seed(0)
    training = VQGANTrainConfig(disc_channels=4, disc_layers=1, discriminator_iter_start=0, gan_feat_weight=1.0)
    module, seen = VQGANTraining(model_config(MODEL, CLIPS, training), training), []
    for critic in module.critics:
        critic.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    terms, rebuilt = module.generator_loss(maps(), Draws(0, 0, 0))
    module.critic_loss(maps(), Draws(0, 0, 1), rebuilt=rebuilt)
    assert terms.loss.isfinite() and len(seen) == 8
    assert all(float(each.min()) >= -0.5 and float(each.max()) <= 0.5 for each in seen)
    assert all(torch.allclose((each + 0.5).sum(1), torch.ones(())) for each in seen)


def test_the_checkpoint_says_that_channels_are_classes(tmp_path):
    module = VQGANTraining(model_config(MODEL, CLIPS, NO_CRITICS), NO_CRITICS)
    checkpoint.save(module.vqgan, tmp_path / "maps")
    assert checkpoint.load_vqgan(tmp_path / "maps").config == module.vqgan.config


def test_every_class_has_a_colour_of_its_own():
    ids = torch.arange(12).view(1, 12, 1, 1)
    shown = coloured(torch.nn.functional.one_hot(ids, 12).movedim(-1, 1).float())
    assert shown.shape == (1, 3, 12, 1, 1) and shown.abs().max() <= 0.5
    assert len({tuple(column) for column in shown[0, :, :, 0, 0].T.round(decimals=3).tolist()}) == 12


@pytest.mark.parametrize("training, words", [
    (VQGANTrainConfig(perceptual_weight=1.0), "--perceptual_weight compares pictures"),
    (VQGANTrainConfig(lpips_ckpt="lpips.pt"), "with --smap_only clips are maps"),
])  # fmt: skip
def test_pictures_are_not_asked_of_maps(training, words):
    with pytest.raises(UserError, match=words):
        model_config(MODEL, CLIPS, training)
    with pytest.raises(UserError, match="it learns semantic maps"):
        vqgan_scores(ScoreConfig(score_every=5, features_ckpt="judge.pt"), CLIPS, 0)
