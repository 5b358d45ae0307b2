"""Scores by a protocol: what they agree with, what they do not depend on, and what makes them worse."""

import itertools
import json

import numpy as np
import pytest
import torch

from benchmarks.scores import world
from benchmarks.sensitivity import LADDERS, RESULTS, ladders
from tats.data.config import DataConfig
from tats.data.shapes import draw_truth, render
from tats.flags import UserError
from tats.media import write_video
from tats.metrics.data_side import data_clips
from tats.metrics.evaluation import How, Pair, evaluate
from tats.metrics.frechet import frechet_distance
from tats.metrics.processes import World
from tats.metrics.protocols import find
from tats.metrics.sides import FileClips, MadeClips, quantised, resized

CLIPS = find("clips")


class Sums:
    """A network of a few numbers: the means of a clip's quarters in time, colour by colour."""

    scores, title, unit = ("D", "K"), "distance of sums", "clip"

    def features(self, frames):
        return frames.double().unflatten(1, (4, -1)).mean((2, 3, 4)).flatten(1)

    def describe(self):
        return {"name": "sums", "fingerprint": "sums", "width": 12}


class Looks(Sums):
    """Seven numbers of a clip by hand: its colour, how sharp it is, how much moves in each half, and how evenly."""

    def features(self, frames):
        clips = frames.float() / 255
        moves = clips.diff(dim=1)  # [B, T - 1, H, W, 3]
        sharp, jerks = clips.diff(dim=3).abs().mean((1, 2, 3, 4)), moves.diff(dim=1).abs().mean((1, 2, 3, 4))
        halves = [part.abs().mean((1, 2, 3, 4)) for part in moves.chunk(2, 1)]
        return torch.cat([clips.mean((1, 2, 3)), torch.stack([sharp, *halves, jerks], 1)], 1)


def noise(n, seed, frames=8, size=12, mean=128):
    rng = np.random.default_rng(seed)
    shift = rng.normal(mean, 30, (n, frames, 1, 1, 3))
    return torch.from_numpy((shift + rng.normal(0, 20, (n, frames, size, size, 3))).clip(0, 255).astype(np.uint8))


def side(clips, protocol=CLIPS, batch_size=16):
    return MadeClips(len(clips), lambda numbers, seed: clips[list(numbers)], protocol, {}, batch_size)


def both(a, b, protocol=CLIPS, batch_size=16):
    return Pair(side(a, protocol, batch_size), side(b, protocol, batch_size))


def test_a_set_is_at_no_distance_from_itself():
    result = evaluate(CLIPS, both(noise(40, 0), noise(40, 0)), Sums())
    assert abs(result["D"]) < 1e-9 * 128**2
    assert result["fingerprints"]["generated"] == result["fingerprints"]["real"]
    assert result["protocol"]["label"] == "clips" and result["line"].endswith("protocol clips")


def test_it_is_the_distance_of_the_features():
    a, b = noise(40, 0), noise(50, 1, mean=110)
    result = evaluate(CLIPS, both(a, b), Sums())
    assert result["D"] == pytest.approx(
        frechet_distance(Sums().features(a).float(), Sums().features(b).float()), rel=1e-6
    )
    assert (result["n_generated"], result["n_real"]) == (40, 50)


def test_stylegan_v_and_tats_differ_by_n_over_n_minus_1_alone():
    n = 60
    a, b = noise(n, 0), noise(n, 1, mean=110)
    choices = {"frames": 8, "size": (12, 12), "n_generated": n, "n_real": n, "network": "file"}
    tats, stylegan = (find(name).with_choices(**choices) for name in ("tats", "stylegan-v"))
    unbiased, biased = (evaluate(each, both(a, b, each), Sums())["D"] for each in (tats, stylegan))
    x, y = (Sums().features(each).float().double() for each in (a, b))  # features are kept in float32
    shift = float((x.mean(0) - y.mean(0)).square().sum())
    assert (biased - shift) == pytest.approx((unbiased - shift) * (n - 1) / n, rel=1e-9)
    assert unbiased != pytest.approx(biased, rel=1e-4)


def test_order_and_batch_size_do_not_matter():
    a, b = noise(37, 0), noise(41, 1)
    first = evaluate(CLIPS, both(a, b, batch_size=16), Sums())
    other = evaluate(CLIPS, both(a.flip(0), b[torch.randperm(41)], batch_size=3), Sums())
    assert other["D"] == pytest.approx(first["D"], rel=1e-9) and other["K"] == pytest.approx(first["K"], rel=1e-9)
    assert other["fingerprints"] == first["fingerprints"]


def test_every_process_takes_its_part_and_none_takes_anothers():
    clips = side(noise(11, 0), batch_size=2)
    seen = [
        torch.cat([batch["frames"] for batch in clips.batches(0, range(1, 11), World(rank, 3))]) for rank in range(3)
    ]
    assert [len(part) for part in seen] == [4, 3, 3]
    assert torch.equal(
        torch.cat(seen).sum((1, 2, 3, 4)).sort().values, noise(11, 0)[1:].sum((1, 2, 3, 4)).sort().values
    )


def test_groups_are_scored_by_themselves():
    a, b = noise(50, 0), noise(45, 1)
    teco = find("teco").with_choices(frames=8, group=20)
    result = evaluate(teco, both(a, b, teco), Sums())
    parts = [evaluate(CLIPS, both(a[at : at + 20], b[at : at + 20]), Sums())["D"] for at in (0, 20)]
    assert result["D"] == pytest.approx(np.mean(parts)) and result["groups"] == 2
    assert result["group_deviation"]["D"] == pytest.approx(np.std(parts))
    assert "groups of 20" in result["line"] and result["n_generated"] == 40


def test_runs_have_seeds_of_their_own():
    a = noise(60, 0, frames=40)
    long = find("longvideogan/fvd2048_16f").with_choices(frames=8, size=(12, 12), runs=3, network="file")
    result = evaluate(long, both(a, noise(60, 1, frames=40), long), Sums(), seed=4)
    assert result["seeds"] == [4, 5, 6] and result["deviation"]["D"] > 0 and "±" in result["line"]
    assert result["D"] == pytest.approx(np.mean([run["D"] for run in result["runs"]]))


def test_fewer_videos_than_the_recipe_has_are_said():
    tats = find("tats").with_choices(frames=8, size=(12, 12), network="file")
    result = evaluate(tats, both(noise(30, 0), noise(30, 1), tats), Sums())
    assert result["protocol"]["changes"]["n_generated"] == [2048, 30]
    assert result["protocol"]["label"] == "tats (modified)" and "n_generated 30 instead of 2048" in result["line"]


def test_other_sizes_are_resized_and_said():
    tats = find("tats").with_choices(frames=8, size=(6, 6))
    result = evaluate(tats, both(noise(30, 0), noise(30, 1), tats), Sums())
    assert result["clip_generated"] == [8, 6, 6]
    assert result["protocol"]["changes"]["pixels"] == ["raw", "raw, resized from 12x12"]


def test_pairs_leave_the_context_out_and_average_over_frames_clips_and_groups():
    real = noise(9, 0)
    made = real.clone()
    made[:, :4] = 0  # the context may differ
    made[:3, 6:] = (made[:3, 6:].int() + 10).clamp(0, 255).to(torch.uint8)
    pairs = find("teco/pairs").with_choices(frames=8, context=4, group=3)
    result = evaluate(pairs, both(made, real, pairs), None)
    error = ((made[:3, 4:].double() - real[:3, 4:].double()) / 255).square().mean((2, 3, 4))
    first = (-10 * torch.log10(error)).clamp(max=100).mean().item()
    assert result["PSNR"] == pytest.approx((first + 200) / 3) and result["groups"] == 3
    assert result["group_deviation"]["PSNR"] == pytest.approx(np.std([first, 100, 100]))
    assert result["SSIM"] < 1 and result["protocol"]["changes"]["network"] == ["alexnet", "none"]
    with pytest.raises(UserError, match="at least 11x11"):
        evaluate(pairs, both(made[:, :, :8], real[:, :, :8], pairs), None)


def test_statistics_of_real_clips_are_kept_and_made_anew_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, seed in (("a", 0), ("b", 1)):
        np.save(tmp_path / f"{name}.npy", noise(30, seed).numpy())
    pair = Pair(FileClips(tmp_path / "a.npy", CLIPS), FileClips(tmp_path / "b.npy", CLIPS))
    first = evaluate(CLIPS, pair, Sums())
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    stamp = kept.stat().st_mtime_ns
    again = evaluate(CLIPS, pair, Sums())
    assert again["D"] == first["D"] and again["fingerprints"] == first["fingerprints"]
    assert kept.stat().st_mtime_ns == stamp
    evaluate(CLIPS, pair, Sums(), how=How(cache="replace"))
    assert kept.stat().st_mtime_ns > stamp
    np.save(tmp_path / "b.npy", noise(31, 2).numpy())
    other = evaluate(CLIPS, Pair(pair.generated, FileClips(tmp_path / "b.npy", CLIPS)), Sums())
    assert other["D"] != first["D"] and len(list((tmp_path / "cache").rglob("*.npz"))) == 2


def test_clips_of_a_data_set_are_cut_as_the_protocol_says(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for index in range(count):
            path = tmp_path / split / "shapes" / f"{split}_{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, render(draw_truth(0, index, split=split, frames=20), 16), 16)
    data = DataConfig(str(tmp_path), batch_size=2, num_workers=0)
    sparse = find("stylegan-v").with_choices(frames=4, stride=3, size=(16, 16), split="train+test")
    real = data_clips(data, sparse)
    clips = torch.cat([batch["frames"] for batch in real.batches(0, range(len(real)))])
    assert clips.shape == (5, 4, 16, 16, 3) and real.source.names == sorted(real.source.names)
    every = find("longvideogan/fid50k_full").with_choices(size=(16, 16), split="test")
    frames = data_clips(data, every)
    batches = list(frames.batches(0, range(len(frames))))
    assert len(frames) == 40 and {float(weight) for batch in batches for weight in batch["weight"]} == {1 / 20}
    wide = data_clips(data, sparse.with_choices(size=(8, 12)))
    assert next(wide.batches(0, range(1)))["frames"].shape == (1, 4, 8, 12, 3)


def test_levels_are_truncated_or_rounded():
    video = torch.tensor([-0.5, -0.5 + 1.6 / 255, 0.5]).view(1, 1, 3, 1, 1)
    assert quantised(video, "truncated").flatten().tolist() == [0, 1, 255]
    assert quantised(video, "rounded").flatten().tolist() == [0, 2, 255]


def test_resizing_covers_and_keeps_the_middle():
    frames = torch.zeros(1, 4, 8, 3, dtype=torch.uint8)
    frames[:, :, 2:6] = 200
    assert (resized(frames, (4, 4), "bilinear", "rounded") == 200).all()
    assert resized(frames, (2, 4), "antialias", "truncated").shape == (1, 2, 4, 3)


def test_damage_makes_scores_worse():
    (real, _), (other, _) = world("test", 0, 48), world("test", 48, 48)
    for name, degrees in ladders(Looks(), real, other).items():
        values = [result["D"] for result in degrees.values()]
        assert list(degrees) == ["none", *LADDERS[name]]
        assert values[-1] > 4 * values[0], (name, values)
        assert all(later > 1.02 * earlier for earlier, later in itertools.pairwise(values[1:])), (name, values)


def test_the_documented_table_orders_as_it_must():
    rows = json.loads((RESULTS / "sensitivity.json").read_text())["table"]["rows"]
    for name in LADDERS:
        for column in (2, 3):
            values = [row[column] for row in rows if row[0] == name]
            assert values == sorted(values) and values[-1] > 5 * max(values[0], 0.02), name
