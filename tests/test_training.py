"""Training runs of a tiny module: folders, checkpoints, resuming, signals, logs."""

import csv
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from training_parts import CADENCE, OnePlayer, Points, Settings, TwoPlayers, config, fit_clips, loader, names, train

from tats import flags, training
from tats.flags import UserError
from tats.throughput import Throughput
from tats.training import sizes

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("kind", [OnePlayer, TwoPlayers])
def test_max_steps_counts_steps_whatever_the_number_of_players(tmp_path, kind):
    module, run = train(tmp_path, kind(), max_steps=5)
    assert len(module.seen) == 5
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["step"] == 5


@pytest.mark.parametrize(
    "kind, workers, first", [(OnePlayer, 0, 3), (OnePlayer, 2, 6), (TwoPlayers, 0, 4), (TwoPlayers, 0, 9)]
)
def test_a_resumed_run_sees_the_clips_and_ends_with_the_weights_of_one_that_never_stopped(
    tmp_path, kind, workers, first
):
    whole, whole_run = fit_clips(tmp_path / "whole", kind, max_steps=11)
    before, _ = fit_clips(tmp_path / "two", kind, workers, max_steps=first)
    after, run = fit_clips(tmp_path / "two", kind, workers, max_steps=11)
    assert before.seen + after.seen == whole.seen
    for stored in ("state_dict", "optimizer_states"):
        pair = [
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[stored] for folder in (whole_run, run)
        ]
        torch.testing.assert_close(*pair, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"overfit_batches": 2},
        {"fast_dev_run": 2},
        {"limit_train_batches": 3},
        {"limit_val_batches": 0},
        {"profiler": "simple"},
        {"precision": "bf16"},
        {"precision": 16},
        {"precision": 64},
        {"deterministic": True},
        {"detect_anomaly": True},
        {"max_time": "00:00:01:00"},
        {"reload_dataloaders_every_epoch": True},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.5},
        {"check_val_every_n_epoch": 2},
        {"num_sanity_val_steps": -1},
    ],
)
def test_published_trainer_flags_run(tmp_path, changes):
    module, _ = fit_clips(tmp_path, OnePlayer, **{"max_epochs": 2, **changes})
    per_epoch = {"overfit_batches": 2, "limit_train_batches": 3}.get(next(iter(changes)), 4)
    assert len(module.seen) == (2 if "fast_dev_run" in changes else 2 * per_epoch)


@pytest.mark.parametrize(
    "changes, words",
    [({"max_time": "soon"}, "--max_time takes"), ({"strategy": "deepspeed"}, "the Trainer can't work")],
)
def test_flags_that_the_trainer_refuses_get_one_line(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        fit_clips(tmp_path, OnePlayer, max_steps=1, **changes)


@pytest.mark.parametrize("kind", [OnePlayer, TwoPlayers])
def test_checkpoints_come_at_the_published_moments(tmp_path, kind):
    _, run = train(tmp_path, kind(), max_epochs=4, val_check_interval=0.5)
    found = names(run)
    steps = {name.split("step=")[1].split("-")[0] for name in found if name.startswith("epoch=")}
    assert steps == {"4", "8", "12", "16", "20", "24"}
    assert len([name for name in found if "-8-train_loss=" in name]) == 3  # steps 8, 16 and 24
    assert len([name for name in found if name.startswith("best-")]) == 3
    assert "last.ckpt" in found
    assert not [name for name in found if "/" in name or name.endswith(".partial")]


def test_the_best_by_the_test_loss_stay(tmp_path):
    _, run = train(tmp_path, max_epochs=6)
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    kept = [float(name.split("val_loss=")[1][:-5]) for name in names(run) if name.startswith("best-")]
    assert sorted(kept) == pytest.approx(sorted(losses)[:3], abs=1e-4)


@pytest.mark.parametrize("kind", [OnePlayer, TwoPlayers])
@pytest.mark.parametrize("first", [3, 6, 8])  # within, at the end of, beyond an epoch
def test_resumed_counts_go_on_where_they_stopped(tmp_path, kind, first):
    train(tmp_path, kind(), max_steps=first)
    module, run = train(tmp_path, kind(), max_steps=14)
    assert run.name == "version_0"
    assert len(module.seen) == 14 - first
    whole, _ = train(tmp_path / "whole", kind(), max_steps=14)
    assert [len(each) for each in module.seen] == [len(each) for each in whole.seen[first:]]
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (stored["step"], stored["epoch"]) == (14, 2)


def test_the_log_has_no_step_twice_after_going_on(tmp_path):
    train(tmp_path, max_steps=3)
    _, run = train(tmp_path, max_steps=9)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == list(range(9))
    assert list(run.glob("events.*"))


def test_steps_that_are_done_again_replace_their_lines_in_the_log(tmp_path):
    _, run = train(tmp_path, max_steps=9)
    earlier = next((run / "checkpoints").glob("epoch=*step=4-*"))
    train(tmp_path, max_steps=9, resume=str(earlier))
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(9))


def test_never_begins_a_new_run_and_auto_takes_the_newest(tmp_path):
    assert train(tmp_path, max_steps=2)[1].name == "version_0"
    assert train(tmp_path, max_steps=2, resume="never")[1].name == "version_1"
    module, run = train(tmp_path, max_steps=3)
    assert (run.name, len(module.seen)) == ("version_1", 1)


def test_other_settings_are_named_before_a_run_goes_on(tmp_path):
    train(tmp_path, max_steps=2)
    with pytest.raises(UserError, match=r"seed was 1234, now 5\. --resume never"):
        train(tmp_path, max_steps=3, seed=5)
    assert (
        train(tmp_path, max_steps=3, resume=str(tmp_path / "version_0/checkpoints/last.ckpt"), seed=5)[1].name
        == "version_0"
    )


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path):
    _, run = train(tmp_path, TwoPlayers(), max_steps=2)
    with pytest.raises(UserError, match=r"last\.ckpt is of another model: .*other\.weight"):
        train(tmp_path, OnePlayer(), max_steps=3, resume=str(run / "checkpoints" / "last.ckpt"))


@pytest.mark.parametrize("inside", [".", "runs/tiny"])
def test_a_file_in_place_of_the_folder_is_refused(tmp_path, inside):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"--default_root_dir .*taken is a file; name a folder"):
        train(tmp_path / "taken" / inside)


def test_the_settings_beside_a_run_start_it_again(tmp_path):
    _, run = train(tmp_path, max_steps=2, val_check_interval=0.5)
    again = flags.parse(Settings, ["--config", str(run / "config.yaml")])
    assert again == Settings(trainer=config(tmp_path, max_steps=2, val_check_interval=0.5))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys):
    _, run = train(tmp_path, max_steps=5)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    module, _ = train(tmp_path, max_steps=6)
    assert f"{last} is damaged" in capsys.readouterr().err
    assert len(module.seen) == 2  # from the file of step 4


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "foreign"])
def test_what_is_no_checkpoint_of_a_run_is_refused_by_name(tmp_path, content):
    path = tmp_path / "some.ckpt"
    torch.save({"state_dict": {}}, path) if content == "foreign" else path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.ckpt"):
        train(tmp_path, max_steps=2, resume_from_checkpoint=str(path))


def test_a_missing_checkpoint_names_the_nearest(tmp_path):
    _, run = train(tmp_path, max_steps=2)
    with pytest.raises(UserError, match=r"did you mean 'last\.ckpt'"):
        train(tmp_path, resume_from_checkpoint=str(run / "checkpoints" / "lats.ckpt"))


def test_a_loss_that_is_no_number_ends_training_and_is_not_saved(tmp_path):
    with pytest.raises(UserError, match=r"not a number since batch 5 \(step 6\)"):
        train(tmp_path, OnePlayer(bad_batch=5), max_steps=9)
    for path in (tmp_path / "version_0" / "checkpoints").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in weights.values())


def test_checkpoints_hold_plain_values_and_tensors_only(tmp_path):
    _, run = train(tmp_path, max_steps=2)
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert {"kind", "config", "extra", "state_dict", "optimizer_states", "loops", "step"} <= set(stored)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    _, run = train(tmp_path, max_steps=2)
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"last\.ckpt: No space left on device; earlier checkpoints"):
        train(tmp_path, max_steps=3)
    assert last.read_bytes() == before
    assert not list(last.parent.glob("*.partial"))


def test_fast_dev_run_leaves_nothing_behind(tmp_path):
    module, run = train(tmp_path, fast_dev_run=True)
    assert len(module.seen) == 1
    assert not run.exists()


def test_without_checkpoints_and_logs_only_the_settings_stay(tmp_path):
    _, run = train(tmp_path, max_steps=2, enable_checkpointing=False, logger=False)
    assert [path.name for path in run.rglob("*") if path.is_file()] == ["config.yaml"]


def test_an_interval_beyond_the_epoch_is_refused_with_the_right_number(tmp_path):
    with pytest.raises(UserError, match="--val_check_interval 7: an epoch has only 6 batches; take at most 6"):
        train(tmp_path, val_check_interval=7)
    train(tmp_path, val_check_interval=7, check_val_every_n_epoch=None, max_steps=8)


def test_speed_and_waiting_are_logged(tmp_path):
    _, run = train(tmp_path, max_steps=4)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/clips_per_second"]]
    assert len(rows) == 4
    assert all(float(row["speed/clips_per_second"]) > 0 for row in rows)
    assert all(0 <= float(row["speed/waiting_for_data"]) <= 1 for row in rows)
    assert "speed/codes_per_second" not in rows[0]


@pytest.mark.parametrize("kind", [OnePlayer, TwoPlayers])
def test_waiting_is_the_time_until_a_batch_comes_and_nothing_else(tmp_path, monkeypatch, kind):
    now = [0.0]  # a clock that only data, steps, watchers and tests move
    monkeypatch.setattr(training, "Throughput", lambda every: Throughput(every, clock=lambda: now[0]))

    def taking(seconds, function):
        def call(*args, **more):
            now[0] += seconds
            return function(*args, **more)

        return call

    class Slow(Callback):
        on_train_batch_end = taking(4.0, Callback.on_train_batch_end)  # as a checkpoint that is written
        on_validation_batch_start = taking(100.0, Callback.on_validation_batch_start)

    monkeypatch.setattr(Points, "__getitem__", taking(1.5, Points.__getitem__))  # two of them are a batch
    monkeypatch.setattr(kind, "training_step", taking(1.0, kind.training_step))
    settings = config(tmp_path, max_steps=12, val_check_interval=3)
    more = {"name": "tiny", "cadence": CADENCE, "callbacks": [Slow()]}
    run = training.fit(kind(), loader(), loader(), settings, **more)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/clips_per_second"]]
    # a line is written after the step, before the watchers behind: theirs counts for the line that follows
    spent = [4.0, *([8.0] * 11)]
    assert [float(row["speed/waiting_for_data"]) for row in rows] == pytest.approx([3.0 / each for each in spent])
    assert [float(row["speed/clips_per_second"]) for row in rows] == pytest.approx([2.0 / each for each in spent])


def test_codes_per_second_follow_from_clips_per_second(tmp_path):
    module = OnePlayer()
    module.codes_per_clip = 20
    _, run = train(tmp_path, module, max_steps=2)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/clips_per_second"]]
    assert len(rows) == 2
    for row in rows:
        assert float(row["speed/codes_per_second"]) == pytest.approx(20 * float(row["speed/clips_per_second"]))


def test_one_line_says_how_many_weights_there_are(tmp_path, capsys):
    module = TwoPlayers()
    module.line.weight.requires_grad_(False)
    train(tmp_path / "top", module, max_steps=1, enable_model_summary=True, precision="bf16")
    said = capsys.readouterr().err
    assert "model: line 0.00 + other 0.00 million weights, 0.00 million of them trained" in said
    assert "summary" not in said and "line: 4 weights" not in said
    assert sizes(OnePlayer()) == ["model: line 0.00 million weights, all of them trained"]
    train(tmp_path / "full", TwoPlayers(), max_steps=1, enable_model_summary=True, weights_summary="full")
    assert "  other: 4 weights" in capsys.readouterr().err


SLOW = """
import sys, time, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from training_parts import OnePlayer, Settings, CADENCE, loader
from tats import flags
from tats.training import fit
class Slow(OnePlayer):
    def training_step(self, batch, batch_idx):
        print("batch", flush=True)
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)
def main():
    settings = flags.parse(Settings)
    fit(Slow(), loader(), None, settings.trainer, name="tiny", cadence=CADENCE, settings=settings)
flags.run(main)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 99), (signal.SIGUSR1, 99)])
def test_a_signal_leaves_a_checkpoint_and_the_command_that_goes_on(tmp_path, number, code):
    script = tmp_path / "slow.py"
    script.write_text(SLOW.format(tests=str(Path(__file__).parent)))
    argv = ["--default_root_dir", str(tmp_path / "my runs"), "--device", "cpu", "--no_enable_model_summary"]
    running = subprocess.Popen(
        [sys.executable, str(script), *argv, "--max_steps", "100000", "--resume", "never"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for _ in range(3):
        assert running.stdout.readline() == "batch\n"
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code, errors
    assert "Traceback" not in errors
    command = shlex.split(next(line for line in errors.splitlines() if line.startswith("go on with: "))[12:])
    last = tmp_path / "my runs" / "version_0" / "checkpoints" / "last.ckpt"
    assert command[-2:] == ["--resume", str(last)]
    assert command.count("--resume") == 1
    done = torch.load(last, weights_only=True)["step"]
    assert done >= 3
    command[command.index("100000")] = str(done + 2)
    again = subprocess.run(
        [sys.executable, *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("batch") == 2
    assert torch.load(last, weights_only=True)["step"] == done + 2


def test_progress_shows_the_whole_run_and_the_time_left(tmp_path, capsys):
    train(tmp_path, max_steps=4, enable_progress_bar=True)
    line = capsys.readouterr().err.replace("\r", "\n").splitlines()[-2]
    assert "4/4 [" in line
    assert "<00:00" in line
