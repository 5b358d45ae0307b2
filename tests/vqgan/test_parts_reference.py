"""Critics, perceptual distance and codebook against the published system's own numbers."""

import pytest
import torch
from reference_cases import Case
from torch import Tensor
from vqgan_parts import Recorded, formula_lpips, pixels

from tats import unpickle
from tats.vqgan.codebook import Codebook
from tats.vqgan.discriminator import Discriminator
from tats.vqgan.draws import Draws


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["image", "video"])
def test_critics_are_the_published_ones(mode, name):
    case = Case("discriminators")
    cfg = case.meta["config"]
    critic = Discriminator(
        {"image": 2, "video": 3}[name], cfg["image_channels"], cfg["disc_channels"], cfg["disc_layers"]
    )
    stored = unpickle.load(case.file("vqgan.ckpt"))["state_dict"]
    prefix = f"{name}_discriminator."
    critic.load_state_dict({k.removeprefix(prefix): v.clone() for k, v in stored.items() if k.startswith(prefix)})
    critic.train(mode == "train")
    video = pixels(case.inputs["video_u8"])
    logits, features = critic(video if name == "video" else video[:, :, int(case.inputs["frame"])])
    case.check(f"{mode}/{name}/logits", logits)
    for i, feature in enumerate(features[:-1]):
        case.check(f"{mode}/{name}/feat{i}", feature if feature.numel() < 1500 else feature[..., ::3])
    if mode == "train":
        for key, buffer in critic.named_buffers():
            if "num_batches" not in key:
                case.check(f"train/{name}/after/{key}", buffer)


def test_perceptual_distance_with_formula_weights():
    case = Case("lpips")
    lpips = formula_lpips().train()  # must not matter
    assert {k: list(v.shape) for k, v in lpips.state_dict().items()} == case.meta["state_dict_keys"]
    a, b = pixels(case.inputs["a_u8"]), pixels(case.inputs["b_u8"]).requires_grad_()
    distance = lpips(a, b)
    distance.mean().backward()
    case.check("lpips", distance)
    case.check("grad_b", b.grad)
    case.check("per_layer", torch.stack([term.flatten() for term in lpips.per_layer(a, b)], 1))
    for i, feature in enumerate(lpips.net(lpips.scaling_layer(a)), start=1):
        case.check(f"feat_a_slice{i}_mean_std", torch.stack([feature.mean(), feature.std()]))
    case.check("lpips_1channel", lpips(pixels(case.inputs["gray_a_u8"]), pixels(case.inputs["gray_b_u8"])))


def published_codebook(case: Case, restart: bool, start: bool = False) -> Codebook:
    cfg = case.meta["config"]
    codebook = Codebook(cfg["n_codes"], cfg["embedding_dim"], cfg["restart_thres"], restart=restart)
    codebook.load_state_dict({name: torch.from_numpy(case.inputs[name]) for name in ("embeddings", "N", "z_avg")})
    if start:
        codebook.reset()
    return codebook


def check_codebook(case: Case, name: str, codebook: Codebook, z: Tensor, draws: Draws) -> Tensor:
    quantized = codebook(z, draws)
    case.check(f"{name}/codes", quantized.codes)
    case.check(f"{name}/commitment_loss", quantized.commitment)
    case.check(f"{name}/perplexity", quantized.perplexity)
    if codebook.training:
        for key, buffer in codebook.state_dict().items():
            case.check(f"{name}/after/{key}", buffer)
    else:
        case.check(f"{name}/embeddings_st", quantized.embeddings)
    grad_out = torch.from_numpy(case.inputs["grad_out"])
    if z.requires_grad:
        ((quantized.embeddings * grad_out).sum() + 3 * quantized.commitment).backward()
        case.check(f"{name}/grad_z", z.grad)
    return quantized.embeddings


def test_codebook_in_evaluation_mode_only_looks_up():
    case = Case("codebook")
    codebook = published_codebook(case, restart=True, start=True).eval()
    before = {key: value.clone() for key, value in codebook.state_dict().items()}
    check_codebook(case, "eval", codebook, torch.from_numpy(case.inputs["z"]), Draws())
    assert all(torch.equal(before[key], value) for key, value in codebook.state_dict().items())


def test_codebook_follows_the_data():
    case = Case("codebook")
    codebook = published_codebook(case, restart=False)
    for name, z in (("ema_step1", "z"), ("ema_step2", "z2")):
        vectors = torch.from_numpy(case.inputs[z]).requires_grad_(f"{name}/grad_z" in case.outputs)
        check_codebook(case, name, codebook, vectors, Draws())


def test_codebook_gives_unused_codes_another_vector():
    case = Case("codebook")
    codebook = published_codebook(case, restart=True)
    for i, z in enumerate(("z", "z2")):
        draws = Recorded([case.inputs[f"perm{i}"]])
        check_codebook(case, f"restart_step{i + 1}", codebook, torch.from_numpy(case.inputs[z]), draws)


@pytest.mark.parametrize("name, restart", [("init_restart", True), ("init_norestart", False)])
def test_codebook_starts_from_data(name, restart):
    case = Case("codebook")
    codebook = published_codebook(case, restart, start=True)
    draws = Recorded([case.inputs["perm0"], case.inputs["perm1"]])
    check_codebook(case, name, codebook, torch.from_numpy(case.inputs["z"]), draws)
    if restart:
        case.check(f"{name}/need_init_after", not codebook.started)


@pytest.mark.parametrize("name, start", [("init_tile", True), ("restart_tile", False)])
def test_codebook_repeats_few_vectors_with_noise(name, start):
    case = Case("codebook")
    codebook = published_codebook(case, restart=True, start=start)
    permutations = [case.inputs["perm_tile0"], case.inputs["perm_tile1"]]
    noises = [case.inputs["tile_noise0"], case.inputs["tile_noise1"]]
    check_codebook(case, name, codebook, torch.from_numpy(case.inputs["z_small"]), Recorded(permutations, noises))
