"""Formats of numbers: HDF5, arrays, pickled arrays, code shards, codes of runs, caches."""

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.format import Format, change_one, only

FRAMES = 12


def hdf5(codes: bool) -> Any:
    """Writes a file of frames with texts, or of codes."""

    def seed(folder: Path) -> None:
        import h5py

        rng = np.random.default_rng(0)
        with h5py.File(folder / "data.h5", "w") as file:
            for split in ("train", "test"):
                shape, top = ((FRAMES, 6, 6), 40) if codes else ((FRAMES, 8, 8, 3), 256)
                data = rng.integers(0, top, shape).astype(np.int32 if codes else np.uint8)
                file.create_dataset(
                    f"{split}_data",
                    data=data,
                    chunks=None if codes else (4, *shape[1:]),
                    compression=None if codes else "gzip",
                )
                file[f"{split}_idx"] = np.array([0, 5, FRAMES])
            if codes:
                file.attrs["n_codes"] = 40
        if not codes:
            (folder / "train_text_description.txt").write_text("one\ttwo\nthree\n", encoding="utf-8")

    return seed


def change_hdf5(folder: Path, rng: random.Random) -> None:
    """Other bytes; or another table, type, shape, attribute; or other texts beside it."""
    import h5py

    path, texts = folder / "data.h5", folder / "train_text_description.txt"
    way = rng.random()
    if way < 0.5:
        path.write_bytes(mutate.headers(0.6)(path.read_bytes(), rng))
        return
    if way < 0.65 and texts.exists():
        texts.write_bytes(mutate.text(texts.read_bytes(), rng))
        return
    with h5py.File(path, "r+") as file:
        name = rng.choice(("train_data", "train_idx"))
        old = np.asarray(file[name])
        del file[name]
        way = rng.randrange(9)
        if way == 0:
            file.create_group(name)
        elif way == 1:
            file[name] = rng.choice(
                (h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink(f"/{name}"))
            )
        elif way == 2:
            file[name] = old.astype(rng.choice(("f4", "i1", "u8", "S3", "?", "i8")))
        elif way == 3:
            file[name] = old.reshape(rng.choice(((-1,), (1, *old.shape), (*old.shape, 1))))
        elif way == 4:
            file[name] = old[: rng.choice((0, 1, 2))]
        elif way == 5:
            file.create_dataset(name, shape=(10**9, *old.shape[1:]), dtype=old.dtype, chunks=(1, *old.shape[1:]))
        elif way == 6:
            file.create_dataset(name, data=["text"] * 3, dtype=h5py.string_dtype())
        elif way == 7:
            file.create_dataset(name, (3,), dtype=h5py.ref_dtype)[0] = file.ref
        else:
            file[name] = old.astype(np.int64) + rng.choice((1, -1, 100, 2**31))
        file.attrs["n_codes"] = rng.choice((40, 0, -1, 2**40, "text", 1.5, np.zeros(3)))


def parse_hdf5(folder: Path) -> Any:
    """The file and its tables."""
    import h5py

    with h5py.File(folder / "data.h5", "r") as file:
        return [file[f"train_{name}"].shape for name in ("data", "idx")]


def read_hdf5(codes: bool) -> Any:
    """Every window of every video, as training reads them; and as videos that are continued."""

    def read(folder: Path) -> Any:
        from tats.data.codes import CodeFile
        from tats.data.config import DataConfig
        from tats.data.given import open_given
        from tats.data.hdf5 import VideoFile

        config = DataConfig(
            str(folder / "data.h5"),
            sequence_length=2,
            resolution=8,
            vtokens=codes,
            spatial_length=4,
            text_cond=not codes,
        )
        source = CodeFile(config, "train") if codes else VideoFile(config, "train")
        for video in range(min(len(source.starts), 4)):
            source.read(video, int(source.starts[video]) - 1, np.random.default_rng(0))
        given = open_given(folder / "data.h5", "train")
        return given.names[:3], given.lengths[:3] if hasattr(given, "lengths") else given.latents[:3]

    return read


def seed_array(folder: Path) -> None:
    """An array of clips, and semantic maps."""
    np.save(folder / "clips.npy", np.zeros((2, 4, 8, 8, 3), np.uint8))
    np.save(folder / "maps.npy", np.zeros((6, 8, 8), np.uint8))


def read_arrays(folder: Path) -> Any:
    """Clips that are judged, and maps that clips carry."""
    from tats.data.captions import Maps
    from tats.metrics.sides import read_array

    clips = read_array(folder / "clips.npy")
    maps = Maps.__new__(Maps)
    maps.paths = [folder / "maps.npy"]
    return clips[0].sum(), maps.rows(0, 0, 4, 2).sum()


def seed_stft(folder: Path) -> None:
    """Sounds as they were published, by three protocols; and as a plain array."""
    array = np.linspace(0, 1, 4 * 8 * 6, dtype=np.float32).reshape(4, 8, 6)
    (folder / "a.pickle").write_bytes(pickle.dumps(array, protocol=2))
    (folder / "b.pickle").write_bytes(pickle.dumps(array, protocol=4))
    (folder / "c.pickle").write_bytes(pickle.dumps(array, protocol=5))
    np.save(folder / "d.npy", array)


def change_stft(folder: Path, rng: random.Random) -> None:
    """One of the files stays, broken."""
    files = sorted(folder.iterdir())
    kept = rng.choice(files)
    for path in files:
        if path != kept:
            path.unlink()
    data = kept.read_bytes()
    if kept.suffix == ".npy":
        data = mutate.npy(data, rng)
    elif rng.random() < 0.3:
        cut = len(data) - rng.randrange(min(len(data), 800))
        data = data[:cut] + rng.choice(
            (b".", b"0.", b"cos\nsystem\n(S'true'\ntR.", b"\x94R.", b"(lp0\n.", b"i", b"\x80\x04")
        )
    else:
        data = mutate.headers(0.25)(data, rng)
    kept.write_bytes(data)


def parse_stft(folder: Path) -> Any:
    """The opcodes of a pickle, or the header of an array."""
    import pickletools

    path = only(folder)
    if path.suffix == ".npy":
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            return np.lib.format.read_array_header_1_0(file)
    return sum(1 for _ in pickletools.genops(path.read_bytes()))


def read_stft(folder: Path) -> Any:
    """The pictures of a sound."""
    from tats.data.sound import read_stft, sound_pictures

    return sound_pictures(read_stft(only(folder)), 0, 2).shape


def parse_arrays(folder: Path) -> Any:
    """The headers of all .npy files."""
    for path in sorted(folder.glob("*.npy")):
        with io.BytesIO(path.read_bytes()) as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)


FORMATS = [
    Format("frames (HDF5)", ("tats/data/hdf5.py",), hdf5(False), change_hdf5, parse_hdf5, read_hdf5(False)),
    Format("codes (HDF5)", ("tats/data/hdf5.py",), hdf5(True), change_hdf5, parse_hdf5, read_hdf5(True)),
    Format(
        "arrays of clips and maps (npy)",
        ("tats/arrays.py",),
        seed_array,
        change_one("*.npy", mutate.npy),
        parse_arrays,
        read_arrays,
    ),
    Format(
        "sounds (pickled arrays, npy)",
        ("tats/data/pickled_arrays.py", "tats/arrays.py"),
        seed_stft,
        change_stft,
        parse_stft,
        read_stft,
    ),
]
