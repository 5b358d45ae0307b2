"""Formats of our own that may come from elsewhere: code shards, codes of runs, caches."""

import hashlib
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.format import Format, change_one, only
from fuzz.texts import changed_json


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


FORMATS = [
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
