"""The perceptual distance finds its weights, or says in one line where they are."""

import argparse

import pytest
import torch
import torch.nn.functional as F
from reference_cases import Case

from tats.flags import UserError
from tats.metrics.quality import Quality
from tats.perceptual import open_perceptual
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


ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def alexnet(path) -> dict[str, torch.Tensor]:
    """A file with the names and shapes of AlexNet's, its classifier included."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.6.bias": torch.zeros(1000)}
    for number, (n_out, n_in, side) in ALEX.items():
        spread = (2 / (n_in * side * side)) ** 0.5
        state[f"features.{number}.weight"] = spread * torch.randn(n_out, n_in, side, side, generator=generator)
        state[f"features.{number}.bias"] = 0.1 * torch.randn(n_out, generator=generator)
    torch.save(state, path)
    return state


def test_alexnet_is_known_by_its_file_and_compares_five_layers(tmp_path):
    state = alexnet(tmp_path / "alexnet-owt-7be5be79.pth")
    lpips = load_lpips(tmp_path / "alexnet-owt-7be5be79.pth")
    assert lpips.trunk == "alex" and sum(p.numel() for p in lpips.net.parameters()) == 2_469_696
    a, b = torch.rand(2, 2, 3, 40, 36, generator=torch.Generator().manual_seed(1)) * 2 - 1
    shift = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]
    expected = torch.zeros(2)
    x, y = (a - shift) / scale, (b - shift) / scale
    for k, number in enumerate(ALEX):
        stride, padding = (4, 2) if number == 0 else (1, 2 if number == 3 else 1)
        if number in (3, 6):
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        x, y = (F.relu(F.conv2d(each, weight, bias, stride, padding)) for each in (x, y))
        unit = [each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in (x, y)]
        head = heads("alex")[f"lin{k}.model.1.weight"].view(1, -1, 1, 1)
        expected += ((unit[0] - unit[1]) ** 2 * head).sum(1).mean((1, 2))
    torch.testing.assert_close(lpips(a, b).flatten(), expected, rtol=1e-4, atol=1e-6)
    assert lpips(a, a).abs().max() == 0
    with pytest.raises(ValueError, match="at least 31 x 31, got 30 x 40"):
        lpips(torch.zeros(1, 3, 30, 40), torch.zeros(1, 3, 30, 40))


def test_as_a_score_it_sees_pixels_in_their_full_range(tmp_path):
    alexnet(tmp_path / "alexnet.pth")
    judge = open_perceptual(tmp_path / "alexnet.pth")
    a, b = torch.randint(256, (2, 2, 3, 33, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = judge.distance(a, b)
    assert found.shape == (2, 3) and found.dtype == torch.float64
    pictures = [2 * each[1, 2].permute(2, 0, 1)[None].float() / 255 - 1 for each in (a, b)]
    assert float(found[1, 2]) == pytest.approx(float(judge.network(*pictures)), rel=1e-4)
    quality = Quality(network=judge.network)
    quality.add(a[:1], b[:1])
    quality.add(a[1:], b[1:])
    assert quality.scores()["lpips"] == pytest.approx(float(found.mean()), rel=1e-6)
    assert judge.describe()["name"] == "LPIPS, AlexNet" and judge.describe()["file"] == "alexnet.pth"
    grey = torch.randint(256, (1, 2, 32, 32, 1), dtype=torch.uint8)
    assert not judge.distance(grey, grey).any()
