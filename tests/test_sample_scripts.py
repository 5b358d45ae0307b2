"""The sampling scripts from command to file, and what happens when they are called again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint, output
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.shapes import CLASSES, draw_truth, render
from tats.flags import UserError
from tats.media import read_frames, write_video
from tats.metrics import features
from tats.metrics.scores import compute
from tats.output import Store, Video
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny VQGAN and of transformers over its codes: by class, coarse, and for the frames between."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = VQGANConfig(
        n_codes=37,
        embedding_dim=4,
        n_hiddens=2,
        downsample=(2, 4, 4),
        norm_type="batch",
        resolution=8,
        sequence_length=10,
    )
    checkpoint.save(VQGAN(config).eval(), folder / "vqgan")
    checkpoint.save(tiny_gpt().float(), folder / "gpt")
    checkpoint.save(tiny_gpt((3, 2, 2), stride=4).float(), folder / "coarse")
    checkpoint.save(tiny_gpt(n_unmasked=4).float(), folder / "between")
    return folder


def run(script, *flags, code=0):
    """Run a script; its standard output and standard error."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_short_clips_from_command_to_file_and_again(models, tmp_path):
    flags = [
        "--gpt_ckpt",
        models / "gpt",
        "--vqgan_ckpt",
        models / "vqgan",
        "--save",
        tmp_path / "out",
        "--batch_size",
        4,
    ]
    flags += ["--class_cond", "--top_k", 9, "--top_p", 0.8, "--dataset", "shapes", "--save_videos", "--save_arrays"]
    run("sample_short.py", *flags, "--n_sample", 5)
    codes = np.load(tmp_path / "out" / "codes.npz")
    assert codes["codes"].shape == (5, 5, 2, 2)
    assert codes["seeds"].tolist() == [0, 1, 2, 3, 4] and codes["labels"].tolist() == [0, 1, 2, 0, 1]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["videos"]) == 5 and manifest["settings"]["top_k"] == 9
    files = [tmp_path / "out" / video["file"] for video in manifest["videos"]]
    assert files[3].name == "generation_0_3.mp4" and files[3].parent.name == "topp0.80_topk9_run0"
    array = np.load(tmp_path / "out" / "numpy_files" / "shapes" / "topp0.80_topk9_run0_eval.npy")
    assert array.shape == (5, 10, 8, 8, 3) and array.dtype == np.uint8
    assert np.abs(read_frames(files[3]).astype(int) - array[3]).mean() < 12  # what H.264 makes of noise
    stamp = files[0].stat().st_mtime_ns
    _, said = run("sample_short.py", *flags, "--n_sample", 7)
    again = np.load(tmp_path / "out" / "codes.npz")
    assert "5 of 7 videos are there already" in said
    assert np.array_equal(again["codes"][:5], codes["codes"]) and again["seeds"].tolist() == list(range(7))
    assert files[0].stat().st_mtime_ns == stamp
    _, said = run("sample_short.py", *flags, "--n_sample", 7, "--temperature", 0.5, code=2)
    assert "temperature 1.0 then, 0.5 now" in said
    import tats

    gpt = tats.load_transformer(models / "gpt")
    same = tats.sample_codes(gpt, label=[2], seeds=[2], top_k=9, top_p=0.8)
    assert np.array_equal(same[0].numpy(), codes["codes"][2])


def test_long_and_hierarchical_videos_from_command_to_file(models, tmp_path):
    common = ["--n_sample", 2, "--batch_size", 2, "--label", 1, "--class_cond"]
    flags = ["--gpt_ckpt", models / "gpt", "--vqgan_ckpt", models / "vqgan", "--save", tmp_path / "long", *common]
    run("sample_long.py", *flags, "--sample_length", 7, "--temporal_sample_pos", 2)
    manifest = json.loads((tmp_path / "long" / "manifest.json").read_text())
    assert read_frames(tmp_path / "long" / manifest["videos"][1]["file"]).shape == (14, 8, 8, 3)
    flags = ["--ckpt1", models / "coarse", "--CKPT2", models / "between", "--vqgan", models / "vqgan", *common]
    run("sample_hierarchical.py", *flags, "--save", tmp_path / "pair", "--sample_length", 8)
    codes = np.load(tmp_path / "pair" / "codes.npz")
    assert codes["codes"].shape == (2, 9, 2, 2) and codes["labels"].tolist() == [1, 1]


def test_samples_are_scored_with_a_trained_network(models, tmp_path):
    for index in range(6):
        path = tmp_path / "data" / ("test" if index < 2 else "train") / CLASSES[index % 2] / f"{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render(draw_truth(0, index, label=index % 2), 16), 16)
    torch.manual_seed(0)
    network = features.FeatureNet(features.FeatureConfig(("a", "b"))).eval()
    features.save(network, tmp_path / "features.pt")
    flags = ["--gpt_ckpt", models / "gpt", "--vqgan_ckpt", models / "vqgan", "--n_sample", 5, "--batch_size", 4]
    flags += ["--data_path", tmp_path / "data", "--resolution", 8, "--num_workers", 0, "--device", "cpu"]
    flags += ["--save", tmp_path / "out"]
    _, said = run("sample_short.py", *flags, "--compute_fvd")
    hint = [line for line in said.splitlines() if line.startswith("--compute_fvd: no score without a network")]
    assert len(hint) == 1 and "tats evaluate --train_features" in hint[0]
    assert "scores" not in json.loads((tmp_path / "out" / "manifest.json").read_text())
    flags += ["--compute_fvd", "--features_ckpt", tmp_path / "features.pt"]
    _, said = run("sample_short.py", *flags, code=2)
    assert "makes 10 frames, real clips would have 16; take --sequence_length 10" in said
    out, _ = run("sample_short.py", *flags, "--sequence_length", 10, "--save_arrays")
    scores = json.loads((tmp_path / "out" / "manifest.json").read_text())["scores"]
    assert out.splitlines()[0] == scores["line"]
    assert out.startswith(f"FCD-trained {scores['FCD-trained']:.4g}, KCD-trained {scores['KCD-trained']:.4g} (5 gen")
    assert scores["score"] == "trained-feature Frechet distance (not FVD), protocol tats (modified)"
    assert "FVD" not in scores and scores["protocol"]["changes"]["n_generated"] == [2048, 5]
    assert (scores["n_generated"], scores["n_real"]) == (5, 5)  # of four training clips one serves twice
    assert scores["clip_generated"] == scores["clip_real"] == [10, 8, 8]
    assert scores["network"]["fingerprint"] == features.fingerprint(network)
    assert scores["covariance"] == "unbiased (N-1)" and f"note: {scores['notes'][0]}" in out
    made = np.load(tmp_path / "out" / "numpy_files" / "ucf101" / "topp0.92_topk2048_run0_eval.npy")
    clips = DataConfig(str(tmp_path / "data"), resolution=8, sequence_length=10, batch_size=4, num_workers=0)
    loader = VideoData(clips, seed=0).train_loader()
    real = torch.cat([batch["video"] for _ in range(2) for batch in loader])[:5]
    expected = compute(made, real, network)["FCD-trained"]
    assert scores["FCD-trained"] == pytest.approx(expected, rel=1e-4)


def test_long_and_hierarchical_videos_are_scored_too(models, tmp_path):
    for index in range(4):
        path = tmp_path / "data" / ("test" if index < 2 else "train") / "shapes" / f"{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render(draw_truth(0, index, label=index % 2), 16), 16)
    features.save(features.FeatureNet(features.FeatureConfig(("a", "b"))).eval(), tmp_path / "features.pt")
    flags = ["--n_sample", 3, "--batch_size", 2, "--compute_fvd", "--features_ckpt", tmp_path / "features.pt"]
    flags += ["--data_path", tmp_path / "data", "--resolution", 8, "--sequence_length", 10, "--num_workers", 0]
    flags += ["--protocol", "stylegan-v", "--temporal_sample_pos", 2, "--device", "cpu"]
    pair = ["--ckpt1", models / "coarse", "--ckpt2", models / "between", "--vqgan", models / "vqgan"]
    one = ["--gpt_ckpt", models / "gpt", "--vqgan_ckpt", models / "vqgan"]
    for script, model, length in (("sample_long.py", one, 7), ("sample_hierarchical.py", pair, 8)):
        save = tmp_path / script
        out, _ = run(script, *model, *flags, "--sample_length", length, "--save", save)
        scores = json.loads((save / "manifest.json").read_text())["scores"]
        assert scores["line"] in out and scores["line"].startswith("FCD-trained")
        assert scores["protocol"]["name"] == "stylegan-v/fvd2048_16f" and scores["covariance"] == "biased (N)"
        assert (scores["n_generated"], scores["n_real"], scores["clip_generated"]) == (3, 2, [10, 8, 8])
        assert set(scores["fingerprints"]) >= {"generated", "real", "network", "vqgan"}


def test_scores_stay_while_they_are_of_the_same_videos(tmp_path):
    def call(count, scores=None):
        store = Store(tmp_path, {"top_k": 1}, {})
        videos = output.spread(count, 0, None)
        if store.missing(videos):
            store.add(store.missing(videos), np.zeros((len(store.missing(videos)), 1, 2, 2)))
        store.finish(videos, scores)
        return json.loads((tmp_path / "manifest.json").read_text()).get("scores")

    assert call(2) is None
    assert call(2, {"FVD": 3.0}) == {"FVD": 3.0}
    assert call(2) == {"FVD": 3.0}
    assert call(3) is None


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--gpt_ckpt is needed"),
        (["--no_class_cond"], "makes videos by class"),
        (["--label", "9"], "classes 0 to 2"),
        (["--text", "a red circle"], "conditioned on text"),
        (["--device", "cuda:9"], "no GPU"),
        (["--save", __file__], "this folder can't be made"),
        (["--compute_fvd", "--features_ckpt", "none.pt"], "--data_path is needed"),
    ],
)
def test_a_mistake_gets_one_line(models, tmp_path, flags, message):
    given = ["--gpt_ckpt", models / "gpt", "--vqgan_ckpt", models / "vqgan"] if flags else []
    if flags == ["--device", "cuda:9"] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    _, said = run("sample_short.py", *given, "--save", tmp_path, "--n_sample", 1, *flags, code=2)
    assert message in said.splitlines()[-1]


def test_sound_is_answered_with_one_line():
    _, said = run("sample_audio_cond.py", "--dataset", "drum", code=2)
    assert len(said.strip().splitlines()) == 1


def test_a_run_that_is_stopped_keeps_its_batches_and_makes_the_rest(tmp_path):
    videos = output.spread(5, 10, [0, 1], ["a", "b"])
    store = Store(tmp_path, {"top_k": 1}, {})
    store.add(videos[:2], np.zeros((2, 1, 2, 2)))
    again = Store(tmp_path, {"top_k": 1}, {})
    assert [video.index for video in again.missing(videos)] == [2, 3, 4]
    again.add(videos[2:], np.ones((3, 1, 2, 2)))
    again.finish(videos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.npz", "manifest.json"]
    assert np.load(tmp_path / "codes.npz")["codes"][:, 0, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert Store(tmp_path, {"top_k": 1}, {}).missing(videos) == []


def test_damaged_and_foreign_folders_are_named(tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"without a manifest\.json"):
        Store(tmp_path, {}, {})
    Store(tmp_path / "new", {}, {}).add([Video(0, 0)], np.zeros((1, 1, 2, 2)))
    (tmp_path / "new" / "codes_00000.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is damaged"):
        Store(tmp_path / "new", {}, {})
    (tmp_path / "new" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        Store(tmp_path / "new", {}, {})


def test_videos_are_spread_evenly_over_classes():
    labels = [video.label for video in output.spread(30, 0, list(range(12)))]
    counts = [labels.count(label) for label in range(12)]
    assert max(counts) - min(counts) == 1 and sum(counts) == 30
