"""VideoMAE: its arithmetic written out slowly, the names of its file, and networks of one's own beside it."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats.flags import UserError
from tats.metrics import videomae
from tats.metrics.networks import open_named, open_network
from tats.metrics.videomae import VideoMAE, places


@pytest.fixture
def tiny(monkeypatch) -> VideoMAE:
    """Two heads of four channels, over pictures of 8 x 8."""
    monkeypatch.setattr(videomae, "SIZE", 8)
    monkeypatch.setattr(videomae, "HEAD_WIDTH", 4)
    torch.manual_seed(0)
    network = VideoMAE(8, 2, 12, 4, 3).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(0, 0.5)
    return network


def frames(n: int = 2, length: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, length, 10, 12, 3), generator=generator, dtype=torch.uint8)


def slow(state: dict[str, Tensor], clip: Tensor) -> Tensor:
    """Features of one clip [3, 16, 8, 8], token by token and head by head."""
    tokens = []
    for t in range(0, 16, 2):
        for y in range(0, 8, 4):
            for x in range(0, 8, 4):
                box = clip[:, t : t + 2, y : y + 4, x : x + 4]
                tokens.append(
                    (state["patch_embed.proj.weight"] * box).sum((1, 2, 3, 4)) + state["patch_embed.proj.bias"]
                )
    for number, token in enumerate(tokens):
        for j in range(8):
            angle = number / 10000 ** (2 * (j // 2) / 8)
            token[j] += math.sin(angle) if j % 2 == 0 else math.cos(angle)
    x = torch.stack(tokens)
    for k in range(2):
        own = {name.removeprefix(f"blocks.{k}."): value for name, value in state.items()}
        y = F.layer_norm(x, (8,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        q, key, v = (y @ own["attn.qkv.weight"][8 * i : 8 * i + 8].T for i in range(3))
        q, v = q + own["attn.q_bias"], v + own["attn.v_bias"]
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            heads.append((q[:, h] @ key[:, h].T / 2).softmax(1) @ v[:, h])
        x = x + torch.cat(heads, 1) @ own["attn.proj.weight"].T + own["attn.proj.bias"]
        y = F.layer_norm(x, (8,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        y = y @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
    return F.layer_norm(x.mean(0), (8,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)


def test_it_equals_its_definition(tiny, tmp_path):
    state = {name: value.detach() for name, value in tiny.state_dict().items()}
    torch.save({"module": state}, tmp_path / "vit_g.pth")
    network = open_named("videomae-ssv2", tmp_path / "vit_g.pth")
    with torch.inference_mode():
        found = network.features(frames())
    assert network.scores == ("CD-FVD", "CD-KVD") and network.describe()["width"] == 8
    for clip, row in zip(videomae.preprocess(frames()), found):
        torch.testing.assert_close(row, slow(state, clip), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="clips of at least 16 frames"):
        network.features(frames(1, 15))
    with pytest.raises(UserError, match="takes clips of 16 frames, these have 18"):
        network.features(frames(1, 18))


def test_places_are_sines_and_cosines_in_turn():
    table = places(5, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert float(table[3, 3]) == pytest.approx(math.cos(3 / 10000 ** (2 / 6)), rel=1e-6)


def test_the_giant_has_the_names_of_its_file():
    with torch.device("meta"):
        giant = VideoMAE(1408, 2, 6144, 14, 174)
    shapes = {name: tuple(value.shape) for name, value in giant.state_dict().items()}
    assert giant.blocks[0].attn.heads == 16
    assert shapes["patch_embed.proj.weight"] == (1408, 3, 2, 14, 14) and shapes["head.weight"] == (174, 1408)
    block = {name.split(".", 2)[2] for name in shapes if name.startswith("blocks.1.")}
    assert block == {
        "norm1.weight", "norm1.bias", "attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight",
        "attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
        "mlp.fc2.bias",
    }  # fmt: skip


def test_other_files_are_refused(tmp_path):
    torch.save({"patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no VideoMAE weights: blocks"):
        open_named("videomae-ssv2", tmp_path / "other.pth")


class Darkest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).amin(1)[:, None]


def test_a_network_of_ones_own_says_beside_it_how_it_takes_clips(tmp_path):
    path = tmp_path / "darkest.pt"
    torch.jit.script(Darkest()).save(str(path))
    beside = tmp_path / "darkest.pt.json"
    assert "pixels: unit, one row for a clip" in open_network(path).describe()["frames"]
    beside.write_text(json.dumps({"size": 8, "pixels": "signed", "unit": "frame"}))
    network = open_network(path)
    black = torch.zeros(2, 3, 8, 8, 3, dtype=torch.uint8)
    assert network.unit == "frame" and network.features(black).tolist() == [[-1.0]] * 6
    for wrong in ('{"size": 0}', '{"pixels": "bgr"}', '{"unit": "video"}', '{"length": 3}', "[1]"):
        beside.write_text(wrong)
        with pytest.raises(UserError, match=r"must hold size"):
            open_network(path)
    beside.write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        open_network(path)
