"""Codes on disk: whole after every byte that a killed run may have got to, and read in pieces."""

import numpy as np
import pytest

from tats.codes_file import Journal, Video, read_codes, write_codes
from tats.flags import UserError

VIDEOS = [Video(4, 10, 1, "b"), Video(5, 11, 0, "a")]


def frames(n=6, seed=0):
    return np.random.default_rng(seed).integers(0, 50, (n, 2, 3, 2))


def journal_of(path, codes):
    with Journal.create(path, VIDEOS, (3, 2)) as journal:
        for frame in codes:
            journal.append(frame)
    return path.read_bytes()


def test_a_journal_holds_every_record_that_is_whole(tmp_path):
    codes = frames()
    data = journal_of(tmp_path / "a.journal", codes)
    head = data.index(b"\n") + 1
    record = (len(data) - head) // 6
    for size in range(head, len(data) + 1):
        (tmp_path / "cut.journal").write_bytes(data[:size])
        with Journal.open(tmp_path / "cut.journal") as journal:
            assert journal.videos == VIDEOS
            assert journal.done == (size - head) // record
            assert np.array_equal(journal.read(range(journal.done)), codes[: journal.done].swapaxes(0, 1))
            for frame in codes[journal.done :]:
                journal.append(frame)
        assert (tmp_path / "cut.journal").read_bytes() == data


def test_a_changed_record_ends_a_journal(tmp_path):
    data = journal_of(tmp_path / "a.journal", frames())
    head = data.index(b"\n") + 1
    record = (len(data) - head) // 6
    for at in range(head + 2 * record, head + 3 * record):
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "b.journal").write_bytes(changed)
        with Journal.open(tmp_path / "b.journal") as journal:
            assert journal.done == 2


def test_holes_and_records_in_the_wrong_place_are_not_codes(tmp_path):
    data = journal_of(tmp_path / "a.journal", np.zeros((3, 2, 3, 2), int))
    head = data.index(b"\n") + 1
    record = (len(data) - head) // 3
    (tmp_path / "b.journal").write_bytes(data[: head + record] + data[head : head + record] + bytes(record))
    with Journal.open(tmp_path / "b.journal") as journal:
        assert journal.done == 1


def test_a_journal_without_its_first_line_is_damaged(tmp_path):
    (tmp_path / "a.journal").write_bytes(b"\0\0\0")
    with pytest.raises(UserError, match="is damaged"):
        Journal.open(tmp_path / "a.journal")


def test_a_frame_of_another_size_is_refused(tmp_path):
    with Journal.create(tmp_path / "a.journal", VIDEOS, (3, 2)) as journal, pytest.raises(ValueError, match="is"):
        journal.append(np.zeros((2, 3, 3)))


def test_a_file_of_codes_is_what_numpy_reads_and_comes_back_in_pieces(tmp_path, monkeypatch):
    codes = frames()
    journal_of(tmp_path / "a.journal", codes)
    with Journal.open(tmp_path / "a.journal") as journal:
        write_codes(tmp_path / "codes.npz", journal.videos, journal.rows())
    with np.load(tmp_path / "codes.npz") as file:
        assert np.array_equal(file["codes"], codes.swapaxes(0, 1)) and file["codes"].dtype == np.int32
        assert [file[name].tolist() for name in ("seeds", "labels", "index")] == [[10, 11], [1, 0], [4, 5]]
    found = read_codes(tmp_path / "codes.npz")
    assert [found[index][0].seed for index in (4, 5)] == [10, 11]
    monkeypatch.setattr("tats.codes_file.PIECE_BYTES", 100)
    pieces = list(found[5][1].pieces())
    assert len(pieces) == 2 and np.array_equal(np.concatenate(pieces), codes[:, 1])
    write_codes(tmp_path / "again.npz", [found[4][0]], [found[4][1]])  # one file out of another
    assert np.array_equal(np.load(tmp_path / "again.npz")["codes"][0], codes[:, 0])


@pytest.mark.parametrize("cut", [1, 200, 600])
def test_a_cut_or_foreign_file_is_damaged(tmp_path, cut):
    journal_of(tmp_path / "a.journal", frames())
    with Journal.open(tmp_path / "a.journal") as journal:
        write_codes(tmp_path / "codes.npz", journal.videos, journal.rows())
    whole = (tmp_path / "codes.npz").read_bytes()
    (tmp_path / "codes.npz").write_bytes(whole[:-cut])
    with pytest.raises(UserError, match="is damaged"):
        read_codes(tmp_path / "codes.npz")
    np.savez(tmp_path / "codes.npz", codes=np.zeros((1, 2, 3, 2), np.int64), seeds=[0], labels=[0], index=[0])
    with pytest.raises(UserError, match="is damaged"):
        read_codes(tmp_path / "codes.npz")
