"""Statistics of clips: streamed equals whole, order and pieces do not matter, what is stored is what was found."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tats.flags import UserError
from tats.metrics import statistics_cache
from tats.metrics.features import RandomNet, clips, parts
from tats.metrics.frechet import frechet_distance
from tats.metrics.scores import compute, repeated
from tats.metrics.statistics import Statistics, describe_clips
from tats.metrics.statistics_cache import cached, file_of
from tats.video import from_frames


class Means:
    """Features that can be computed by hand: the mean of each colour; of clips or of frames."""

    scores = ("FCD-means", "KCD-means")
    title = "Frechet distance of means (not FVD)"
    min_frames = 1

    def __init__(self, unit: str = "clip", name: str = "means"):
        self.unit, self.name = unit, name

    def features(self, frames: Tensor) -> Tensor:
        by_frame = frames.float().mean((2, 3)) / 255  # [B, T, 3]
        return by_frame.flatten(0, 1) if self.unit == "frame" else by_frame.mean(1)

    def describe(self) -> dict:
        return {"name": self.name, "fingerprint": self.name, "width": 3}


def some_clips(n: int, seed: int = 0, frames: int = 3, low: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 256, (n, frames, 4, 4, 3), generator=generator, dtype=torch.uint8)


def test_order_and_pieces_do_not_matter():
    frames = some_clips(40)
    whole = describe_clips(frames, Means(), "real", keep=11)
    pieces = describe_clips((frames[i : i + 7] for i in range(0, 40, 7)), Means(), "real", keep=11)
    assert torch.equal(whole.places, pieces.places) and len(whole.places) == 11
    torch.testing.assert_close(whole.features, pieces.features)
    torch.testing.assert_close(whole.moments.covariance(), pieces.moments.covariance(), rtol=1e-9, atol=0)
    halves = [Statistics(keep=11), Statistics(keep=11)]
    for number in torch.randperm(40, generator=torch.Generator().manual_seed(0)):
        halves[int(number) % 2].add(Means().features(frames[number][None]), number[None] * (1 << 20))
    halves[1].merge(halves[0])
    assert torch.equal(halves[1].places, whole.places)
    torch.testing.assert_close(halves[1].features, whole.features)
    torch.testing.assert_close(halves[1].moments.covariance(), whole.moments.covariance(), rtol=1e-9, atol=0)


def test_what_is_kept_is_bounded_and_said():
    network = Means()
    found = compute((some_clips(8, seed) for seed in range(40)), some_clips(320, 99), network, keep=50)
    assert found["n_generated"] == 320
    assert sum("takes 50 of the 320" in note for note in found["notes"]) == 2
    few = describe_clips((some_clips(8, seed) for seed in range(40)), network, "real", keep=50)
    assert len(few.features) == 50 and not few.complete
    assert sum(map(len, few._kept)) <= 100  # never more than twice as many are held


def test_frames_are_described_one_by_one_and_may_differ_in_number():
    first, second = some_clips(4, frames=3), some_clips(5, 1, frames=6)
    found = describe_clips([first, second], Means("frame"), "real")
    assert (found.clips, found.moments.count) == (9, 4 * 3 + 5 * 6)
    rows = torch.cat([Means("frame").features(each) for each in (first, second)])
    torch.testing.assert_close(found.features, rows)
    score = compute([first, second], [second, first], Means("frame"))
    assert (score["n_generated"], score["unit"]) == (42, "frame")
    assert abs(score["FCD-means"]) < 1e-12


@pytest.mark.parametrize("length, at_once", [(4, [16, 4]), (100, [2] * 10), (300, [1] * 20)])
def test_long_clips_pass_a_few_at_a_time(length, at_once):
    frames = torch.zeros(20, length, 1, 1, 3, dtype=torch.uint8)
    assert [len(part) for part in clips(frames)] == at_once
    assert [len(part) for part in clips(frames.numpy())] == at_once
    assert [len(part) for part in clips(from_frames(frames))] == at_once
    pairs = list(parts({"frames": frames, "weight": torch.arange(20)}))
    assert torch.equal(torch.cat([weights for _, weights in pairs]), torch.arange(20))


def test_weights_count_like_copies():
    a, b = some_clips(6, frames=2), some_clips(4, 1, frames=2)
    weighted = describe_clips([{"frames": a, "weight": torch.full((6,), 2.0)}, {"frames": b, "weight": torch.ones(4)}],
                              Means("frame"), "real")  # fmt: skip
    copies = describe_clips([a, a, b], Means("frame"), "real")
    torch.testing.assert_close(weighted.moments.mean, copies.moments.mean)
    torch.testing.assert_close(weighted.moments.covariance(0), copies.moments.covariance(0))
    by_hand = np.cov(weighted.features.numpy().T, aweights=[2] * 12 + [1] * 8, ddof=1)
    np.testing.assert_allclose(weighted.moments.covariance(1), by_hand, rtol=1e-5)
    with pytest.raises(ValueError, match="positive numbers"):
        weighted.moments.add(torch.ones(2, 3), [1, 0])


def test_too_few_for_a_covariance_are_taken_from_the_features_themselves():
    network = RandomNet()
    a, b = some_clips(20, frames=4), some_clips(30, 1, frames=4)
    found = compute(a, b, network, ddof=0, floor=0)
    sides = [describe_clips(each, network, "real").features for each in (a, b)]
    assert found["FCD-random"] == pytest.approx(frechet_distance(*sides, ddof=0, floor=0), rel=1e-12)
    assert len(found["notes"]) == 2 and "too few for a covariance of 96" in found["notes"][0]
    assert found["covariance"] == "biased (N)" and "FVD" not in found["line"]
    torch.testing.assert_close(RandomNet(3).features(a), RandomNet(3).features(a))
    assert RandomNet(3).describe()["fingerprint"] != RandomNet(4).describe()["fingerprint"]


def test_what_is_stored_is_what_was_found(tmp_path):
    found = describe_clips(some_clips(30), Means(), "real", keep=12)
    found.save(tmp_path / "a" / "s.npz")
    again = Statistics.load(tmp_path / "a" / "s.npz")
    assert (again.clips, again.shape, again.network, again.keep) == (30, (3, 4, 4), Means().describe(), 12)
    assert torch.equal(again.features, found.features) and torch.equal(again.places, found.places)
    assert torch.equal(again.moments.covariance(), found.moments.covariance())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["s.npz"]
    other = some_clips(20, 1)
    assert compute(other, again, Means())["FCD-means"] == compute(other, found, Means())["FCD-means"]
    with pytest.raises(UserError, match="come from another network"):
        compute(other, again, Means(name="others"))
    with pytest.raises(ValueError, match="nothing to store"):
        Statistics().save(tmp_path / "empty.npz")


@pytest.mark.parametrize("sizes", [[30, 30, -5], [30, 30, 0], [30, 1, 100], [30, 31, 100], [-1, 30, 100], [30, 30, 20]])
def test_sizes_that_contradict_the_features_are_refused(tmp_path, sizes):
    describe_clips(some_clips(30), Means(), "real", keep=100).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored)
    assert arrays["sizes"].tolist() == [30, 30, 100] and len(Statistics.load(tmp_path / "a.npz").features) == 30
    np.savez(tmp_path / "a.npz", **{**arrays, "sizes": np.array(sizes)})
    with pytest.raises(ValueError, match="contradict each other"):
        Statistics.load(tmp_path / "a.npz")


def test_the_cache_computes_once_for_each_key(tmp_path, capsys):
    calls = []

    def make() -> Statistics:
        calls.append(1)
        return describe_clips(some_clips(30, len(calls)), Means(), "real")

    key = {"data": "shapes", "frames": 16, "network": Means().describe()}
    first = cached(key, make, folder=tmp_path)
    again = cached(dict(reversed(key.items())), make, folder=tmp_path)
    assert len(calls) == 1 and torch.equal(first.moments.scatter, again.moments.scatter)
    assert first.network == again.network == Means().describe()
    cached(key | {"frames": 8}, make, folder=tmp_path)
    assert len(calls) == 2 and len(list(tmp_path.iterdir())) == 2
    cached(key, make, folder=tmp_path, replace=True)
    assert len(calls) == 3
    file_of(key, tmp_path).write_bytes(b"PK\x03\x04 cut short")
    cached(key, make, folder=tmp_path)
    assert len(calls) == 4 and "is damaged" in capsys.readouterr().err
    file_of(key, tmp_path).write_bytes(file_of(key | {"frames": 8}, tmp_path).read_bytes())
    cached(key, make, folder=tmp_path)
    assert len(calls) == 5 and "belongs to something else" in capsys.readouterr().err
    np.savez(file_of(key, tmp_path), network=np.array([{}], dtype=object))  # a pickle inside is never run
    cached(key, make, folder=tmp_path)
    assert len(calls) == 6
    with pytest.raises(TypeError):
        cached({"data": object()}, make, folder=tmp_path)


def test_the_cache_lies_with_the_fetched_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = file_of({"a": 1})
    assert path.parent == tmp_path / "tats" / "statistics"
    monkeypatch.setattr(statistics_cache, "VERSION", 2)
    assert file_of({"a": 1}) != path


def test_runs_are_averaged_with_their_deviation():
    def run(seed: int) -> dict:
        return {"FVD": float(seed), "n_real": 7, "line": f"FVD {seed}"}

    found = repeated(run, 3, seed=5)
    assert found["FVD"] == 6.0 and found["n_real"] == 7 and found["seeds"] == [5, 6, 7]
    assert found["deviation"]["FVD"] == pytest.approx(np.std([5, 6, 7]))
    assert found["runs"][2] == run(7) and found["line"].startswith("FVD 6 ± 0.82 (mean and deviation of 3 runs")
    with pytest.raises(ValueError, match="at least 1"):
        repeated(run, 0)


def test_the_kernel_distance_over_subsets_has_its_own_deviation():
    a, b = some_clips(30), some_clips(40, 1)
    found = compute(a, b, Means(), subsets=20, subset_size=10, prefix="r")
    assert found["subsets"] == [20, 10] and found["rKCD-means_deviation"] > 0
    assert found["score"].startswith("rFrechet") and {"rFCD-means", "rKCD-means"} < set(found)
    assert found["rFCD-means"] == compute(a, b, Means())["FCD-means"]
