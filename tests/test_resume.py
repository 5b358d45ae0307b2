"""A run that goes on is the run that never stopped; its checkpoints are whole, and never all lost."""

import csv
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from training_parts import OnePlayer, TwoPlayers, fit_clips, names, train

from tats import stopping, whole_files
from tats.flags import UserError
from tats.run_folder import only_here
from tats.vqgan import codebook, draws

ROOT = Path(__file__).resolve().parent.parent


class Noisy(OnePlayer):
    """Draws from every global source of random numbers while it trains, and while it tests."""

    def loss(self, batch):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return super().loss(batch) * noise


class Signalled(Noisy):
    """Gets a signal in a certain test batch, or in a certain training batch, twice."""

    def __init__(self, number=signal.SIGTERM, test=None, batch=None):
        super().__init__()
        self.number, self.test, self.batch, self.tests = number, test, batch, 0

    def training_step(self, batch, batch_idx):
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), self.number)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.tests += not self.trainer.sanity_checking
        if self.tests == self.test:
            os.kill(os.getpid(), self.number)
        super().validation_step(batch, batch_idx)


def last(run):
    return run / "checkpoints" / "last.ckpt"


def stored(run):
    """What must be the same, bit for bit: everything but sizes of logs, which hold times."""
    content = torch.load(last(run), weights_only=True)
    content.pop("log")
    return plain(content)


def plain(value):
    """Nested values with the bits of tensors in their place."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        found = [{name: value for name, value in row.items() if "speed" not in name} for row in csv.DictReader(file)]
    return [row for row in found if set(row.values()) - {row["step"], row["epoch"], ""}]


def same(one, other):
    assert stored(one) == stored(other)
    assert rows(one) == rows(other)
    assert names(one) == names(other)


@pytest.mark.parametrize("first", [2, 4])
def test_what_a_step_draws_does_not_depend_on_a_stop_before_it(tmp_path, first):
    settings = {"val_check_interval": 2, "keep_last": 1}
    _, whole = fit_clips(tmp_path / "whole", Noisy, max_steps=7, **settings)
    fit_clips(tmp_path / "two", Noisy, max_steps=first, **settings)
    same(whole, fit_clips(tmp_path / "two", Noisy, max_steps=7, **settings)[1])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("when", [{"test": 6}, {"batch": 4}, {"batch": 3}])
def test_a_signal_at_any_moment_changes_nothing(tmp_path, when, accumulate):
    settings = {"max_steps": 8 // accumulate, "val_check_interval": 2, "accumulate_grad_batches": accumulate}
    _, whole = fit_clips(tmp_path / "whole", Noisy, keep_last=1, **settings)
    with pytest.raises(SystemExit) as stopped:
        fit_clips(tmp_path / "two", lambda: Signalled(**when), keep_last=1, **settings)
    assert stopped.value.code == stopping.REQUEUE
    same(whole, fit_clips(tmp_path / "two", Noisy, keep_last=1, **settings)[1])


def test_the_same_few_batches_come_in_their_order_after_a_stop(tmp_path):
    settings = {"overfit_batches": 3}
    whole, _ = fit_clips(tmp_path / "whole", OnePlayer, max_steps=8, **settings)
    before, _ = fit_clips(tmp_path / "two", OnePlayer, max_steps=4, **settings)
    after, _ = fit_clips(tmp_path / "two", OnePlayer, max_steps=8, **settings)
    assert before.seen + after.seen == whole.seen


def test_slurm_is_asked_to_start_the_job_again(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stopping.requeue(signal.SIGUSR1, {"SLURM_JOB_ID": "7"})
    stopping.requeue(signal.SIGUSR1, {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"})
    stopping.requeue(signal.SIGTERM, {"SLURM_JOB_ID": "7"})
    stopping.requeue(signal.SIGUSR1, {})
    assert (tmp_path / "asked").read_text() == "requeue 7\nrequeue 8_1\n"
    assert "scontrol requeue 8_1: done" in capsys.readouterr().err


def test_a_checksum_stands_beside_every_checkpoint(tmp_path):
    _, run = train(tmp_path, max_steps=5)
    for name in names(run):
        path = run / "checkpoints" / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert whole_files.beside(path).read_text() == f"{digest}  {name}\n"


def test_one_wrong_byte_is_noticed_and_the_checkpoint_before_is_used(tmp_path, capsys):
    _, run = train(tmp_path, max_steps=4, val_check_interval=1)
    content = bytearray(last(run).read_bytes())
    content[len(content) // 2] ^= 1
    last(run).unlink()  # the best share its data
    last(run).write_bytes(content)
    module, _ = train(tmp_path, max_steps=5, val_check_interval=1)
    assert f"{last(run)} is damaged: its content is not what last.ckpt.sha256 says" in capsys.readouterr().err
    assert len(module.seen) == 1  # from the best, which is as new


def test_a_named_checkpoint_that_is_damaged_is_not_replaced_silently(tmp_path, capsys):
    _, run = train(tmp_path, max_steps=5, limit_val_batches=0)
    train(tmp_path, max_steps=6, limit_val_batches=0)
    last(run).write_bytes(b"")
    step4 = next((run / "checkpoints").glob("epoch=*step=4-*.ckpt"))
    before = step4.read_bytes()
    step4.write_bytes(before[:-10])
    with pytest.raises(UserError, match=r"step=4.*is damaged.*last-step=5\.ckpt is whole"):
        train(tmp_path, max_steps=7, resume=str(step4))
    module, _ = train(tmp_path, max_steps=7, resume=str(last(run)))
    assert "last-step=5.ckpt takes its place" in capsys.readouterr().err
    assert len(module.seen) == 2


def test_the_last_and_the_best_stay_as_many_as_are_wanted(tmp_path):
    _, run = train(tmp_path, max_epochs=3, val_check_interval=1, keep_last=3, keep_best=2, keep_steps=1)
    found = Counter(name.split("-")[0].split("=")[0] for name in names(run))
    assert found == {"last.ckpt": 1, "last": 2, "best": 2, "epoch": 1}
    assert "last-step=17.ckpt" in names(run)
    assert not list((run / "checkpoints").glob("*.partial"))
    assert {f"{name}.sha256" for name in names(run)} == {path.name for path in last(run).parent.glob("*.sha256")}


def test_what_a_kill_left_undone_is_done_when_the_run_goes_on(tmp_path, capsys):
    _, run = train(tmp_path, max_steps=6)
    best = next(last(run).parent.glob("best-*.ckpt"))
    whole_files.remove(best)  # killed before the checkpoint got its other name,
    note = whole_files.beside(last(run))
    note.rename(whole_files.beside(last(run), ".sha256.partial"))  # before its checksum took its place,
    note.write_text("0" * 64)
    (last(run).parent / "some.ckpt.partial").write_bytes(b"half")  # and in the middle of another one
    train(tmp_path, max_steps=7)
    assert "damaged" not in capsys.readouterr().err
    assert best.name in names(run)
    assert not list(last(run).parent.glob("*.partial"))


def test_a_full_disk_leaves_what_is_there_and_is_named(tmp_path, capsys):
    _, run = train(tmp_path, TwoPlayers(), max_steps=2)
    before = {path.name: path.read_bytes() for path in last(run).parent.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (last(run).stat().st_size // 2, hard))
    try:
        with pytest.raises(UserError, match=r"can't write .*last\.ckpt: File too large; earlier checkpoints"):
            train(tmp_path, TwoPlayers(), max_steps=7, val_check_interval=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "training goes on and tries again" in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in last(run).parent.iterdir()}
    assert before == {name: after[name] for name in before}
    assert not [name for name in after if name.endswith(".partial")]
    assert len(train(tmp_path, TwoPlayers(), max_steps=7)[0].seen) == 5


def test_events_have_no_step_twice_and_none_missing(tmp_path):
    _, run = train(tmp_path, max_steps=9)
    train(tmp_path, max_steps=9, resume=str(next(last(run).parent.glob("epoch=*step=4-*.ckpt"))))
    steps = [
        event.step
        for path in sorted(run.glob("events.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "train/loss"
    ]
    assert steps == list(range(9))


def test_two_runs_do_not_train_in_one_folder(tmp_path):
    _, run = train(tmp_path, max_steps=2)
    assert not (run / ".lock").exists()
    hold = f"import fcntl; file = open({str(run / '.lock')!r}, 'a'); fcntl.lockf(file, 6); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=r"another process trains in .*version_0; wait for it"):
            train(tmp_path, max_steps=3)
        other.communicate(b"\n")
    with only_here(run):  # the other one is gone
        assert (run / ".lock").exists()


@pytest.mark.parametrize("before, after", [(1, 1), (1, 2), (2, 1)])
def test_vectors_for_the_first_clusters_are_kept_over_a_stop(monkeypatch, before, after):
    clips, per_clip = 4, 3
    flat = torch.randn(clips * per_clip, 2)
    shares = []
    for rank in range(before):
        first = codebook.Codebook(4, 2, start="kmeans")
        first.gather(flat.chunk(before)[rank], clips // before, draws.Draws(5, 6, 0, 7))
        shares.append(first)
    monkeypatch.setattr(codebook, "processes", lambda: (0, before))
    monkeypatch.setattr(codebook, "together", lambda x: flat)
    kept = shares[0].gathered()
    found = []
    for rank in range(after):
        monkeypatch.setattr(codebook, "processes", lambda rank=rank: (rank, after))
        again = codebook.Codebook(4, 2, start="kmeans")
        again.gather_again(kept)
        ((vectors, count, drawn),) = again._gathered
        assert (count, drawn.key, drawn.first) == (clips // after, (5, 6, 0), 7)
        found.append(vectors)
    assert torch.equal(torch.cat(found), flat)


@pytest.mark.timeout(1500)  # some twenty runs, on whatever machine
def test_runs_that_are_killed_end_as_if_they_had_not_been():
    command = [sys.executable, str(ROOT / "tests/reliability/killed_training.py"), "--kills", "3", "--quick"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
