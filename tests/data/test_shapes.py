"""The embedded world keeps its laws, and its files hold what was drawn."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tats.data.shapes import (
    CLASSES,
    CLICKS,
    COLOURS,
    HALF,
    HIGH,
    LOW,
    SHAPES,
    SOUND_RATE,
    SPEEDS,
    Truth,
    clicks,
    coverage,
    draw_frames,
    draw_truth,
    main,
    make,
    render,
    render_many,
)
from tats.data.shapes_config import ShapesConfig
from tats.flags import UserError
from tats.media import read_frames, read_sound

SMALL = {"n_train": 12, "n_test": 12, "frames": 16, "resolution": 32, "num_workers": 1}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "data"
    make(ShapesConfig(out=str(out), **SMALL))
    return out


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_the_square_stays_inside_and_speed_is_constant():
    for index in range(60):
        truth = draw_truth(0, index, frames=200)
        positions = truth.positions
        assert positions.min() >= LOW and positions.max() <= HIGH
        touched = {r.frame for r in truth.reflections}
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        free = [k for k in range(199) if k + 1 not in touched]
        assert np.allclose(steps[free], SPEEDS[truth.speed], atol=1e-8)


def test_reflections_are_where_the_velocity_changes_sign():
    truth = Truth(0, "red", "circle", "fast", (0.80, 0.20), (0.04, -0.02), 60)
    assert [(r.frame, r.wall) for r in truth.reflections][:2] == [(2, "right"), (4, "top")]
    assert np.allclose(truth.positions[:3, 0], [0.80, 0.84, 0.84])  # 0.88 reflected at 0.86
    assert np.allclose(truth.positions[3:5, 1], [0.14, 0.16], atol=1e-9)
    for r in truth.reflections:
        axis = int(r.wall in ("top", "bottom"))
        near = LOW if r.wall in ("left", "top") else HIGH
        assert abs(truth.positions[r.frame, axis] - near) <= SPEEDS["fast"]


def test_classes_are_balanced_and_everything_else_varies():
    truths = [draw_truth(0, index) for index in range(1200)]
    counts = {label: sum(t.label == label for t in truths) for label in CLASSES}
    assert set(counts.values()) == {100}
    assert 0.45 < np.mean([t.speed == "fast" for t in truths]) < 0.55
    angles = np.histogram([np.arctan2(t.velocity[1], t.velocity[0]) for t in truths], 8, (-np.pi, np.pi))[0]
    places = np.histogram2d(*np.transpose([t.start for t in truths]), 3, [[LOW, HIGH]] * 2)[0]
    assert angles.min() > 110 and places.min() > 95


def test_seed_split_and_index_make_different_videos():
    drawn = [draw_truth(*key[:2], split=key[2]) for key in [(0, 0, "train"), (1, 0, "train"), (0, 0, "test")]]
    assert len({t.start for t in drawn}) == 3
    assert draw_truth(0, 5, frames=8).start == draw_truth(0, 5, frames=99).start


@pytest.mark.parametrize("velocity, words", [
    ((0.04, 0.001), "to the right"), ((-0.03, -0.03), "up and to the left"), ((0.001, -0.04), "up"),
    ((0.0, 0.04), "down"), ((-0.04, 0.0), "to the left"), ((0.03, 0.03), "down and to the right"),
])  # fmt: skip
def test_captions_tell_speed_class_and_first_direction(velocity, words):
    truth = Truth(0, "red", "circle", "fast", (0.5, 0.5), velocity, 16)
    assert truth.caption == f"a fast red circle moving {words}"


@pytest.mark.parametrize("shape, area", [("circle", np.pi / 4), ("square", 1), ("triangle", 0.5)])
@pytest.mark.parametrize("resolution", [32, 64, 100])
def test_the_covered_area_is_the_shapes(shape, area, resolution):
    rng = np.random.default_rng(0)
    places = rng.uniform(LOW, HIGH, (50, 2))
    cover, corner = coverage(places, np.full(50, SHAPES.index(shape)), resolution)
    assert cover.min() >= 0 and cover.max() <= 1 + 1e-12
    assert np.allclose(cover.sum((1, 2)), area * (2 * HALF * resolution) ** 2, rtol=0.002)
    across = np.arange(cover.shape[2]) + 0.5 + corner[:, 1, None]  # [50, P]
    assert np.allclose((cover.sum(1) * across).sum(1) / cover.sum((1, 2)), places[:, 0] * resolution, atol=0.01)


def test_coverage_equals_counting_fine_points():
    place, resolution, fine = np.array([[0.4321, 0.5678]]), 32, 64
    for number, shape in enumerate(SHAPES):
        cover, corner = coverage(place, np.array([number]), resolution)
        size = cover.shape[1]
        row, column = ((np.arange(size * fine) + 0.5) / fine + corner[0, i] for i in (0, 1))
        y, x = row[:, None] / resolution - place[0, 1], column[None] / resolution - place[0, 0]
        inside = {
            "circle": x**2 + y**2 <= HALF**2,
            "square": (abs(x) <= HALF) & (abs(y) <= HALF),
            "triangle": (abs(y) <= HALF) & (2 * abs(x) <= y + HALF),
        }[shape]
        counted = inside.reshape(size, fine, size, fine).mean((1, 3))
        assert np.abs(cover[0] - counted).max() < 0.03


def test_a_shape_that_leaves_the_picture_is_cut_off():
    rows = np.array([[0.5, 0.5], [1.0, 0.5], [1.14, 0.5], [9.0, -9.0]])
    frames = draw_frames(rows, np.ones(4, int), np.tile(COLOURS["red"], (4, 1)), 50)
    lit = (frames[..., 0].astype(float) / 255).sum((1, 2))
    assert np.allclose(lit, [14 * 14, 14 * 7, 0, 0], atol=0.5)


def test_many_videos_are_drawn_as_one_by_one():
    truths = [draw_truth(0, index) for index in range(24)]
    assert np.array_equal(render_many(truths, 32), np.stack([render(truth, 32) for truth in truths]))


def test_another_process_draws_the_same_pixels():
    code = (
        "import hashlib; from tats.data.shapes import draw_truth, render\n"
        "print(hashlib.sha256(b''.join(render(draw_truth(3, i), 64).tobytes() for i in range(12))).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) == 65


def test_clicks_start_with_their_frame_and_have_their_tone():
    truth = Truth(0, "red", "circle", "fast", (0.80, 0.20), (0.04, -0.02), 48)
    sound = clicks(truth, fps=8)
    assert len(sound) == 6 * SOUND_RATE and np.abs(sound).max() <= 1
    for r in truth.reflections[:2]:
        start = r.frame * SOUND_RATE // 8
        assert np.all(sound[start - 200 : start] == 0)
        click = sound[start : start + round(0.06 * SOUND_RATE)]
        spectrum = np.abs(np.fft.rfft(click, 16000))
        assert abs(spectrum.argmax() - CLICKS[r.wall]) < 12
    assert np.all(clicks(Truth(0, "red", "circle", "slow", (0.5, 0.5), (0.02, 0), 16), 16) == 0)


def test_files_lie_as_a_users_own_would(written):
    assert sorted(p.name for p in (written / "train").iterdir() if p.is_dir()) == sorted(CLASSES)
    for split in ("train", "test"):
        files = sorted(p.relative_to(written / split).as_posix() for p in (written / split).rglob("*.mp4"))
        captions = json.loads((written / split / "captions.json").read_text())
        truth = json.loads((written / split / "truth.json").read_text())
        assert files == sorted(captions) == sorted(truth) and len(files) == 12
        for name in files:
            assert truth[name]["label"] == name.split("/")[0]
            assert captions[name] == truth[name]["caption"]
            assert len(truth[name]["positions"]) == 16
    assert not list(written.rglob("*.part"))


def test_files_hold_the_rendered_frames_at_45_db_and_the_clicks(written):
    truth = json.loads((written / "test" / "truth.json").read_text())
    for name, told in truth.items():
        drawn = draw_truth(0, told["index"], split="test", frames=16)
        assert np.allclose(told["positions"], drawn.positions, atol=1e-8)
        assert psnr(read_frames(written / "test" / name), render(drawn, 32)) >= 45
        sound, clean = read_sound(written / "test" / name, SOUND_RATE), clicks(drawn, 16)
        assert np.abs(sound[: len(clean)] - clean).max() < 0.15


@pytest.mark.parametrize("resolution", [64, 128])
def test_larger_pictures_reach_45_db_too(tmp_path, resolution):
    make(ShapesConfig(str(tmp_path), n_train=0, n_test=12, frames=8, resolution=resolution, sound=False, num_workers=1))
    for index, path in enumerate(sorted((tmp_path / "test").rglob("*.mp4"), key=lambda p: p.stem)):
        assert psnr(read_frames(path), render(draw_truth(0, index, split="test", frames=8), resolution)) >= 45
        with pytest.raises(UserError, match="no audio track"):
            read_sound(path, SOUND_RATE)


def test_several_processes_write_the_same_files(tmp_path, monkeypatch, written):
    monkeypatch.setattr("tats.data.shapes_files.FEW", 0)
    monkeypatch.setattr("tats.data.shapes_files.CHUNK", 6)
    make(ShapesConfig(out=str(tmp_path / "again"), **{**SMALL, "num_workers": 2}))
    for path in written.rglob("*.*"):
        other = tmp_path / "again" / path.relative_to(written)
        if path.is_file():
            assert other.read_bytes() == path.read_bytes(), path.name


def test_a_second_call_writes_only_what_is_missing(tmp_path):
    config = ShapesConfig(str(tmp_path / "d"), n_train=12, n_test=0, frames=4, resolution=16, num_workers=1)
    make(config)
    files = sorted((tmp_path / "d").rglob("*.mp4"))
    first, times = files[0].read_bytes(), {p: p.stat().st_mtime_ns for p in files}
    files[0].unlink()
    make(config)
    assert files[0].read_bytes() == first
    assert all(p.stat().st_mtime_ns == times[p] for p in files[1:])


def test_other_settings_and_foreign_folders_are_refused(tmp_path, written):
    with pytest.raises(UserError, match=r"--frames 16 \(now 17\)"):
        make(ShapesConfig(out=str(written), **{**SMALL, "frames": 17}))
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="has not written"):
        make(ShapesConfig(out=str(tmp_path)))


@pytest.mark.parametrize("line", ["--resolution 33", "--n_train -1", "--frames 0", "--n_train 0 --n_test 0"])
def test_impossible_settings_get_one_line(line, tmp_path):
    with pytest.raises(UserError, match=line.split()[0]):
        main(["--out", str(tmp_path / "x"), *line.split()])


def test_the_verb_takes_no_sound(tmp_path):
    main(f"--out {tmp_path / 'q'} --n_train 1 --n_test 0 --frames 4 --resolution 16 --no_sound --num_workers 1".split())
    with pytest.raises(UserError, match="no audio track"):
        read_sound(tmp_path / "q/train/red_circle/000000.mp4", 16000)
