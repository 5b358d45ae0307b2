"""The demo's diary, its commands and the small sums behind its page, without training anything."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tats import demo, demo_config, demo_features, demo_page, flags
from tats.demo_config import DemoConfig, Step
from tats.flags import UserError
from tats.metrics.features import RandomNet
from tats.report import Page

FAIL = "raise SystemExit(1)"


def step(name, out, more=""):
    """A step that makes its folder and notes in calls.txt that it ran."""
    code = f"import pathlib; o = pathlib.Path({str(out)!r}); (o / {name!r}).mkdir(exist_ok=True); "
    code += f"f = (o / 'calls.txt').open('a'); f.write({name!r}); f.close(); {more}"
    return Step(name, f"do {name}", name, ("-c", code))


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs the demo with other steps; says which of them ran."""
    out = tmp_path / "demo"
    judged = SimpleNamespace(numbers={})
    monkeypatch.setattr(demo_page, "judge_demo", lambda config: judged)
    monkeypatch.setattr(demo_page, "write_page", lambda config, found, result: out / "index.html")
    monkeypatch.setattr(demo, "machine", dict)

    def run(more=("", "", ""), **changes):
        monkeypatch.setattr(demo, "steps", lambda config: [step(n, out, m) for n, m in zip("abc", more)])
        calls = out / "calls.txt"
        calls.unlink(missing_ok=True)
        try:
            demo.run(DemoConfig(out=str(out), **changes))
        finally:
            run.ran = calls.read_text() if calls.exists() else ""
        return run.ran

    run.out = out
    return run


def test_what_is_done_is_reused_and_what_changed_runs_again_with_all_behind_it(play):
    assert play() == "abc"
    assert play() == ""
    (play.out / "b" / "old").touch()
    assert play(("", "pass", "")) == "bc"
    assert not (play.out / "b" / "old").exists()
    (play.out / "c").rmdir()
    assert play(("", "pass", "")) == "c"


def test_a_stopped_step_goes_on_and_its_seconds_add_up(play):
    wait = "import sys, time; time.sleep(0.3); sys.exit(130 * (not (o / 'go').exists()))"
    with pytest.raises(KeyboardInterrupt):
        play(("", wait, ""))
    assert play.ran == "ab"
    (play.out / "b" / "half").touch()
    (play.out / "go").touch()
    first = demo.Diary(play.out).seconds["b"]
    assert play(("", wait, "")) == "bc"
    assert (play.out / "b" / "half").exists()  # what it had made is gone on with
    assert demo.Diary(play.out).seconds["b"] >= first + 0.3
    assert play(("", wait, "")) == ""


def test_a_step_that_fails_ends_the_demo_with_one_line(play):
    with pytest.raises(UserError, match=r"step 2 of 4 \(do b\) ended with code 1"):
        play(("", FAIL, ""))
    assert play.ran == "ab"
    assert play() == "bc"


def test_fresh_removes_what_the_demo_made_and_nothing_else(play):
    play()
    (play.out / "mine.txt").touch()
    (play.out / "a" / "old").touch()
    assert play(fresh=True) == "abc"
    assert (play.out / "mine.txt").exists() and not (play.out / "a" / "old").exists()
    (play.out / "steps.json").write_text("{")
    with pytest.raises(UserError, match="start over with --fresh"):
        play()
    assert play(fresh=True) == "abc"


PARSED = """
import sys
import sample_short, tats.data.shapes_config, tats.evaluate_flags, tats.flags, tats.tokenize
import train_transformer, train_vqgan
from tats.demo_config import DemoConfig, steps
from tats.gpt.sample_config import LongConfig, ShortConfig
for size in ("full", "tiny"):
    kinds = {"data": tats.data.shapes_config.ShapesConfig, "vqgan": train_vqgan.Config,
             "codes": tats.tokenize.TokenizeConfig, "gpt": train_transformer.Config, "samples": ShortConfig,
             "long": LongConfig, "features": tats.evaluate_flags.EvaluateConfig}
    for step in steps(DemoConfig(size=size)):
        words = list(step.args[3:] if step.args[0] == "-m" else step.args[1:])
        tats.flags.parse(kinds.pop(step.name), words)
    assert not kinds, kinds
assert "torch" not in sys.modules
"""


def test_the_commands_of_both_sizes_parse_without_torch():
    done = subprocess.run([sys.executable, "-c", PARSED], cwd=demo.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_command_is_shown_as_one_types_it():
    listed = demo_config.steps(DemoConfig(size="tiny", out="there"))
    assert listed[0].text().startswith("python -m tats shapes --out there/data --n_train 120 ")
    long, features = listed[-2:]
    assert "--class_cond --save there/samples " in listed[-3].text()
    assert "--label red_circle green_square " in long.text() and "--frames 96 " in long.text()
    assert "--features_ckpt there/features.pt " in features.text() and features.makes == "features.pt"
    assert "--downsample 4 4 4 " in listed[1].text()
    assert listed[0].command()[0] == sys.executable
    with pytest.raises(UserError, match="--out takes a folder of its own"):
        flags.parse(DemoConfig, ["--out", "."])


def test_scores_by_the_feature_network_stand_under_its_own_name_with_their_counts():
    made = torch.Generator().manual_seed(0)
    test = torch.randint(0, 256, (6, 4, 16, 16, 3), generator=made, dtype=torch.uint8)
    near = test // 32 * 32
    batches = [{"video": test[:2].movedim(-1, 1).float() / 255 - 0.5}, {"frames": test[2:5]}]
    found = demo_features.judge_features(RandomNet(), test, {"near": near, "grey": test // 8 + 100, "some": batches})
    near_row, grey_row, some_row = found["sets"].values()
    assert found["names"] == ["FCD-random", "KCD-random"]
    assert 0 <= near_row["FCD-random"] < grey_row["FCD-random"]
    assert (near_row["n_generated"], some_row["n_generated"], some_row["n_real"]) == (6, 5, 6)
    assert demo_features.judge_pixels(test, test) == 1 > demo_features.judge_pixels(test, near) > 0.9
    page = Page("page")
    page.section("Scores")
    counts = {"reconstructions": {"valid": [5, 6]}}
    network = found["network"] | {"play_accuracy": 0.5}
    numbers = {"scores": counts, "psnr_db": 30.5, "ssim": 0.987, "codes_used": 7, "n_codes": 9}
    demo_features.show_features(page, numbers | {"features": found | {"network": network}})
    shown = page.html()
    for text in (
        "FCD-random",
        "5 against 6",
        "too few for a covariance",
        "30.5",
        "0.987",
        "7 of 9",
        "their 6 originals",
    ):
        assert text in shown
    assert "FVD" not in shown.replace("(not FVD)", "")
