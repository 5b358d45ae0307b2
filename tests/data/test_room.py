"""Room on the disk, in shared memory and for open files: looked at before it is needed."""

import resource
import shutil

import pytest

from tats.data import room
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.flags import UserError


@pytest.fixture
def free(monkeypatch, tmp_path):
    def leave(size):
        usage = shutil.disk_usage(tmp_path)._replace(free=size)
        monkeypatch.setattr("tats.data.room.shutil.disk_usage", lambda path: usage)

    return leave


def test_a_disk_that_is_too_small_is_told_with_both_numbers(free, tmp_path):
    free(5_000_000)
    room.check_disk(tmp_path / "not" / "there" / "yet", 5_000_000, "things")
    with pytest.raises(UserError, match=r"things take about 12 GB, and 5\.0 MB are free"):
        room.check_disk(tmp_path / "not" / "there", 12e9, "things")


def test_batches_that_do_not_fit_into_shared_memory_are_refused(free, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "SHARED", tmp_path)
    free(1_000_000)
    room.check_shared(2_000_000, workers=0)  # nothing travels
    with pytest.raises(UserError, match=r"--num_workers 3: .* about 2\.0 MB .* --shm-size"):
        room.check_shared(2_000_000, workers=3)


def test_a_loader_checks_shared_memory_when_it_is_made(free, monkeypatch, tmp_path):
    from code_parts import random_codes, write

    write(tmp_path, random_codes())
    monkeypatch.setattr(room, "SHARED", tmp_path)
    free(10)
    data = VideoData(DataConfig(data_path=str(tmp_path), vtokens=True, batch_size=4, num_workers=2), seed=0)
    with pytest.raises(UserError, match="shared memory"):
        data.train_loader()


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch, capsys):
    limits, told = [100, 400], []
    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda which, both: told.append(both))
    room.check_handles(50, "--num_workers 1")
    assert not told
    room.check_handles(300, "--num_workers 9")
    assert told == [(300, 400)] and "raised from 100 to 300" in capsys.readouterr().err
    with pytest.raises(UserError, match="need about 900 open files, and this user may have 400"):
        room.check_handles(900, "--num_workers 90")


def test_sizes_are_said_as_people_say_them():
    said = [room.in_words(size) for size in (12, 4_200, 56_000, 1.5e9, 3e15)]
    assert said == ["12 bytes", "4.2 kB", "56 kB", "1.5 GB", "3,000.0 TB"]
