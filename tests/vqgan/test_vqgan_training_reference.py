"""Both players' training steps against the published system's own numbers."""

import pytest
import pytorch_lightning as pl
import torch
from reference_cases import Case
from torch import Tensor
from vqgan_parts import Recorded, formula_lpips, pixels

from tats import checkpoint, flags, unpickle
from tats.trainer_config import vqgan_rate
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import CRITIC, GENERATOR, VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

CASE = Case("vqgan_trainstep")
MODULES = ("encoder", "decoder", "pre_vq_conv", "post_vq_conv", "image_discriminator", "video_discriminator")


def build(overrides: dict, **options) -> VQGANTraining:
    """The training state of the case's checkpoint under the settings of one variant."""
    stored = unpickle.load(CASE.file("vqgan.ckpt"))
    settings = {**vars(stored["hyper_parameters"]["args"]), **overrides}
    fields = VQGANTrainConfig.__dataclass_fields__
    config = flags.from_dict(VQGANTrainConfig, {k: v for k, v in settings.items() if k in fields})
    model = checkpoint.load_vqgan(CASE.file("vqgan.ckpt")).config
    restart = {k: settings[k] for k in ("no_random_restart", "restart_thres")}
    model = flags.from_dict(type(model), {**flags.to_dict(model), **restart})
    training = VQGANTraining(model, config, lpips=formula_lpips() if config.perceptual_weight else None, **options)
    critics = ("image_discriminator.", "video_discriminator.")
    state = {k if k.startswith(critics) else f"vqgan.{k}": v.clone() for k, v in stored["state_dict"].items()}
    training.load_state_dict(state)
    return training.train()


def named(training: VQGANTraining, key: str) -> Tensor:
    """A tensor of the training state by its published name."""
    state = {**training.state_dict(), **dict(training.named_parameters())}
    return state[key] if key in state else state[f"vqgan.{key}"]


def norm(tensors: list[Tensor | None]) -> Tensor:
    present = [t.double().pow(2).sum() for t in tensors if t is not None]
    return torch.stack(present).sum().sqrt().float() if present else torch.zeros(())


def check_player(variant: str, player: str, training: VQGANTraining, parts: dict[str, Tensor], loss: Tensor) -> None:
    """Loss, its logged parts, and the gradients: of every module, of every parameter, and of some in full."""
    if loss.requires_grad:
        loss.backward()
    prefix = f"{variant}/{player}/"
    CASE.check(f"{prefix}loss", loss)
    for name, value in parts.items():
        CASE.check(prefix + name, value)
    names = CASE.meta["param_names"]
    grads = {name: named(training, name).grad for name in names}
    for module in MODULES:
        CASE.check(f"{prefix}gradnorm/{module}", norm([grads[n] for n in names if n.startswith(module)]))
    CASE.check(f"{prefix}gradnorm_per_param", torch.stack([norm([grads[name]]) for name in names]))
    for key in CASE.outputs:
        if key.startswith(f"{prefix}grad/"):
            CASE.check(key, grads[key.removeprefix(f"{prefix}grad/")])
    if f"{prefix}bn_after_sum" in CASE.outputs:
        buffers = [named(training, name) for name in CASE.meta["bn_names"]]
        CASE.check(f"{prefix}bn_after_sum", torch.stack([b.sum() for b in buffers]))
        CASE.check(f"{prefix}bn_after_norm", torch.stack([b.norm() for b in buffers]))


def variant_of(name: str) -> tuple[VQGANTraining, list]:
    variant = CASE.meta["variants"][name]
    training = build(variant["args_override"])
    training.updates = variant["global_step"]
    permutations = [CASE.inputs["perm0"], CASE.inputs["perm1"]]
    if variant["codebook_need_init"]:
        training.vqgan.codebook.reset()
    return training, permutations


@pytest.mark.parametrize("name", list(CASE.meta["variants"]))
def test_generator_step(name):
    training, permutations = variant_of(name)
    video = pixels(CASE.inputs["video_u8"])
    terms, rebuilt = training.generator_loss(video, Recorded(permutations, frames=CASE.inputs["frame_idx_gen"]))
    features = terms.parts["image_gan_feat_loss"] + terms.parts["video_gan_feat_loss"]
    returned = {
        "ret_aeloss": terms.parts["aeloss"],
        "ret_gan_feat_loss": training.factor * training.config.gan_feat_weight * features,
    }
    check_player(name, "gen", training, {**terms.parts, **returned}, terms.loss)
    for key, buffer in training.vqgan.codebook.state_dict().items():
        CASE.check(f"{name}/gen/codebook_after/{key}", buffer)
    if f"{name}/gen/x_recon_sample0_frame_last" in CASE.outputs:
        CASE.check(f"{name}/gen/x_recon_sample0_frame_last", rebuilt[0, :, -1])


@pytest.mark.parametrize("name", list(CASE.meta["variants"]))
def test_codes_of_the_generator_step(name):
    training, permutations = variant_of(name)
    _, quantized = training.vqgan(pixels(CASE.inputs["video_u8"]), Recorded(permutations))
    CASE.check(f"{name}/gen/codes", quantized.codes)


@pytest.mark.parametrize("name", list(CASE.meta["variants"]))
def test_critic_step(name):
    training, permutations = variant_of(name)
    draws = Recorded(permutations, frames=CASE.inputs["frame_idx_disc"])
    terms = training.critic_loss(pixels(CASE.inputs["video_u8"]), draws)
    check_player(name, "disc", training, terms.parts, terms.loss)


class TwoBatches(VQGANTraining):
    """Training with the published frames; notes each player's loss and gradient before clipping."""

    def draws(self, player):
        return Recorded(frames=CASE.inputs["frame_idx_seq"][2 * self.updates + player])

    def move(self, player):
        grads = [p.grad for p in self.players()[player]]
        CASE.check(f"two_batches/b{self.updates}_opt{player}/gradnorm_before_clip", norm(grads))
        super().move(player)

    def generator_loss(self, *args, **kwargs):
        terms, rebuilt = super().generator_loss(*args, **kwargs)
        CASE.check(f"two_batches/b{self.updates}_opt{GENERATOR}/loss", terms.loss)
        return terms, rebuilt

    def critic_loss(self, *args, **kwargs):
        terms = super().critic_loss(*args, **kwargs)
        CASE.check(f"two_batches/b{self.updates}_opt{CRITIC}/loss", terms.loss)
        return terms


def test_two_batches_of_training(tmp_path):
    overrides = {
        "discriminator_iter_start": 1,
        "perceptual_weight": 4.0,
        "gan_feat_weight": 4.0,
        "no_random_restart": True,
        "lr": 1e-3,
    }
    training = build(overrides, clip=1.0)
    training.__class__ = TwoBatches
    batches = [{"video": pixels(CASE.inputs[name])} for name in ("video_u8", "video2_u8")]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(training, torch.utils.data.DataLoader(batches, batch_size=None))
    assert training.updates == 2
    for key, buffer in training.vqgan.codebook.state_dict().items():
        CASE.check(f"two_batches/codebook_after/{key}", buffer)
    keys = CASE.meta["fingerprint_keys"]
    rows = []
    for key in keys:
        x = named(training, key).detach().double().flatten()
        rows.append(torch.stack([x.sum(), x.norm(), x[0], x[-1]]))
    CASE.check("two_batches/state_fingerprint", torch.stack(rows))


def test_optimizers_hold_the_published_parameters_in_the_published_order():
    case = Case("optimizer")
    config = VQGANTrainConfig(disc_layers=1, disc_channels=2, lr=3e-5)
    model = VQGANConfig(n_hiddens=2, n_codes=8, embedding_dim=4, downsample=(2, 2, 2), norm_type="batch")
    training = VQGANTraining(model, config)
    names = {id(p): name.removeprefix("vqgan.") for name, p in training.named_parameters()}
    found = []
    for optimizer in training.configure_optimizers():
        (group,) = optimizer.param_groups
        settings = {key: group[key] for key in ("lr", "eps", "weight_decay")}
        parameters = [names[id(p)] for p in group["params"]]
        found.append({"type": type(optimizer).__name__, **settings, "betas": [*group["betas"]], "params": parameters})
    case.check_fact("vqgan", found, case.meta["expected"]["vqgan"]["optimizers"])


def test_learning_rate_follows_the_published_rule():
    case = Case("optimizer")
    for accumulate, gpus, batch_size, base, result in case.meta["lr_examples"]["vqgan"]:
        rate, factors = vqgan_rate(base, batch_size, accumulate or 1, gpus)
        if accumulate is None:  # where the published script fails, nothing is accumulated
            result = gpus / 8 * batch_size / 4 * base
        assert f"{rate:.3g}" in factors
        case.check_fact(f"vqgan lr {accumulate} {gpus} {batch_size} {base}", rate, pytest.approx(result, rel=1e-12))
