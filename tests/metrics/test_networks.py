"""The published networks: names and arithmetic of the modules, files as they are, and where they are looked for."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats import weights
from tats.flags import UserError
from tats.metrics import c3d, inception, networks
from tats.metrics.c3d import C3D
from tats.metrics.inception import Inception
from tats.metrics.networks import open_file, open_named, open_network
from tats.metrics.scores import compute


class ScriptI3D(nn.Module):
    """Called as the published TorchScript file is; answers with what shows that everything arrived."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8 and rescale and resize and return_features
        return x.float().mean((3, 4)).flatten(1)[:, :4].repeat(1, 100)


class ScriptC3D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3, 4)).softmax(1)


class ScriptInception(nn.Module):
    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert x.dtype == torch.uint8 and x.dim() == 4
        means = x.float().mean((2, 3))
        return means.repeat(1, 4) if return_features else means.softmax(1)


class ScriptMotion(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4)), x.mean((1, 2, 3, 4))], 1)


class ScriptWhole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test sees the cache of the machine."""
    monkeypatch.setenv("TATS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def scripted(module: nn.Module, path) -> str:
    torch.jit.script(module).save(str(path))
    return str(path)


def frames(n: int = 3, length: int = 16, size: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, length, size, size + 4, 3), generator=generator, dtype=torch.uint8)


def test_the_torchscript_i3d_is_called_as_published(own_folders):
    scripted(ScriptI3D(), own_folders / "i3d_torchscript.pt")
    for network in (open_named("i3d-torchscript"), open_network(None, own_folders / "i3d_torchscript.pt")):
        found = network.features(frames())
        assert found.shape == (3, 400)
        torch.testing.assert_close(
            found[:, :4], frames().float().mean((2, 3))[:, :4, 0]
        )  # red of the first four frames
        said = network.describe()
        assert said["sha256"] == weights.sha256(own_folders / "i3d_torchscript.pt")
        assert said["torchscript"] and said["fingerprint"] == said["sha256"][:12] and network.scores == ("FVD", "KVD")
        with pytest.raises(UserError, match="FVD needs clips of at least 10 frames, these have 9"):
            network.features(frames(length=9))


def test_torchscript_classifiers_are_called_as_published(own_folders):
    clips = open_named("c3d-ucf101", scripted(ScriptC3D(), own_folders / "c3d_ucf101.pt"))
    assert clips.unit == "clip" and clips.probabilities(frames()).shape == (3, 3)
    with pytest.raises(UserError, match="C3D takes clips of 16 frames, these have 17"):
        clips.probabilities(frames(length=17))
    with pytest.raises(UserError, match="answers with classes only"):
        clips.features(frames())
    scripted(ScriptInception(), own_folders / "inception-2015-12-05.pt")
    pictures = open_named("inception-torchscript")
    assert pictures.unit == "frame"
    torch.testing.assert_close(pictures.features(frames())[17, :3], frames()[1, 1].float().mean((0, 1)))
    assert pictures.probabilities(frames()).shape == (48, 3)
    score = compute(frames(), frames(4), pictures)
    assert set(score) > {"FID", "KID"} and (score["n_generated"], score["n_real"]) == (48, 64)


def test_any_network_makes_a_score_of_its_own_name(own_folders):
    path = scripted(ScriptMotion(), own_folders / "motion.pt")
    ranges = {"levels": (0, 255), "unit": (0, 1), "signed": (-1, 1), "imagenet": (-2.118, 2.64)}
    full = frames()
    full[:, 0, 0, 0], full[:, 0, 0, 1] = 0, 255
    for pixels, (low, high) in ranges.items():
        network = open_file(path, pixels=pixels, size=None)
        found = network.features(full)
        torch.testing.assert_close(found[:, :2], torch.tensor([[low, high]]).float().expand(3, 2), atol=1e-3, rtol=0)
    assert network.scores == ("FD-motion", "KD-motion") and "not FVD" in network.title
    assert network.describe()["width"] == 3 and "imagenet" in network.describe()["frames"]
    assert open_file(path, size=8).features(full).shape == (3, 3)
    with pytest.raises(UserError, match="one row for each clip"):
        open_file(scripted(ScriptWhole(), own_folders / "whole.pt")).features(full)
    with pytest.raises(UserError, match=r"can't take float \[48, 3, 224, 224\] \(frames\)"):
        open_file(scripted(ScriptC3D(), own_folders / "other.pt"), unit="frame").features(full)
    with pytest.raises(UserError, match="levels, unit, signed, imagenet, got bgr"):
        open_file(path, pixels="bgr")


def test_a_missing_file_names_the_address_and_the_command(own_folders):
    for name, said in (
        ("i3d-torchscript", "tats weights get i3d-torchscript .*dropbox"),
        ("i3d-plain", "copy it from there"),
        ("c3d-ucf101", "--c3d_ckpt c3d-ucf101 has not been fetched.*dropbox"),
        ("inception-2015", "--inception_ckpt .*tats weights get inception-2015 .*github"),
        ("inception-torchscript", "nvlabs"),
    ):
        with pytest.raises(UserError, match=said) as error:
            open_named(name)
        assert "\n" not in str(error.value) and str(own_folders) in str(error.value)
    with pytest.raises(UserError, match="no network is called 'vgg'"):
        open_named("vgg")
    (own_folders / "text.pt").write_text("hello")
    for opened in (open_file, lambda path: open_named("i3d-plain", path)):
        with pytest.raises(UserError, match=r"is no TorchScript|holds no I3D weights"):
            opened(own_folders / "text.pt")


def test_a_file_that_is_not_what_its_name_says_is_refused(own_folders):
    path = own_folders / "pt_inception-2015-12-05-6726825d.pth"
    torch.save({"Mixed_7c.branch_pool.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(
        UserError, match=r"not the file of its name.*begins with 6726825d.*tats weights get inception-2015"
    ):
        open_named("inception-2015")


def slow_unit(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, padding=0) -> Tensor:
    """Convolution, batch normalisation and ReLU, written out from a state dict."""
    x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
    mean, var = (state[f"{name}.bn.{key}"][None, :, None, None] for key in ("running_mean", "running_var"))
    scale, shift = (state[f"{name}.bn.{key}"][None, :, None, None] for key in ("weight", "bias"))
    return ((x - mean) / torch.sqrt(var + 1e-3) * scale + shift).clamp(min=0)


def slow_average(x: Tensor) -> Tensor:
    """Means over 3 x 3 that do not count what lies outside."""
    return F.avg_pool2d(x, 3, 1, 1) * 9 / F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 1, 1)), 3, 1).mul(9)


@pytest.fixture(scope="module")
def seeded_inception() -> Inception:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Inception().eval()
        for name, value in network.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith("conv.weight"):
                value.normal_(0, math.sqrt(2 / value[0].numel()))
    return network


def test_inception_blocks_are_those_of_2015(seeded_inception):
    blocks, state = seeded_inception, seeded_inception.state_dict()
    generator = torch.Generator().manual_seed(1)

    def unit(block: str, branch: str, x: Tensor, stride: int = 1, padding=0) -> Tensor:
        return slow_unit(state, f"{block}.{branch}", x, stride, padding)

    with torch.inference_mode():
        x = torch.rand(1, 192, 7, 7, generator=generator)
        five = unit("Mixed_5b", "branch5x5_2", unit("Mixed_5b", "branch5x5_1", x), 1, 2)
        three = unit("Mixed_5b", "branch3x3dbl_2", unit("Mixed_5b", "branch3x3dbl_1", x), 1, 1)
        three = unit("Mixed_5b", "branch3x3dbl_3", three, 1, 1)
        expected = [unit("Mixed_5b", "branch1x1", x), five, three, unit("Mixed_5b", "branch_pool", slow_average(x))]
        torch.testing.assert_close(blocks.Mixed_5b(x), torch.cat(expected, 1), rtol=1e-3, atol=1e-4)

        x = torch.rand(1, 768, 8, 8, generator=generator)
        seven = unit("Mixed_6c", "branch7x7_2", unit("Mixed_6c", "branch7x7_1", x), 1, (0, 3))
        seven = unit("Mixed_6c", "branch7x7_3", seven, 1, (3, 0))
        double = unit("Mixed_6c", "branch7x7dbl_1", x)
        for number, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            double = unit("Mixed_6c", f"branch7x7dbl_{number}", double, 1, padding)
        expected = [unit("Mixed_6c", "branch1x1", x), seven, double, unit("Mixed_6c", "branch_pool", slow_average(x))]
        torch.testing.assert_close(blocks.Mixed_6c(x), torch.cat(expected, 1), rtol=1e-3, atol=1e-4)

        pools = {"Mixed_7b": (1280, slow_average), "Mixed_7c": (2048, lambda y: F.max_pool2d(y, 3, 1, 1))}
        for block, (n_in, pool) in pools.items():  # the last block alone pools by maximum
            x = torch.rand(1, n_in, 4, 4, generator=generator)
            last = unit(block, "branch_pool", pool(x))
            torch.testing.assert_close(getattr(blocks, block)(x)[:, -192:], last, rtol=1e-3, atol=1e-4)


def test_inception_has_the_names_of_its_file(seeded_inception, tmp_path):
    names = {name for name in seeded_inception.state_dict() if not name.endswith("num_batches_tracked")}
    assert len(names) == 94 * 5 + 2  # 94 convolutions with normalisation, and the classes
    assert {name.split(".")[0] for name in names} == {
        "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Mixed_5b", "Mixed_5c",
        "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c",
        "fc",
    }  # fmt: skip
    shapes = {
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7dbl_5.conv.weight": (192, 128, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.bn.running_var": (384,),
        "fc.weight": (1008, 2048),
    }
    state = seeded_inception.state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    path = tmp_path / "pt_inception.pth"
    torch.save({name: state[name] for name in names}, path)
    network = open_named("inception-2015", path)
    pictures = frames(1, 1, 40)
    found = network.features(pictures)
    assert found.shape == (1, 2048) and not network.describe()["torchscript"]
    torch.testing.assert_close(found, seeded_inception(inception.preprocess(pictures)))
    answers = network.probabilities(pictures)
    torch.testing.assert_close(answers, (found @ state["fc.weight"].T).softmax(1))  # the bias is left out
    torch.save({name: state[name] for name in names if name != "fc.bias"}, path)
    with pytest.raises(UserError, match=r"does not fit Inception: missing .'fc.bias'"):
        open_named("inception-2015", path)


def narrow(monkeypatch) -> None:
    """C3D with few channels: 512 become 2."""
    channels = {3: 3, 64: 2, 128: 2, 256: 2, 512: 2}
    thin = {name: (channels[a], channels[b]) for name, (a, b) in c3d.CONVOLUTIONS.items()}
    monkeypatch.setattr(c3d, "CONVOLUTIONS", thin)


@pytest.mark.parametrize("padded", [False, True])
def test_the_last_pool_of_c3d_runs_over_the_edge_or_is_padded(padded, monkeypatch):
    narrow(monkeypatch)
    monkeypatch.setattr(c3d.nn, "Linear", lambda n_in, n_out: nn.Identity())
    torch.manual_seed(0)
    network = C3D(101, padded).eval()
    seen: list[Tensor] = []
    network.conv5b.register_forward_hook(lambda _, __, out: seen.append(F.relu(out)))
    video = c3d.preprocess(frames(1))
    assert video.shape == (1, 3, 16, 112, 112)
    with torch.inference_mode():
        found = network.pooled(video).view(2, 4, 4)
    last = seen[0][0]  # [2, 2, 7, 7]
    assert last.shape == (2, 2, 7, 7)
    for row in range(4):
        for column in range(4):
            top, left = (max(0, 2 * k - padded) for k in (row, column))
            bottom, right = (min(7, 2 * k - padded + 2) for k in (row, column))
            assert torch.equal(found[:, row, column], last[:, :, top:bottom, left:right].amax((1, 2, 3)))
    assert (C3D.pooled.__doc__ or "").startswith("[B, 3, 16, 112, 112]")
    with pytest.raises(ValueError, match="16 frames of 112 x 112"):
        network.pooled(video[:, :, :8])


def test_c3d_sees_blue_first_less_the_mean_and_reads_both_names(monkeypatch, tmp_path):
    with torch.device("meta"):
        full = C3D()
    shapes = {name: tuple(value.shape) for name, value in full.state_dict().items()}
    assert shapes["conv1a.weight"] == (64, 3, 3, 3, 3) and shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    assert shapes["fc6.weight"] == (4096, 8192) and shapes["fc8.weight"] == (101, 4096)
    colours = frames(1)
    blue = F.interpolate(colours[0, :, :, :, 2].float()[:, None], (112, 112), mode="bilinear", align_corners=True)
    torch.testing.assert_close(c3d.preprocess(colours)[0, 0], blue[:, 0])
    narrow(monkeypatch)
    linear = nn.Linear
    monkeypatch.setattr(c3d.nn, "Linear", lambda n_in, n_out: linear(min(n_in, 32), min(n_out, 32)))
    torch.manual_seed(0)
    state = C3D(7).state_dict()
    torch.save({name: value for name, value in state.items() if name != "mean"}, tmp_path / "caffe.pt")
    short = {name.replace("conv1a", "conv1").replace("conv2a", "conv2"): value for name, value in state.items()}
    torch.save(short | {"mean": torch.zeros(3, 16, 112, 112)}, tmp_path / "sports.pt")
    caffe = open_named("c3d-ucf101", tmp_path / "caffe.pt")
    sports = open_named("c3d-ucf101", tmp_path / "sports.pt")
    assert not caffe.module.padded and sports.module.padded
    assert caffe.module.mean.flatten().tolist() == pytest.approx(c3d.MEAN) and not sports.module.mean.any()
    answers = caffe.probabilities(frames(2))
    torch.testing.assert_close(answers.sum(1), torch.ones(2))
    assert caffe.features(frames(2)).shape == (2, 32)
    assert not torch.allclose(answers, sports.probabilities(frames(2)))


def test_networks_of_the_registry_say_where_they_come_from_and_what_they_take():
    from tats.released import ALL

    for name in ("i3d-plain", "i3d-torchscript", "c3d-ucf101", "inception-2015", "inception-torchscript"):
        assert ALL[name].takes and ALL[name].licence, name
    assert networks.PIXELS[0] == "levels"
