"""A process that loads clips is killed: the batches come all the same, or the run ends and says why."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from tats.data import loader as loader_module
from tats.data.loader import Clips, Loader, Order, was_killed
from tats.flags import UserError


class Numbers:
    """Clips without files; the process that reads a clip of `deadly` kills itself, as long as there are lives."""

    span = 2

    def __init__(self, deadly=-1, lives=None):
        self.starts, self.clips = np.full(12, 3), np.ones(12, np.int64)
        self.deadly, self.lives = deadly, lives

    def read(self, video, start, draw):
        if video == self.deadly:
            with self.lives.get_lock():
                dies = self.lives.value > 0
                self.lives.value -= 1
            if dies:  # outside of the lock, which would never be given back
                os.kill(os.getpid(), signal.SIGKILL)
        return {"video": torch.tensor([video, start])}


def loader(source, workers, train=True):
    clips = Clips(source, seed=1, train=train)
    return Loader(clips, Order(len(clips), 2, 1, train), workers)


def batches(loader):
    return [batch["video"].tolist() for batch in loader]


@pytest.mark.parametrize("train", [True, False])
def test_batches_are_the_same_when_a_worker_was_killed(train, capsys):
    expected = loader(Numbers(), 0, train)
    killed = loader(Numbers(5, multiprocessing.Value("i", 1)), 2, train)
    for _ in range(2):  # the next epoch, too
        assert batches(killed) == batches(expected)
    said = capsys.readouterr().err
    assert said.count("are started again") == 1 and said.startswith("batch ")


def test_workers_that_are_killed_again_and_again_end_the_run(capsys, monkeypatch):
    monkeypatch.setattr(loader_module, "MOST_DEATHS", 1)  # a death is noticed within seconds, each time
    killed = loader(Numbers(5, multiprocessing.Value("i", 1000)), 1)
    with pytest.raises(UserError, match=r"killed 2 times before batch .*--num_workers 0"):
        batches(killed)


def test_a_worker_killed_from_outside_while_a_batch_is_waited_for(capsys):
    mine = loader(Numbers(), 2)
    found, expected = iter(mine), batches(loader(Numbers(), 0))
    first = next(found)["video"].tolist()
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    assert [first, *(batch["video"].tolist() for batch in found)] == expected


@pytest.mark.parametrize(
    ("error", "killed"),
    [
        (RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed."), True),
        (RuntimeError("received 0 items of ancdata"), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),  # it died while its tensors were fetched
        (EOFError(), True),
        (RuntimeError("shapes differ"), False),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), False),
        (PermissionError(13, "Permission denied"), False),
    ],
)
def test_the_death_of_a_worker_is_told_from_an_exception_out_of_it(error, killed):
    assert was_killed(error) == killed
