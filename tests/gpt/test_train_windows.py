"""Windows that transformers are trained on: coarse ones, those with frames to fill in, crops of larger pictures."""

import sys

import numpy as np
import pytest
import torch
from code_parts import config_of, random_codes, write

import tats
from tats import checkpoint
from tats.data.codes import CodeShards
from tats.data.config import DataConfig
from tats.data.loader import Clips
from tats.data.module import VideoData
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.gpt.train_setup import Frozen, fit_to_data, start
from train_transformer import main

SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 0}


def long_clips(folder, shape=(13, 2, 2)):
    """Clips whose code tells where it stands: 37 codes, the same in no two frames of a clip that lie close."""
    t, h, w = shape
    codes = torch.arange(t * h * w).view(shape).expand(6, *shape) % 37
    for split in ("train", "test"):
        write(folder, codes, n_codes=37, split=split)
    return folder


def module_of(folder, latent_frames=None, training=None, **flags):
    """Data and module as train_transformer.py makes them."""
    config = GPTConfig(**{**SMALL, **flags})
    data = VideoData(config_of(folder, latent_frames=latent_frames, **CROP), seed=0, crop_codes=config.vtokens_pos)
    fitted, remarks = fit_to_data(config, GPTTrainConfig(), data, Frozen(None, None))
    gpt = start(fitted, GPTTrainConfig(), None, 0)
    return GPTTraining(gpt, training or GPTTrainConfig(), 1e-2), data, remarks


CROP = {"spatial_length": 2}


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_coarse_model_sees_latent_frames_that_stand_apart(tmp_path, step):
    module, data, _ = module_of(long_clips(tmp_path), 2 * step, sample_every_n_latent_frames=step)
    assert module.gpt.config.latent_shape == (2, 2, 2) and module.gpt.config.block_size == 8
    begun = set()
    for _ in range(4):
        for batch in data.train_loader():
            codes = module.codes(batch)
            assert codes.shape == (4, 2, 2, 2)
            assert ((codes[:, 1] - codes[:, 0]) % 37 == 4 * step % 37).all()  # four codes a frame
            begun |= set(codes[:, 0, 0, 0].tolist())
            assert module.step(batch)[0].isfinite()
    assert len(begun) > 1


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("loss_on", ["new", "all"])
def test_a_model_between_learns_the_frames_between_whatever_their_number(tmp_path, step, loss_on):
    training = GPTTrainConfig(loss_on=loss_on)
    module, data, _ = module_of(long_clips(tmp_path), step + 1, training, n_unmasked=4)
    assert module.gpt.config.latent_shape == (step + 1, 2, 2)
    batch = next(iter(data.train_loader()))
    value = module.step(batch)[0]
    value.backward()
    rows = module.gpt.pos_emb.grad[0].abs().sum(1) > 0
    unseen = [4 * step] if loss_on == "new" else []  # the last new code: nothing that counts comes after it
    assert (~rows).nonzero().flatten().tolist() == unseen  # all others are seen, anchors too
    other = {**batch, "video": batch["video"].clone()}
    other["video"][:, -1, -1, -1] = (other["video"][:, -1, -1, -1] + 1) % 37  # the one code that nothing sees
    assert torch.equal(module.step(other)[0], value) == (loss_on == "new")


def test_both_models_of_a_pair_and_a_wide_one_train_from_one_folder_of_codes(tmp_path, monkeypatch):
    codes = long_clips(tmp_path / "codes", (13, 4, 4))
    common = f"train_transformer.py --vtokens --data_path {codes} --n_layer 1 --n_head 2 --n_embd 8 --block_size 0"
    common += " --batch_size 2 --num_workers 0 --max_steps 2 --lr 0.01 --limit_val_batches 1 --device cpu"
    common += " --no_enable_progress_bar --no_enable_model_summary"
    kinds = {
        "coarse": "--latent_frames 6 --sample_every_n_latent_frames 3",
        "between": "--latent_frames 4 --n_unmasked 16",
        "wide": "--latent_frames 2 --vtokens_pos --spatial_length 2",
    }
    models = {}
    for name, flags in kinds.items():
        monkeypatch.setattr(sys, "argv", f"{common} {flags} --default_root_dir {tmp_path / name}".split())
        main()
        models[name] = checkpoint.load_transformer(tmp_path / name / "version_0" / "checkpoints" / "last.ckpt")
    hierarchical = tats.sample_hierarchical_codes(models["coarse"], models["between"], 7, label=1, seeds=[0, 1])
    assert torch.stack(list(hierarchical), 1).shape == (2, 7, 4, 4)
    wide = models["wide"]
    assert wide.config.latent_shape == (2, 2, 2) and wide.config.places_shape == (2, 4, 4)
    assert wide.vtokens_pos_emb[:, :, 2:, 2:].abs().max() > 0  # places that the first crop does not show are learned
    frames = list(tats.sample_wide_codes(wide, 3, (4, 4), label=1, seeds=[0, 1]))
    assert [tuple(frame.shape) for frame in frames] == [(2, 4, 4)] * 3


def test_crops_teach_the_places_they_show_and_no_other(tmp_path):
    module, data, remarks = module_of(long_clips(tmp_path, (3, 4, 5)), 2, vtokens_pos=True)
    assert module.gpt.config.places_shape == (2, 5, 5) and not remarks
    batch = next(iter(data.train_loader(batch_size=1)))
    module.step(batch)[0].backward()
    y0, y1, x0, x1 = batch["cbox"][0].tolist()
    assert (y1 - y0, x1 - x0) == (2, 2)
    taught = module.gpt.vtokens_pos_emb.grad[0].abs().sum(-1) > 0
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[:, y0:y1, x0:x1] = True
    assert torch.equal(taught, expected)


def test_a_table_of_places_without_crops_is_told(tmp_path):
    module, _, remarks = module_of(long_clips(tmp_path), 2, vtokens_pos=True)
    assert module.gpt.config.places_shape == (2, 2, 2)
    assert len(remarks) == 1 and "whole 2x2 codes" in remarks[0]


def test_windows_of_shards_are_parts_of_the_stored_clips(tmp_path):
    codes = random_codes(9, shape=(7, 5, 4))
    config = config_of(write(tmp_path, codes), latent_frames=3, spatial_length=2)
    clips = Clips(CodeShards(config, "train", crop=True), seed=3, train=True)
    assert len(clips) == 18  # two windows of three frames lie side by side in seven
    seen = set()
    places = [(turn, index) for turn in range(5) for index in range(18)]
    batch = clips.__getitems__(places)
    for row, place in enumerate(places):
        video, begin = clips.window(place)
        y0, y1, x0, x1 = batch["cbox"][row].tolist()
        assert torch.equal(batch["video"][row], codes[video, begin : begin + 3, y0:y1, x0:x1])
        alone = clips[place]  # a clip depends on seed, pass and index, not on its batch
        assert torch.equal(alone["video"], batch["video"][row]) and alone["cbox"].tolist() == [y0, y1, x0, x1]
        assert (y1 - y0, x1 - x0, alone["label"]) == (2, 2, video % 3)
        seen.add((begin, y0, x0))
    assert {begin for begin, _, _ in seen} == set(range(5))
    assert {(y0, x0) for _, y0, x0 in seen} == {(y, x) for y in range(4) for x in range(3)}


def test_windows_for_testing_stand_side_by_side(tmp_path):
    codes = random_codes(2, shape=(7, 2, 2))
    config = config_of(write(tmp_path, codes, split="test"), latent_frames=3)
    clips = Clips(CodeShards(config, "test"), seed=0, train=False)
    found = clips.__getitems__([(0, index) for index in range(4)])["video"]
    assert torch.equal(found, torch.cat([codes[:, :3], codes[:, 3:6]], 1).view(4, 3, 2, 2))


def test_windows_that_are_longer_than_the_clips_are_refused(tmp_path):
    folder = write(tmp_path, random_codes(shape=(4, 3, 3)))
    with pytest.raises(UserError, match=r"--latent_frames 5 is more than the 4 latent frames .* take 1 to 4"):
        CodeShards(config_of(folder, latent_frames=5), "train")
    with pytest.raises(UserError, match="--latent_frames must be at least 1, got 0"):
        DataConfig(latent_frames=0)
    shape = CodeShards(config_of(folder, spatial_length=99), "train", crop=True).latent_shape
    assert shape == (4, 3, 3) and np.prod(shape) == 36


@pytest.mark.parametrize(
    "latent_frames, flags, words",
    [
        (5, {"n_unmasked": 3}, r"--n_unmasked 3 .* the 4 codes of one latent frame, .* at least 3 .*\(here 5\)"),
        (2, {"n_unmasked": 4}, r"--n_unmasked 4 .* at least 3 latent frames \(here 2\)"),
        (5, {"n_unmasked": 4, "block_size": 16}, r"--block_size 16 does not fit: a window has 20 positions .* 5x2x2"),
        (6, {"sample_every_n_latent_frames": 3, "block_size": 7}, r"--block_size 7 .* 8 positions .* 2x2x2 codes"),
    ],
)
def test_a_mask_that_does_not_fit_the_window_is_refused_with_its_numbers(tmp_path, latent_frames, flags, words):
    with pytest.raises(UserError, match=words):
        module_of(long_clips(tmp_path), latent_frames, **flags)


@pytest.mark.parametrize("anchors", [0, 4])
def test_coarse_and_between_start_from_a_model_that_continues_videos(tmp_path, anchors):
    folder = long_clips(tmp_path / "codes")
    module, _, _ = module_of(folder, 4)
    checkpoint.save(module.gpt, tmp_path / "gpt")
    flags = GPTTrainConfig(init_from=str(tmp_path / "gpt"))
    data = VideoData(config_of(folder, latent_frames=4), seed=0)
    fitted, _ = fit_to_data(GPTConfig(**SMALL, n_unmasked=anchors), flags, data, Frozen(None, None))
    gpt = start(fitted, flags, None, 0)
    assert gpt.config.n_unmasked == anchors
    assert all(torch.equal(a, b) for a, b in zip(gpt.parameters(), module.gpt.parameters(), strict=True))
