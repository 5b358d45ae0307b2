"""The VQGAN of sounds: its clips, its codes, its pictures in the log, and what cannot be trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tats.data.config import DataConfig
from tats.flags import UserError
from tats.metrics_callback import vqgan_scores
from tats.score_config import ScoreConfig
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN
from tats.vqgan.pictures import mosaic, unrolled
from tats.vqgan.train_config import VQGANTrainConfig
from tats.vqgan.train_setup import model_config, start

MODEL = VQGANConfig(n_codes=8, embedding_dim=4, n_hiddens=2, downsample=(4, 16, 16), norm_type="batch")
DATA = DataConfig(sequence_length=16, resolution=32, image_channels=3, stft_data=True)


@pytest.mark.parametrize(
    "downsample, codes", [((4, 16, 16), (4, 4, 1)), ((4, 8, 8), (4, 8, 2)), ((2, 64, 4), (8, 1, 4))]
)
def test_codes_of_a_clip_are_as_many_as_the_settings_say(downsample, codes):
    config = model_config(replace(MODEL, downsample=downsample), DATA, VQGANTrainConfig())
    assert (config.image_channels, config.resolution, config.width, config.of_sounds) == (1, 64, 16, True)
    assert config.latent_shape == codes
    assert VQGAN(config).eval().encode(torch.zeros(1, 1, 16, 64, 16)).shape == (1, *codes)


def test_sounds_are_not_thinned_out_with_the_video():
    thinned = DataConfig(sequence_length=16, sample_every_n_frames=4, stft_data=True)
    assert model_config(MODEL, thinned, VQGANTrainConfig()).latent_shape[0] == 4


@pytest.mark.parametrize("settings, model, words", [
    ({"sequence_length": 10}, {}, "--sequence_length 8"),
    ({}, {"downsample": (4, 8, 32)}, "reach up to 64 and 16"),
])  # fmt: skip
def test_sounds_that_do_not_divide_are_refused(settings, model, words):
    with pytest.raises(UserError, match=words):
        model_config(replace(MODEL, **model), replace(DATA, **settings), VQGANTrainConfig())


def test_a_vqgan_of_pictures_is_no_start_for_one_of_sounds(tmp_path):
    from tats import checkpoint

    checkpoint.save(VQGAN(MODEL), tmp_path / "pictures")
    with pytest.raises(UserError, match="takes 3 channels, the clips have 1"):
        model_config(MODEL, DATA, VQGANTrainConfig(init_from=str(tmp_path / "pictures")))


def test_a_start_takes_the_clips_of_its_new_run(tmp_path):
    from tats import checkpoint

    sounds = model_config(MODEL, DATA, VQGANTrainConfig())
    checkpoint.save(VQGAN(replace(sounds, width=None)), tmp_path / "released")  # as a released one is stored
    training = VQGANTrainConfig(init_from=str(tmp_path / "released"))
    again = start(training, model_config(MODEL, DATA, training))
    assert again is not None and again.config == sounds and again.latent_shape == (4, 4, 1)


def test_scores_of_videos_are_refused_while_sounds_are_trained():
    with pytest.raises(UserError, match="leave it out"):
        vqgan_scores(ScoreConfig(score_every=10, i3d_ckpt="x.pt"), DATA, 0)


def test_pictures_in_the_log_lie_side_by_side_with_low_notes_below():
    sound = torch.full((2, 1, 3, 64, 16), -1.0)
    sound[1, 0, 2, 0, 5] = 1.0  # the last frame, the lowest band
    made = mosaic(unrolled(sound), nrow=1)
    assert made.shape == (1, 66, 2 * 49 + 1, 3)  # a black line behind each
    assert np.argwhere(made[0, ..., 0] == 255).tolist() == [[63, 49 + 2 * 16 + 5]]
