"""The benchmark from command to file compares what it says it compares."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from benchmarks import clip
from benchmarks.clip import Config, commands, compare_logits, measure, published_process, save_models, table
from benchmarks.published_sampler import PublishedSampler
from tats.media import read_frames

CONFIG = Config(size="ci", precisions=["fp32"], long_precisions=["fp32"], latents=5, steps=2, top_k=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("clip")
    save_models(CONFIG.size, made)
    return made


@pytest.fixture(scope="module")
def published(folder):
    """Where the published process has left its short clip, and its times."""
    save = folder / "published"
    return save, measure(commands(CONFIG, folder)["short", "published"], save)


def test_both_short_processes_make_the_same_clip(folder, published):
    save, slow = published
    line = commands(CONFIG, folder)["short", "fp32"]
    times = measure([*line, "--as_published"], folder / "ours")
    codes = torch.load(save / "codes.pt").numpy()
    assert len(np.unique(codes)) > 1
    assert np.array_equal(np.load(folder / "ours" / "codes.npz")["codes"], codes)
    (film,) = (folder / "ours").rglob("*.mp4")
    assert np.array_equal(read_frames(film), read_frames(save / "video.mp4"))
    for found in (slow, times):
        assert 0 < found["first"] <= found["wall"] + 0.1 and found["processor"] > 0


def test_the_step_that_is_timed_gives_the_published_logits(folder):
    assert compare_logits(folder, ["fp32"])["fp32"]["relative_error"] < 1e-5


def test_the_published_window_is_scaled_to_the_whole_video(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clip, "since", lambda started: {"wall": 5.0, "processor": 7.0})
    steps = iter([{"wall": 2.0, "processor": 1.0}, {"wall": 3.0, "processor": 4.0}])
    monkeypatch.setattr(clip, "mean_step", lambda *arguments: next(steps))
    config = dataclasses.replace(CONFIG, published="long", folder=str(folder), save=str(tmp_path))
    published_process(config)
    assert json.loads(capsys.readouterr().out) == {
        "wall": 16 * 2.0 + 4 * (5.0 + 15 * 3.0) - 5.0,  # frames of 16 codes; the first is made without a context
        "processor": 16 * 1.0 + 4 * (7.0 + 15 * 4.0) - 7.0,
    }
    assert read_frames(tmp_path / "video.mp4").shape == read_frames(tmp_path / "video").shape == (20, 16, 16, 3)


def test_steps_of_the_published_window_are_timed():
    gpt = clip.make_model("ci")
    with torch.inference_mode():
        added = clip.window_added(PublishedSampler(gpt), dataclasses.replace(CONFIG, latents=10_000))
    assert added["wall"] > 0 and added["processor"] > 0  # far more is scaled than was spent


def test_the_table_says_how_many_times_faster():
    slow, fast = {"wall": 8.0, "processor": 6.0, "first": 8.0}, {"wall": 4.0, "processor": 2.0, "first": 1.0}
    keys = [(video, way) for video in ("short", "long") for way in ("published", "fp32")]
    rows = table(CONFIG, {key: [slow if key[1] == "published" else fast] for key in keys})
    assert rows[0] == ["short", "published", 16, 8.0, 6.0, 2.0, 8.0, 1.0, 1.0, 1.0]
    assert rows[3] == ["long", "fp32", 20, 4.0, 2.0, 5.0, 1.0, 2.0, 3.0, 8.0]
