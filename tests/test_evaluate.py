"""`tats evaluate`: from files to a trained network, and from two folders to a score."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tats import evaluate
from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.media import write_video
from tats.metrics import features, scores
from tats.metrics.features import FeatureConfig, FeatureNet

ROOT = Path(__file__).resolve().parent.parent


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


def test_two_processes_give_the_result_of_one(network, tmp_path):
    a, _ = arrays(tmp_path / "a", 11, 0)
    b, _ = arrays(tmp_path / "b", 13, 1)
    words = [str(a), str(b), "--features_ckpt", str(network), "--device", "cpu"]
    evaluate.main([*words, "--out", str(tmp_path / "one.json")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tats", "evaluate", *words, "--replace_cache", "--out", str(tmp_path / "two.json")]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank)}, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for name in ("FCD-trained", "KCD-trained"):
        assert two[name] == pytest.approx(one[name], rel=1e-6, abs=1e-9)
    assert two["fingerprints"] == one["fingerprints"] and two["n_generated"] == 11
    assert two["line"] in said[0] and said[1] == ""


def test_protocols_from_the_command_line(network, dataset, tmp_path, capsys):
    out = tmp_path / "score.json"
    flags = ["--features_ckpt", str(network), "--device", "cpu", "--num_workers", "0", "--out", str(out)]
    cut = ["--sequence_length", "8", "--resolution", "16", "--data_path", str(dataset)]
    a, _ = arrays(tmp_path / "a", 6, 0)
    evaluate.main(["--protocol", "stylegan-v", "--generated", str(a), *cut, *flags, "--split", "train+test"])
    result = json.loads(out.read_text())
    assert (result["n_generated"], result["n_real"], result["covariance"]) == (6, 12, "biased (N)")
    assert result["protocol"]["changes"]["split"] == ["train", "train+test"]
    assert result["line"] in capsys.readouterr().out and "stylegan-v/fvd2048_16f (modified)" in result["line"]
    assert set(result["versions"]) >= {"torch", "tats"} and result["sides"]["real"]["videos"] == 12
    films = dataset / "test"
    evaluate.main(["--protocol", "tats", "--generated", str(films), *cut, *flags])
    assert json.loads(out.read_text())["protocol"]["changes"]["pixels"][1].startswith("video files")
    for words, said in (
        (["--protocol", "nope"], "--protocol nope is not known"),
        (["--protocol", "tats", *flags], "give two sets of clips"),
        (["--protocol", "tats", "--generated", str(a), *cut, "--sequence_length", "9", *flags], "a video has 8 frames"),
        (["--protocol", "tats", "--generated", str(a), "--gpt_ckpt", "x"], "two sources"),
        (["--protocol", "tats", "--reconstruct"], "needs --vqgan_ckpt"),
        (["--protocol", "tats", "--generated", str(a), *cut, "--num_workers", "0"], "i3d"),
    ):
        with pytest.raises(UserError, match=said):
            evaluate.main(words)


@pytest.mark.parametrize("words", ["nothere b", "nothere b --protocol clips", "--protocol clips nothere b --seed 1"])
def test_both_sides_may_stand_before_the_flags_or_behind_the_protocol(words):
    with pytest.raises(UserError, match=r"^nothere: no such file or folder"):
        evaluate.main(words.split())
