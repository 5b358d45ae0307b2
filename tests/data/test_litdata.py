"""Codes in the form of litdata: epochs are those of shards; what could run code is refused; litdata may be missing."""

import json
import sys

import pytest
import torch
from code_parts import random_codes, write

from tats.data.code_index import read_index, write_index
from tats.data.config import DataConfig
from tats.data.litdata_codes import ABOUT, is_litdata, write_litdata
from tats.data.module import VideoData
from tats.flags import UserError


def data_at(path):
    config = DataConfig(data_path=str(path), vtokens=True, batch_size=4, num_workers=0)
    return VideoData(config, seed=0)


def pretend(folder, formats):
    """A split that says it holds codes in chunks of these formats."""
    write(folder, random_codes())
    write_index(folder / "train", read_index(folder / "train"), ABOUT)
    (folder / "train" / "index.json").write_text(json.dumps({"chunks": [], "config": {"data_format": formats}}))
    return folder


def test_epochs_are_those_of_the_shards(tmp_path):
    pytest.importorskip("litdata", reason="litdata is an extra")
    shards = write(tmp_path / "shards", random_codes())
    (shards / "test").symlink_to(shards / "train")
    out = write_litdata(shards, tmp_path / "out")
    assert is_litdata(str(out), "train") and not is_litdata(str(shards), "train")
    ours, theirs = data_at(shards).train_loader(), data_at(out).train_loader()
    for one, two in zip(ours, theirs, strict=True):
        assert all(torch.equal(one[key], two[key]) for key in ("video", "label", "index"))


@pytest.mark.parametrize("formats", [["pickle"], ["numpy", "pickle"], [], "numpy", None])
def test_chunks_that_hold_anything_but_arrays_are_refused(tmp_path, formats):
    with pytest.raises(UserError, match="only arrays are read"):
        data_at(pretend(tmp_path, formats)).source("train")


def test_without_litdata_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(UserError, match=r"pip install --no-deps litdata"):
        data_at(pretend(tmp_path, ["numpy"])).source("train")
