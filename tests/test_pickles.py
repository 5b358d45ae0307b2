"""Files made to run code when they are loaded: no reader runs it, each says why it refuses the file."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tats import checkpoint, unpickle
from tats.arrays import ArrayError, read_npy, read_npz
from tats.data import index
from tats.data.captions import Maps
from tats.data.hdf5 import Table
from tats.data.sound import read_stft
from tats.flags import UserError
from tats.metrics import statistics_cache
from tats.metrics.features import load as load_features
from tats.metrics.stored import read_state
from tats.run_folder import read_progress


class Trap:
    """Touches a file when a pickle of it is loaded in the usual way."""

    def __init__(self, hit: Path, by: str = "system"):
        self.hit, self.by = str(hit), by

    def __reduce__(self):
        if self.by == "system":
            return os.system, (f"touch {self.hit}",)
        if self.by == "eval":
            return eval, (f"open({self.hit!r}, 'w')",)
        return io.open, (self.hit, "w")


def contents(hit: Path) -> dict[str, object]:
    """Objects with a trap in them: alone, deep inside, as a key's value, inside of an array, behind tensors."""
    return {
        "alone": Trap(hit),
        "evaluated": Trap(hit, "eval"),
        "in a checkpoint": {
            "kind": "vqgan",
            "config": {},
            "state_dict": {"a": torch.zeros(2)},
            "extra": Trap(hit, "open"),
        },
        "in the flags": {"state_dict": {}, "hyper_parameters": {"args": Trap(hit)}},
        "deep": {"state_dict": {"w": [{"x": (1, [Trap(hit, "open")])}]}},
        "in an array of objects": {"state_dict": np.array([Trap(hit), 1], object)},
        "after tensors": [torch.ones(3), Trap(hit)],
    }


def files(folder: Path, hit: Path) -> list[Path]:
    """Every content as torch's zip form, as its old form, as a tar, and as a plain pickle of several protocols."""
    made = []
    for number, content in enumerate(contents(hit).values()):
        for kind, zipped in (("zip", True), ("old", False)):
            path = folder / f"{number}_{kind}.ckpt"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            made.append(path)
        for protocol in (0, 2, 4):
            path = folder / f"{number}_{protocol}.ckpt"
            path.write_bytes(pickle.dumps(content, protocol))
            made.append(path)
    return [*made, tarred(folder, hit)]


def tarred(folder: Path, hit: Path) -> Path:
    """The form that torch wrote before its version 0.1.10: a tar of pickles."""
    import tarfile

    path = folder / "tar.ckpt"
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(Trap(hit), 2)
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


def test_the_trap_works(tmp_path):
    hit = tmp_path / "hit"
    for name, content in contents(hit).items():
        hit.unlink(missing_ok=True)
        pickle.loads(pickle.dumps(content))
        assert hit.exists(), name


def test_no_checkpoint_runs_code(tmp_path, capsys):
    hit = tmp_path / "hit"
    readers = [
        unpickle.load,
        checkpoint.read_checkpoint,
        read_progress,
        load_features,
        lambda path: read_state(path, "a network", "weight"),
    ]
    for path in files(tmp_path, hit):
        for reader in readers:
            with pytest.raises(UserError, match=path.name):
                reader(path)
            assert not hit.exists(), path.name


def test_a_trap_inside_of_a_zip_that_torch_reads_is_refused_by_its_name(tmp_path):
    torch.save({"state_dict": {"a": Trap(tmp_path / "hit")}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"refused.*system.*Nothing was executed"):
        unpickle.load(tmp_path / "a.ckpt")


def test_a_pickle_put_into_a_checkpoint_by_hand_is_not_run(tmp_path):
    """The zip stays valid, only its pickle is another one."""
    hit = tmp_path / "hit"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, tmp_path / "good.ckpt")
    with zipfile.ZipFile(tmp_path / "good.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
        for about in good.infolist():
            data = good.read(about)
            bad.writestr(about, pickle.dumps(Trap(hit), 2) if about.filename.endswith("data.pkl") else data)
    with pytest.raises(UserError, match="refused"):
        unpickle.load(tmp_path / "bad.ckpt")
    assert not hit.exists()


def test_no_sound_array_or_cache_runs_code(tmp_path, capsys):
    hit = tmp_path / "hit"
    for number, content in enumerate(contents(hit).values()):
        for protocol in range(6):
            (tmp_path / "a.pickle").write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(UserError, match=r"only plain arrays|holds no array|persistent"):
                read_stft(tmp_path / "a.pickle")
        objects = np.array([content, None], object)
        np.save(tmp_path / f"{number}.npy", objects, allow_pickle=True)
        np.savez(tmp_path / f"{number}.npz", network=objects, names=objects, version=objects)
        for reader in (read_npy, read_stft):
            with pytest.raises(UserError, match="Python objects"):
                reader(tmp_path / f"{number}.npy")
        with pytest.raises(ArrayError, match="Python objects"):
            read_npz(tmp_path / f"{number}.npz")
        assert statistics_cache._read(tmp_path / f"{number}.npz", {}) is None
        (tmp_path / f"{number}.npz").replace(tmp_path / index.NAME)
        assert index._load(tmp_path) == []
    maps = Maps.__new__(Maps)
    maps.paths = [tmp_path / "0.npy"]
    with pytest.raises(UserError, match="Python objects"):
        maps.rows(0, 0, 1, 1)
    assert not hit.exists()


def test_references_and_opaque_pickles_in_hdf5_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    hit, path = tmp_path / "hit", tmp_path / "a.h5"
    data = np.frombuffer(pickle.dumps(Trap(hit)), np.uint8)
    with h5py.File(path, "w") as file:
        file["train_idx"] = np.array([0])
        file.create_dataset("train_data", (2, 4, 4, 3), dtype=h5py.ref_dtype)[0, 0, 0, 0] = file.ref
        file["test_idx"] = np.array([0])
        file["test_data"] = np.array(data.tobytes(), dtype=np.void(data.tobytes()).dtype)
    for split in ("train", "test"):
        with pytest.raises(UserError, match="no plain numbers"):
            Table(path, split, 4)
    assert not hit.exists()
