"""`tats evaluate`: from files to a trained network, and from two folders to a score."""

import json

import numpy as np
import pytest
import torch

from tats import evaluate
from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.media import write_video
from tats.metrics import features, scores
from tats.metrics.features import FeatureConfig, FeatureNet


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two classes of the embedded dataset as files: 8 clips for training, 4 for testing."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 8), ("test", 4)):
        for index in range(count):
            truth = draw_truth(0, index, split=split, label=index % 2)
            path = folder / split / CLASSES[index % 2] / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, render(truth, 32), 16)
    return folder


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "features.pt"
    features.save(FeatureNet(FeatureConfig(("a", "b"))).eval(), path)
    return path


def arrays(folder, n: int, seed: int):
    folder.mkdir()
    frames = np.random.default_rng(seed).integers(0, 256, (n, 8, 16, 16, 3), dtype=np.uint8)
    np.save(folder / "0_eval.npy", frames[: n // 2])
    np.savez(folder / "1_eval.npz", frames[n // 2 :])
    return folder, frames


def test_a_network_is_trained_on_the_classes_of_a_folder(dataset, tmp_path, capsys):
    path, out = tmp_path / "net" / "features.pt", tmp_path / "result.json"
    flags = ["--data_path", str(dataset), "--resolution", "32", "--num_workers", "0", "--batch_size", "4"]
    evaluate.main(
        ["--train_features", *flags, "--features_ckpt", str(path), "--feature_steps", "2", "--device", "cpu",
         "--out", str(out)]
    )  # fmt: skip
    stored = features.load(path)
    assert stored.config.label_names == CLASSES[:2]
    said = capsys.readouterr().out
    assert f"feature network {features.fingerprint(stored)} at {path}" in said
    assert json.loads(out.read_text())["fingerprint"] == features.fingerprint(stored)


def test_two_folders_of_arrays_are_compared(network, tmp_path, capsys):
    a, frames_a = arrays(tmp_path / "a", 10, 0)
    b, frames_b = arrays(tmp_path / "b", 12, 1)
    np.savez(a / "codes.npz", codes=np.zeros((10, 2, 2, 2), np.int64), seeds=np.arange(10))  # lies beside samples
    out = tmp_path / "score.json"
    evaluate.main([str(a), str(b), "--features_ckpt", str(network), "--device", "cpu", "--out", str(out)])
    result = json.loads(out.read_text())
    expected = scores.compute(frames_a, frames_b, features.load(network))
    assert result["FCD-trained"] == pytest.approx(expected["FCD-trained"], rel=1e-6)
    assert (result["n_generated"], result["n_real"], result["generated"]) == (10, 12, str(a))
    said = capsys.readouterr().out
    assert result["line"] in said
    assert "note: 10 generated clips are too few" in said


def test_videos_are_compared_by_their_first_frames(network, dataset, tmp_path):
    out = tmp_path / "score.json"
    flags = ["--features_ckpt", str(network), "--device", "cpu", "--sequence_length", "8", "--resolution", "16"]
    evaluate.main([str(dataset / "train"), str(dataset / "test"), *flags, "--limit", "5", "--out", str(out)])
    result = json.loads(out.read_text())
    assert (result["n_generated"], result["n_real"], result["clip_real"]) == (5, 4, [8, 16, 16])


def test_mistakes_get_one_line(network, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 16, 16, 3)))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    use = ["--features_ckpt", str(network)]
    for words, said in (
        ([], "give two sets of clips"),
        (["a", "b", "c"], "got 3: a, b, c"),
        ([str(empty), str(tmp_path / "absent"), *use], "absent: no such file or folder"),
        ([str(empty), str(empty), *use], "holds no clips"),
        ([str(empty), str(tmp_path / "floats.npy"), *use], "holds float64"),
        ([str(empty), str(tmp_path / "two.npz"), *use], "holds 2 arrays"),
        ([*use, "--i3d_ckpt", "x"], "two networks"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--train_features"], "--data_path is needed"),
        (["--train_features", "--vtokens"], "learns from pixels"),
        ([str(empty), str(empty), "--features_ckpt", str(tmp_path / "no.pt")], "no feature network at"),
    ):
        with pytest.raises(UserError) as error:
            evaluate.main(words)
        assert said in str(error.value), words
