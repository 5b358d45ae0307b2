"""Properties of VQGAN training that do not depend on the published numbers."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from vqgan_parts import formula_lpips

from tats.data import shapes
from tats.schedule import rate_factor
from tats.video import from_frames
from tats.vqgan.config import VQGANConfig
from tats.vqgan.losses import reconstruction
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

SMALL = {"n_codes": 32, "embedding_dim": 8, "downsample": (1, 2, 2), "resolution": 16, "sequence_length": 4}


def clips(count: int, resolution: int = 16, frames: int = 4) -> Tensor:
    """Videos of the embedded dataset, drawn in memory: [count, 3, frames, resolution, resolution]."""
    truths = [shapes.draw_truth(0, i, frames=frames) for i in range(count)]
    return from_frames(torch.from_numpy(shapes.render_many(truths, resolution)))


def training(model: dict | None = None, seed: int = 0, lr: float = 1e-3, **settings) -> VQGANTraining:
    """A small training; options of VQGANTraining stand under their own names among the settings of the losses."""
    options = {k: settings.pop(k) for k in ("accumulate", "clip", "lpips", "total_updates") if k in settings}
    torch.manual_seed(seed)
    config = VQGANTrainConfig(**{"disc_channels": 4, "disc_layers": 2, **settings})
    sizes = {"n_hiddens": 4, "norm_type": "batch", **SMALL, **(model or {})}
    return VQGANTraining(VQGANConfig(**sizes), config, lr=lr, **options)


def fit(module: VQGANTraining, batches: list[Tensor], epochs: int = 1, resume=None, **options) -> pl.Trainer:
    """Train on the same batches in every epoch."""
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([{"video": batch} for batch in batches], batch_size=None)
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return trainer


class Squares(nn.Module):
    """Stands in for the perceptual distance: it sees the random frames, and costs nothing."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3), keepdim=True)


def equal(a: VQGANTraining, b: VQGANTraining) -> bool:
    states = a.state_dict(), b.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_resumed_training_is_uninterrupted_training(tmp_path):
    batches = list(clips(12).split(4))
    settings = {"discriminator_iter_start": 4, "adam_betas": (0.5, 0.9)}
    whole = training(**settings)
    fit(whole, batches, epochs=2)
    first = training(**settings)
    fit(first, batches, epochs=1).save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    second = training(seed=1, **settings)  # everything must come from the file
    fit(second, batches, epochs=2, resume=tmp_path / "half.ckpt")
    assert second.updates == whole.updates == 6
    assert equal(second, whole)


def test_resuming_does_not_start_the_codebook_anew(tmp_path):
    first = training({"no_random_restart": True})
    fit(first, list(clips(8).split(4)), epochs=2).save_checkpoint(tmp_path / "c.ckpt", weights_only=False)
    codes = first.vqgan.codebook.embeddings.clone()
    second = training(seed=1, model={"no_random_restart": True}, lr=0.0)
    fit(second, list(clips(8).split(4)), epochs=3, resume=tmp_path / "c.ckpt")
    moved = (second.vqgan.codebook.embeddings - codes).norm() / codes.norm()
    assert second.vqgan.codebook.started and moved < 0.3  # a few moving averages of 1 %, not new codes


@pytest.mark.parametrize("restart", [False, True])
def test_accumulation_equals_the_large_batch(restart):
    torch.manual_seed(0)
    video = torch.rand(4, 3, 2, 8, 8).double() - 0.5  # no two patches alike: equal vectors make equal codes, and ties
    states = []
    for batches, accumulate in (([video, video], 1), ([*video.split(2), *video.split(2)], 2)):
        module = training(
            {"norm_type": "group", "n_hiddens": 16, "no_random_restart": not restart, "restart_thres": 3.0},
            accumulate=accumulate, clip=0.5, perceptual_weight=1.0, lpips=Squares(),
        )  # fmt: skip
        module.double()
        torch.manual_seed(0)
        module.vqgan.codebook.embeddings.normal_(std=0.3)
        module.vqgan.codebook.N.fill_(1.0)  # started: a first batch that is four times as large has other vectors
        module.vqgan.codebook.z_avg.copy_(module.vqgan.codebook.embeddings)
        fit(module, batches)
        assert module.updates == 2
        states.append({k: v for k, v in module.state_dict().items() if k.startswith("vqgan.")})
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-7, atol=1e-9, msg=key)


def test_a_short_group_at_the_end_of_an_epoch_makes_a_step():
    module = training(accumulate=2)
    fit(module, list(clips(6).split(2)), epochs=2)
    assert module.updates == 4


def test_without_weights_there_are_no_critics():
    module = training(image_gan_weight=0.0, video_gan_weight=0.0)
    trainer = fit(module, [clips(4)])
    assert module.critics is None and module.updates_per_step == 1 and trainer.global_step == 1
    assert not any("discriminator" in key for key in module.state_dict())


def test_critics_learn_only_once_they_count():
    module = training(discriminator_iter_start=1)
    before = [p.clone() for p in module.image_discriminator.parameters()]
    fit(module, [clips(4)])
    assert all(torch.equal(a, b) for a, b in zip(before, module.image_discriminator.parameters()))
    module = training(discriminator_iter_start=0)
    fit(module, [clips(4)])
    assert not all(torch.equal(a, b) for a, b in zip(before, module.image_discriminator.parameters()))


def test_one_shared_forward_moves_the_codebook_once():
    counts = []
    for shared in (False, True):
        module = training({"no_random_restart": True}, shared_forward=shared, lr=0.0)
        module.vqgan.codebook.N.fill_(100.0)
        fit(module, [clips(4)])
        counts.append(float(module.vqgan.codebook.N.sum()))
    vectors = 4 * 4 * 8 * 8
    once = 0.99 * 3200 + 0.01 * vectors
    assert counts[1] == pytest.approx(once, rel=1e-5)
    assert counts[0] == pytest.approx(0.99 * once + 0.01 * vectors, rel=1e-5)


def test_training_without_the_codebook_until_a_step_then_starting_it_from_clusters():
    module = training(vq_start_step=2, codebook_start="kmeans")
    batches = list(clips(8).split(4))
    fit(module, batches)
    assert not module.vqgan.codebook.started
    fit(module, batches, epochs=1)
    assert module.updates == 4 and module.vqgan.codebook.started
    assert float(module.vqgan.codebook.N.sum()) == pytest.approx(4 * 4 * 8 * 8, rel=0.2)  # counts, not ones


def test_clusters_are_better_than_random_vectors():
    video = clips(8)
    errors = []
    for start in ("data", "kmeans"):
        module = training({"n_codes": 8}, codebook_start=start)
        module.train()
        z = module.vqgan.features(video)
        module.vqgan.codebook(z)
        module.eval()
        errors.append(float(module.vqgan.codebook(z).commitment.detach()))
    assert errors[1] < 0.8 * errors[0]


def test_clusters_are_those_of_the_batches_before_the_start(monkeypatch):
    monkeypatch.setattr("tats.vqgan.codebook.GATHERED", 600)
    codebook = training({"n_codes": 8}, codebook_start="kmeans").vqgan.codebook
    batches = [z + 10 * i for i, z in enumerate(torch.randn(5, 1, codebook.embeddings.shape[1], 4, 8, 8).unbind())]
    for z in batches[:4]:
        codebook.skip(z)
    codebook(batches[4])  # 256 vectors each: of the four before it, the latest three hold 600
    assert not codebook._gathered and codebook.started
    means = codebook.embeddings.mean(1)
    assert all((means - 10 * i).abs().min() < 5 for i in (1, 2, 3, 4)) and (means - 0).abs().min() > 5
    assert float(codebook.N.sum()) == pytest.approx(256, rel=0.01)  # as many as one batch brings


def test_a_picture_that_flickers_is_worse_than_one_that_is_wrong_all_the_time():
    video = torch.zeros(1, 3, 8, 4, 4)
    wrong = torch.full_like(video, 0.1)
    flickering = wrong * torch.tensor([1.0, -1.0] * 4).view(1, 1, 8, 1, 1)
    losses = []
    for weight in (0.0, 2.0):
        config = VQGANTrainConfig(l1_weight=1, mse_weight=0, flicker_weight=weight)
        losses += [float(reconstruction(config, video, each)) for each in (wrong, flickering)]
    assert losses == pytest.approx([0.1, 0.1, 0.1, 0.1 + 2 * 0.2**2])
    one = torch.zeros(1, 3, 1, 4, 4)  # a single frame has no changes
    assert float(reconstruction(VQGANTrainConfig(l1_weight=0, flicker_weight=2), one, one + 0.1)) == 0


def test_random_frames_do_not_depend_on_batches_and_processes():
    module = training()
    whole = module.draws(0).frames(6, 100)
    module._seen = 4
    assert torch.equal(module.draws(0).frames(2, 100), whole[4:])
    assert not torch.equal(module.draws(1).frames(6, 100)[:2], whole[:2])


def test_learning_rate_rises_and_falls():
    assert [rate_factor(step, "constant", 4, 10) for step in (0, 3, 9)] == [0.25, 1.0, 1.0]
    cosine = [rate_factor(step, "cosine", 2, 10) for step in range(11)]
    assert cosine[0] == pytest.approx(0.5) and max(cosine) == cosine[1] and cosine[10] == pytest.approx(0, abs=1e-12)
    module = training(lr_schedule="cosine", total_updates=4)
    trainer = fit(module, list(clips(8).split(2)))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * rate_factor(3, "cosine", 0, 4))


def test_validation_logs_the_perceptual_distance_only_with_weights_for_it():
    for lpips, names in ((None, set()), (formula_lpips(), {"val/perceptual_loss"})):
        module = training(lpips=lpips)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        loader = torch.utils.data.DataLoader([{"video": clips(2)}], batch_size=None)
        (values,) = trainer.validate(module, loader, verbose=False)
        assert set(values) == {"val/recon_loss", "val/perplexity", "val/commitment_loss", "step"} | names
        assert all(np.isfinite(value) for value in values.values())


def test_checkpoint_names_what_it_holds(tmp_path):
    from tats import checkpoint

    module = training()
    fit(module, [clips(4)]).save_checkpoint(tmp_path / "c.ckpt", weights_only=False)
    loaded = checkpoint.load_vqgan(tmp_path / "c.ckpt")
    assert loaded.config == module.vqgan.config and loaded.codebook.started
    assert torch.equal(loaded.encode(clips(2)), module.eval().vqgan.encode(clips(2)))


def test_turning_the_critics_on_does_not_wreck_reconstructions():
    video = clips(64)
    sizes = {"n_hiddens": 8, "n_codes": 64, "embedding_dim": 8}
    shuffle = torch.Generator().manual_seed(0)
    batches = [video[torch.randperm(64, generator=shuffle)[:8]] for _ in range(120)]
    pixels = {"l1_weight": 1.0, "mse_weight": 30.0}
    alone = training(
        sizes, lr=4e-3, clip=1.0, total_updates=120, image_gan_weight=0.0, video_gan_weight=0.0, vq_start_step=30,
        codebook_start="kmeans", lr_schedule="cosine", adam_betas=(0.9, 0.99), **pixels,
    )  # fmt: skip
    fit(alone, batches)
    together = training(
        sizes, lr=1e-3, clip=1.0, discriminator_iter_start=0, disc_channels=8, image_gan_weight=0.1,
        video_gan_weight=0.1, gan_feat_weight=0.1, **pixels,
    )  # fmt: skip
    together.vqgan.load_state_dict(alone.vqgan.state_dict())
    before = distance(alone, video)
    fit(together, batches[:30])
    assert before < 0.4 * float((video + 0.5).square().mean())  # it has learnt more than that most pixels are black
    assert distance(together, video) < 1.3 * before


@torch.no_grad()
def distance(module: VQGANTraining, video: Tensor) -> float:
    """Mean squared difference of a reconstruction in evaluation mode."""
    rebuilt, _ = module.eval().vqgan(video)
    return float((rebuilt - video).square().mean())
