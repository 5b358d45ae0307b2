"""I3D: the reference case with weights made by a formula, and its weight files."""

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_cases import Case

from tats.flags import UserError
from tats.metrics.i3d import I3D, preprocess
from tats.metrics.networks import I3DFeatures

ENDPOINTS = 16
PARITY = Case("fvd_i3d")


def formula(key: str, shape: torch.Size) -> torch.Tensor:
    """The weights of the reference case: a hash of the key and the place, scaled by the kind of weight."""
    n = int(np.prod(shape))
    z = (np.uint64(zlib.crc32(key.encode())) << np.uint64(32)) + np.arange(1, n + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)) * 2.0**-24
    if key.endswith("conv3d.weight"):
        u = (2 * u - 1) * np.sqrt(6 / (n / shape[0]))
    elif key.endswith(("bn.weight", "running_var")):
        u = 0.75 + 0.5 * u
    else:
        u = 0.2 * (2 * u - 1)
    return torch.from_numpy(u.reshape(shape)).float()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    shapes = {key: torch.Size(shape) for key, shape in PARITY.meta["state_dict_keys"].items()}
    return {key: formula(key, shape) for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def network(weights, tmp_path_factory) -> I3D:
    path = tmp_path_factory.mktemp("i3d") / "i3d_pretrained_400.pt"
    torch.save(weights, path)
    return I3D.load(path)


def test_parameter_names_are_the_published_ones(network):
    names = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == {name for name in PARITY.meta["state_dict_keys"] if not name.endswith("num_batches_tracked")}


def test_every_endpoint_is_the_published_one(network):
    seen: list[torch.Tensor] = []
    features = I3DFeatures(network)  # holds a copy in which normalisations are folded into convolutions
    for name, child in features.module.named_children():
        if name != "logits":
            child.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.inference_mode():
        logits = features.features(torch.from_numpy(PARITY.inputs["videos_u8"]))
        PARITY.check("logits", network(preprocess(torch.from_numpy(PARITY.inputs["videos_u8"]))))
    assert len(seen) == ENDPOINTS
    PARITY.check("endpoint_shapes", [list(x.shape) for x in seen])
    PARITY.check("endpoint_mean_std", [[float(x.mean()), float(x.std())] for x in seen])
    PARITY.check("endpoint_samples", torch.stack([x.flatten()[:: max(1, x.numel() // 7)][:7] for x in seen]))
    PARITY.check("pooled_features", F.avg_pool3d(seen[-1], (2, 7, 7))[:, :, 0, 0, 0])
    PARITY.check("logits", logits)


def test_clips_that_are_too_short_are_refused(network):
    with pytest.raises(UserError, match="at least 9 frames, these have 8"):
        I3DFeatures(network).features(torch.zeros(1, 8, 16, 16, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least 9 frames of 224 x 224"):
        network(torch.zeros(1, 3, 16, 100, 224))


def test_weight_files_that_do_not_fit_are_refused(weights, tmp_path):
    lacking = {key: value for key, value in weights.items() if key != "Mixed_5c.b0.bn.weight"}
    for name, content, said in (
        ("other.pt", {"a": torch.zeros(1)}, "'logits.conv3d.weight' is missing"),
        ("lacking.pt", lacking, "missing .'Mixed_5c.b0.bn.weight'"),
    ):
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=said):
            I3D.load(tmp_path / name)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match="holds no I3D weights"):
        I3D.load(tmp_path / "text.pt")
    with pytest.raises(UserError, match="no I3D weights at"):
        I3D.load(tmp_path / "absent.pt")
