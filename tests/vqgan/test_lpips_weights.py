"""The perceptual distance finds its weights, or says in one line where they are."""

import argparse

import pytest
import torch
from reference_cases import Case

from tats.flags import UserError
from tats.vqgan.lpips_weights import heads, load_lpips

CASE = Case("vqgan_fullkeys")


def test_a_released_checkpoint_holds_them():
    lpips = load_lpips(CASE.file("vqgan.ckpt"))
    assert float(lpips.net.slice3[1].weight[0, 0, 0, 0]) == pytest.approx(0.01)
    assert not lpips.training and not any(p.requires_grad for p in lpips.parameters())


def test_vgg16_with_the_heads_of_torchmetrics(tmp_path):
    trunk = {f"features.{n}.{kind}": torch.zeros(1) for n in range(29) for kind in ("weight", "bias")}
    lpips = load_lpips(CASE.file("vqgan.ckpt"))
    for name, value in lpips.net.state_dict().items():
        trunk["features." + name.split(".", 1)[1]] = torch.full_like(value, 0.02)
    torch.save(trunk, tmp_path / "vgg16.pth")
    lpips = load_lpips(tmp_path / "vgg16.pth")
    assert float(lpips.net.slice5[5].bias[0]) == pytest.approx(0.02)
    assert torch.equal(lpips.lin4.model[1].weight, heads()["lin4.model.1.weight"])
    assert float(lpips.lin4.model[1].weight.max()) > 0


def test_without_a_file_the_addresses_are_named():
    with pytest.raises(UserError, match=r"--lpips_ckpt.*vgg16.*drive\.google\.com") as error:
        load_lpips(None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.zeros(1)}}, {"features.0.weight": torch.zeros(1)}, [1]])
def test_another_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="neither VGG16"):
        load_lpips(tmp_path / "other.ckpt")


def test_a_tiny_checkpoint_without_them_is_refused(tmp_path):
    with torch.serialization.safe_globals([argparse.Namespace]), pytest.raises(UserError, match="neither VGG16"):
        load_lpips(Case("vqgan_tiny").file("vqgan.ckpt"))
