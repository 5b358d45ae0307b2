"""Formats of numbers: HDF5, arrays, pickled arrays, code shards, codes of runs, caches."""

import hashlib
import io
import json
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.format import Format, change_one, only
from fuzz.texts import changed_json

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


def seed_shards(folder: Path) -> None:
    """Clips of one length in two shards, and whole videos."""
    import torch

    from tats.data.code_index import Index
    from tats.data.code_writer import CodeWriter

    clip = {"sequence_length": 4, "sample_every_n_frames": 1, "resolution": 8, "image_channels": 3, "window_stride": 2}
    codes = torch.arange(6 * 2 * 3 * 3).reshape(6, 2, 3, 3) % 40
    writer = CodeWriter(folder / "train", Index(40, (2, 3, 3), "abc", clip, ["x", "y"], ["v0", "v1"]), 80)
    writer.add(codes, [0, 1] * 3, [0, 0, 2, 2, 4, 4], [0, 1] * 3)
    writer.close()
    clip = {"sample_every_n_frames": 1, "resolution": 8, "image_channels": 3, "latent_frames": 2}
    whole = CodeWriter(folder / "test", Index(40, (2, 3, 3), "abc", clip, ["x", "y"], ["v0", "v1"]), 80)
    for video in (0, 1):
        whole.add_video(list(codes[video : video + 3].flatten(0, 1)), video, video)
    whole.close()


def change_shards(folder: Path, rng: random.Random) -> None:
    """Another index, or other codes; then every second time the index knows the checksum of these."""
    split = rng.choice(("train", "test"))
    if split == "test":
        change_split(folder / "test", rng)
    else:
        change_split(folder / "train", rng)
    if rng.random() < 0.5:
        renew_checksums(folder / split)


def renew_checksums(folder: Path) -> None:
    """The checksums of an index that is still one become those of its shards."""
    path = folder / "index.json"
    try:
        index = json.loads(path.read_bytes())
        for shard in index["shards"]:
            shard["sha256"] = hashlib.sha256((folder / shard["file"]).read_bytes()).hexdigest()
    except (ValueError, TypeError, KeyError, OSError, RecursionError):
        return  # it is no index any more
    path.write_text(json.dumps(index), encoding="utf-8")


def change_split(folder: Path, rng: random.Random) -> None:
    """The index of one split, or one of its shards."""
    if rng.random() < 0.7:
        change_one("index.json", changed_json)(folder, rng)
    else:
        change_one("*.bin", mutate.flipped)(folder, rng)


def parse_shards(folder: Path) -> Any:
    """Both indexes as JSON."""
    return [json.loads((folder / split / "index.json").read_text(encoding="utf-8")) for split in ("train", "test")]


def read_shards(folder: Path) -> Any:
    """Windows of every clip, and the last frames of each video."""
    from tats.data.codes import CodeShards
    from tats.data.config import DataConfig
    from tats.data.given import open_given

    found = []
    for split in ("train", "test"):
        source = CodeShards(DataConfig(str(folder), vtokens=True), split)
        for clip in range(min(len(source.starts), 4)):
            found.append(source.read(clip, 0, np.random.default_rng(0))["video"].sum())
        given = open_given(folder, split)
        found += [given.codes(which, 1).sum() for which in range(len(given.names))]
    return found


def seed_codes(folder: Path) -> None:
    """The codes of a run: two videos in a file, and the journal of a batch under way."""
    from tats.codes_file import Journal, Video, write_codes

    for name, keep in (("codes_00000", False), ("codes_00002", True)):
        videos = [Video(index, index, 0, "x") for index in (0, 1)]
        with Journal.create(folder / f"{name}.journal", videos, (3, 3)) as journal:
            for frame in range(4):
                journal.append(np.arange(18).reshape(2, 3, 3) + frame)
        if not keep:
            write_codes(folder / f"{name}.npz", videos, journal.rows())
            journal.path.unlink()


def change_codes(folder: Path, rng: random.Random) -> None:
    """The file or the journal."""
    if rng.random() < 0.6:
        change_one("*.npz", lambda data, rng: mutate.zipped(data, rng, inner_array))(folder, rng)
    else:
        change_one("*.journal", mutate.headers(0.3))(folder, rng)


def inner_array(name: str, data: bytes, rng: random.Random) -> bytes:
    """A member of an .npz."""
    return mutate.npy(data, rng)


def parse_zip(folder: Path) -> Any:
    """The list of members."""
    with zipfile.ZipFile(only(folder, "*.npz")) as file:
        return file.namelist()


def read_codes(folder: Path) -> Any:
    """All codes of the file, and those of the journal."""
    from tats.codes_file import Journal, read_codes

    found = [row.read().sum() for _, row in read_codes(folder / "codes_00000.npz").values()]
    with Journal.open(folder / "codes_00002.journal") as journal:
        found.append(journal.read(range(journal.done)).sum())
    return found


def seed_cache(folder: Path) -> None:
    """Stored statistics of clips."""
    import torch

    from tats.metrics.statistics import Statistics

    found = Statistics({"name": "n", "key": {"version": 1, "a": 1}}, clips=8, shape=(4, 8, 8))
    found.add(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8))
    found.save(folder / "cache.npz")


def read_cache(folder: Path) -> Any:
    """What is taken from the cache, or None where it is made anew."""
    from tats.metrics import statistics_cache

    found = statistics_cache._read(folder / "cache.npz", {"a": 1})
    return found and (found.features.sum(), found.places.sum(), found.moments.covariance().sum())


def seed_index(folder: Path) -> None:
    """The index of a folder of videos."""
    from tats.data.index import Entry, _save
    from tats.reader import Timeline

    line = Timeline(4, np.arange(4, dtype=np.int64) * 512, 25.0)
    _save(folder, [Entry("a.mp4", 5, 7, True, line), Entry("b.mp4", 0, 0, True, None, "broken")])
    (folder / ".tats_index.npz").rename(folder / "tats_index.npz")  # hidden files are not listed


def read_index(folder: Path) -> Any:
    """Its entries; none where it is made anew."""
    from tats.data.index import _load

    (folder / "tats_index.npz").rename(folder / ".tats_index.npz")
    entries = _load(folder)
    (folder / ".tats_index.npz").rename(folder / "tats_index.npz")
    return [(entry.name, entry.timeline) for entry in entries]


def changed_npz(data: bytes, rng: random.Random) -> bytes:
    """An .npz with another array in it."""
    return mutate.zipped(data, rng, inner_array)


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
    Format(
        "code shards (JSON, binary)",
        ("tats/data/code_index.py", "tats/data/codes.py"),
        seed_shards,
        change_shards,
        parse_shards,
        read_shards,
    ),
    Format(
        "codes of a run (npz, journal)",
        ("tats/codes_file.py", "tats/arrays.py"),
        seed_codes,
        change_codes,
        parse_zip,
        read_codes,
    ),
    Format(
        "statistics cache (npz)",
        ("tats/metrics/statistics_cache.py", "tats/metrics/statistics.py"),
        seed_cache,
        change_one("*.npz", changed_npz),
        parse_zip,
        read_cache,
    ),
    Format(
        "index of videos (npz)",
        ("tats/data/index.py",),
        seed_index,
        change_one("*.npz", changed_npz),
        parse_zip,
        read_index,
    ),
]
