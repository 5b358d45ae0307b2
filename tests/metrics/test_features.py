"""The trained feature network: it learns, it is stored safely, and its scores order sets of clips as they must."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tats.data.shapes import CLASSES, draw_truth, render_many
from tats.flags import UserError
from tats.metrics import features
from tats.metrics.features import PLAYS, FeatureConfig, FeatureNet
from tats.metrics.networks import open_network
from tats.metrics.scores import compute
from tats.metrics.statistics import describe_clips
from tats.metrics.train_features import CUT, gather, play, train
from tats.video import from_frames


def world(split: str, n: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Clips uint8 [n, 16, 32, 32, 3] of the embedded dataset and their labels."""
    truths = [draw_truth(0, index, split=split) for index in range(first, first + n)]
    return torch.from_numpy(render_many(truths, 32)), torch.arange(first, first + n) % len(CLASSES)


@pytest.fixture(scope="module")
def network() -> FeatureNet:
    frames, labels = world("train", 480)
    return train(frames, labels, CLASSES, test=world("test", 120), steps=200)


@pytest.fixture(scope="module")
def real() -> Tensor:
    return world("test", 240)[0]


@pytest.fixture(scope="module")
def second() -> Tensor:
    return world("test", 240, first=240)[0]


def all_played(frames: Tensor, way: str) -> Tensor:
    return play(frames, torch.full((len(frames),), PLAYS.index(way)), torch.Generator().manual_seed(0))


def blurred(frames: Tensor, width: int) -> Tensor:
    pictures = frames.flatten(0, 1).movedim(-1, 1).float()
    smooth = F.avg_pool2d(pictures, width, 1, width // 2)
    return smooth.to(torch.uint8).movedim(1, -1).unflatten(0, frames.shape[:2])


def noisy(frames: Tensor, size: float) -> Tensor:
    noise = size * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return (frames + noise).clamp(0, 255).to(torch.uint8)


def test_it_learns_the_classes_and_the_ways_of_playing(network):
    assert network.config.accuracy > 0.95
    assert network.config.play_accuracy > 0.7
    assert 1e5 < network.describe()["weights"] < 3e5


def test_every_corruption_is_further_away_than_a_second_real_set(network, real, second):
    truth = describe_clips(real, network, "real").moments

    def score(clips: Tensor) -> float:
        return describe_clips(clips, network, "generated").moments.distance(truth)

    honest = score(second)
    assert honest > 0
    few_classes = second[torch.arange(240) % 12 < 6]
    scores = {
        "blur": (score(blurred(second, 3)), score(blurred(second, 7))),
        "noise": (score(noisy(second, 10)), score(noisy(second, 40))),
        "frozen": (score(torch.cat([second[:180], all_played(second[180:], "frozen")])),
                   score(all_played(second, "frozen"))),
        "shuffled": (score(torch.cat([second[:180], all_played(second[180:], "shuffled")])),
                     score(all_played(second, "shuffled"))),
        "slow": (score(torch.cat([second[:180], all_played(second[180:], "slow")])),
                 score(all_played(second, "slow"))),
        "classes": (score(torch.cat([few_classes, second[:120]])), score(few_classes)),
    }  # fmt: skip
    for name, (little, much) in scores.items():
        assert little > 2 * honest, f"{name}: {scores}, a second real set {honest}"
        assert much > 2 * little, f"{name}: {scores}, a second real set {honest}"


def test_scores_never_call_themselves_fvd(network, real, second):
    result = compute(second, real, network)
    assert not any("FVD" in key for key in result)
    assert result["score"] == "trained-feature Frechet distance (not FVD)"
    assert result["network"]["fingerprint"] in result["line"]
    assert (result["n_generated"], result["n_real"]) == (240, 240)
    assert result["notes"] == []


def test_batches_of_any_size_and_form_give_the_same(network, real, second):
    whole = compute(second[:40], real[:40], network)
    video = from_frames(second[:40])
    sides = (
        (second[:40][i : i + 7].numpy() for i in range(0, 40, 7)),
        ({"video": real[i : i + 1], "label": torch.zeros(1)} for i in range(40)),
    )
    pieces = compute(*sides, network)
    assert pieces["FCD-trained"] == pytest.approx(whole["FCD-trained"], rel=1e-4)
    assert pieces["KCD-trained"] == pytest.approx(whole["KCD-trained"], rel=1e-4, abs=1e-6)
    levels = torch.cat(list(features.clips(video))).int() - second[:40].int()
    assert levels.abs().max() <= 1  # the way through floats truncates


def test_too_few_clips_for_the_covariance_are_said(network, real):
    notes = compute(real[:20], real[20:60], network)["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("20 generated clips are too few for a covariance of 96 dimensions")


def test_mistakes_get_one_line(network, real):
    with pytest.raises(UserError, match="at least 2 generated clips, got 1"):
        compute(real[:1], real, network)
    with pytest.raises(UserError, match="generated clips have 8 frames, real ones 16"):
        compute(real[:4, :8], real[:4], network)
    with pytest.raises(UserError, match="real clips differ in shape"):
        compute(real[:4], [real[:2], real[:2, :8]], network)
    with pytest.raises(UserError, match="at least 4 frames"):
        train(real[:, :3], None)
    with pytest.raises(UserError, match="a score needs a network"):
        open_network()
    with pytest.raises(UserError, match="no clips to train"):
        gather([])


def test_a_stored_network_is_the_same_network(network, real, tmp_path):
    path = tmp_path / "features.pt"
    features.save(network, path)
    loaded = open_network(path)
    assert isinstance(loaded, FeatureNet)
    assert loaded.describe() == network.describe()
    assert loaded.config.label_names == CLASSES
    with torch.inference_mode():
        assert torch.equal(loaded.features(real[:4]), network.features(real[:4]))


def test_what_is_no_network_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    torch.save(FeatureConfig(()), tmp_path / "pickled.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name in ("other.pt", "pickled.pt", "text.pt"):
        with pytest.raises(UserError, match="is no feature network"):
            features.load(tmp_path / name)
    with pytest.raises(UserError, match="--train_features"):
        features.load(tmp_path / "absent.pt")


def test_a_fingerprint_changes_with_any_weight():
    network = FeatureNet(FeatureConfig(("a", "b")))
    before = features.fingerprint(network)
    assert features.fingerprint(network) == before
    with torch.no_grad():
        network.plays.bias[0] += 1e-3
    assert features.fingerprint(network) != before


def test_ways_of_playing_do_what_they_say():
    frames = torch.arange(2 * 12, dtype=torch.uint8).view(2, 12, 1, 1, 1).expand(2, 12, 1, 1, 3)

    def shown(way: str) -> np.ndarray:
        return all_played(frames, way)[..., 0, 0, 0].numpy()

    assert np.array_equal(shown("as it is"), frames[..., 0, 0, 0])
    slow = shown("slow")
    assert np.array_equal(slow[:, ::2], slow[:, 1::2])
    assert (np.diff(slow[:, ::2].astype(int)) == 1).all()
    assert (shown("frozen") == shown("frozen")[:, :1]).all()
    assert np.array_equal(np.sort(shown("shuffled")), frames[..., 0, 0, 0])
    cut = shown("cut").astype(int)
    assert cut[0, 0] == 0 and cut[0, -1] == 23 and (np.diff(cut[0]) != 1).sum() == 1
    assert PLAYS[CUT] == "cut"


def test_gather_takes_clips_and_labels_until_there_are_enough():
    batches = ({"video": from_frames(world("train", 6, first)[0]), "label": torch.arange(6)} for first in (0, 6, 12))
    frames, labels = gather(batches, limit=8, size=16)
    assert frames.shape == (8, 16, 16, 16, 3)
    assert labels is not None and labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert len(list(batches)) == 1  # the third batch was never asked for


def test_without_labels_motion_alone_trains_it():
    network = train(world("train", 24)[0], None, test=world("test", 12), steps=3)
    assert network.config.label_names == ()
    assert network.config.accuracy is None
    assert network.config.play_accuracy is not None
    assert network.describe()["trained_on"] == "time"
