"""Codes at an address: fetched once, checked, fetched anew when damaged or replaced."""

import shutil

import fsspec
import pytest
import torch
from code_parts import random_codes, write

from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.remote import Wanted, cache_folder, fetch
from tats.flags import UserError


@pytest.fixture
def address(tmp_path):
    """An address in memory with the shards of some codes below it, and these."""
    codes = random_codes()
    folder = write(tmp_path / "codes", codes, shard_bytes=100)
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/far", recursive=True)
    yield "memory://far", codes
    store.rm("/far", recursive=True)


def data_at(address, cache, **settings):
    config = {"data_path": address, "vtokens": True, "batch_size": 4, "num_workers": 0, "cache_dir": str(cache)}
    return VideoData(DataConfig(**config, **settings), seed=0)


def all_of(data, codes):
    for batch in data.train_loader():
        assert torch.equal(batch["video"], codes[batch["index"]])
    return data.source("train").folder


def test_codes_of_an_address_are_those_of_a_folder_and_are_fetched_once(address, tmp_path, monkeypatch):
    place, codes = address
    folder = all_of(data_at(place, tmp_path / "cache"), codes)
    assert folder.parent == cache_folder(f"{place}/train", str(tmp_path / "cache"))
    monkeypatch.setattr("tats.data.remote._bring", lambda *given: pytest.fail("fetched again"))
    assert all_of(data_at(place, tmp_path / "cache"), codes) == folder


def test_a_damaged_file_of_the_cache_is_fetched_again(address, tmp_path, capsys):
    place, codes = address
    folder = all_of(data_at(place, tmp_path / "cache"), codes)
    shard = folder / "codes_00001.bin"
    shard.write_bytes(b"x" * shard.stat().st_size)
    assert all_of(data_at(place, tmp_path / "cache"), codes) == folder
    assert "codes_00001.bin is damaged: it is fetched again" in capsys.readouterr().err


def test_codes_that_were_replaced_are_other_files(address, tmp_path):
    place, codes = address
    first = all_of(data_at(place, tmp_path / "cache"), codes)
    other = random_codes() * 0 + 7
    shutil.rmtree(tmp_path / "codes")
    store = fsspec.filesystem("memory")
    store.rm("/far", recursive=True)
    store.put(str(write(tmp_path / "codes", other, shard_bytes=100)), "/far", recursive=True)
    assert all_of(data_at(place, tmp_path / "cache"), other) != first


def test_a_file_that_is_not_what_its_checksum_says_never_gets_its_name(address, tmp_path):
    place, _ = address
    with pytest.raises(UserError, match="is not the file its index describes"):
        fetch(f"{place}/train", [Wanted("codes_00000.bin", 100, "0" * 64)], tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "place, settings, message",
    [
        ("memory://nowhere", {}, "memory://nowhere/train/index.json: no such file"),
        ("nothing://x", {}, "cannot be read: Protocol not known"),
        ("memory://far", {"vtokens": False}, "only codes are read: give --vtokens"),
    ],
)
def test_addresses_that_cannot_be_read_are_told(place, settings, message, tmp_path):
    config = {"data_path": place, "vtokens": True, "num_workers": 0, "cache_dir": str(tmp_path), **settings}
    with pytest.raises(UserError, match=message):
        VideoData(DataConfig(**config), seed=0).source("train")
