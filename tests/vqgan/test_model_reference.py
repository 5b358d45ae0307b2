"""The whole VQGAN against the published system's own numbers: every padding, norm and shape."""

import pytest
import torch
from reference_cases import Case
from torch import Tensor
from vqgan_parts import formula_lpips, pixels

from tats import checkpoint
from tats.vqgan.losses import pick

CASES = ["tiny", "batchnorm", "groupnorm", "asym_reflect", "asym_constant", "fullkeys"]


def as_stored(case: Case, key: str, video: Tensor) -> Tensor:
    """The part of `video` that the case keeps: every second frame, or every fourth of the last clip."""
    halves = video[:, :, ::2]
    return halves if halves.shape == case.outputs[key].shape else video[-1:, :, ::4]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_model_is_the_published_one(name):
    case = Case(f"vqgan_{name}")
    vqgan = checkpoint.load_vqgan(case.file("vqgan.ckpt"))
    video = pixels(case.inputs["video_u8"])
    rebuilt, quantized = vqgan(video)
    frames = torch.from_numpy(case.inputs["frame_idx"])
    case.check("encoder", vqgan.encoder(video))
    case.check("pre_vq", vqgan.features(video))
    case.check("codes", vqgan.encode(video))
    case.check("quantized", quantized.embeddings)
    case.check("decoded_every2", as_stored(case, "decoded_every2", vqgan.decode(quantized.codes)))
    case.check("recon_last2", rebuilt[:1, :, -2:])
    case.check("frames_recon", pick(rebuilt, frames))
    case.check("val_recon_loss", case.meta["config"]["l1_weight"] * (rebuilt - video).abs().mean())
    case.check("val_commitment_loss", quantized.commitment)
    case.check("val_perplexity", quantized.perplexity)
    case.check("latent_shape", list(vqgan.latent_shape))
    case.check("decoded_random_codes", vqgan.decode(torch.from_numpy(case.inputs["random_codes"])))
    if "codes_long" in case.outputs:
        case.check("codes_long", vqgan.encode(pixels(case.inputs["video_long_u8"])))
    if "val_perceptual_loss" in case.outputs:
        distance = formula_lpips()(pick(video, frames), pick(rebuilt, frames))
        case.check("val_perceptual_loss", case.meta["config"]["perceptual_weight"] * distance)


def test_checkpoint_of_an_older_trainer_loads():
    case = Case("ckpt_legacy")
    checked = 0
    for path in sorted(case.path.glob("vqgan*.ckpt")):
        vqgan = checkpoint.load_vqgan(path)
        assert vqgan.codebook.started
        checked += 1
    assert checked
