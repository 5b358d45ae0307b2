"""Videos that are folders of pictures: every folder below `<data_path>` that holds pictures is one video, and so is
every such folder in a zip file (`tats.data.stores`).

With `train` and `test` in `<data_path>` these are the splits; without both, the videos are split at random,
`--test_share` of them for testing, the same for every run with the same `--split_seed`. Pictures are sorted by the last
number in their names, as numbers: `frame_2.png` comes before `frame_10.png`.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats import limits
from tats.arrays import BROKEN, reason
from tats.data.config import DataConfig
from tats.data.left_out import check_short, check_unreadable
from tats.data.stores import FolderStore, ZipStore, has_pictures, is_picture, opened, zips_at
from tats.flags import UserError
from tats.opened import open_picture
from tats.reader import ReadError
from tats.video import change_channels, from_frames

GRID = "grid_"  # how the names of pictures begin that samplers write of many videos at once


class FrameFolder:
    """The videos of one split as a source of clips.

    `names` of the videos, `pictures` the sorted names of the pictures of each, `starts` int64 [n] windows, `clips`
    int64 [n] ones: a video gives one clip per epoch. A clip spans `sample_every_n_frames` times its frames with
    --image_folder, and the last window ends with the last picture. `labels` int64 [n] and `label_names` where
    `dataset.json` gives classes (else 0 and none).
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: no such folder or file, no pictures, too many unreadable videos, or none long enough.
        """
        from tqdm import tqdm

        self.config, self.span = config, config.span
        self.store, names = split_store(config, split)
        pictures, problems = {}, []
        for name in tqdm(names, desc=f"looking at {self.store.where}", unit=" videos", delay=0.5):
            try:
                pictures[name] = in_order(self.store.pictures(name))
                looked_at = pictures[name] if config.check_videos == "all" else [pictures[name][0], pictures[name][-1]]
                for file in looked_at:
                    read_picture(self.store.open(name, file))
            except ReadError as error:
                problems.append(f"{name}: {error}")
                pictures.pop(name, None)
        check_unreadable(f"{self.store.where} ({split})", problems, len(names), "folders")
        short = [name for name, files in pictures.items() if len(files) < config.span]
        check_short(f"{self.store.where} ({split})", short, len(pictures), config.span)
        self.names = [name for name in pictures if len(pictures[name]) >= config.span]
        self.pictures = [pictures[name] for name in self.names]
        classes = self.store.classes()
        self.label_names = classes.names if classes else []
        self.labels = np.array([classes.of(name) if classes else 0 for name in self.names], np.int64)
        self.starts = np.array([len(files) - config.span + 1 for files in self.pictures], np.int64)
        self.clips = np.ones(len(self.names), np.int64)
        self.ready = config.image_channels == 3

    def read(self, video: int, start: int, draw: np.random.Generator, raw: bool = False) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5]; `label` int.

        raw: the pictures come as they are after their resize, `frames` uint8 [T, res, res, 3] in place of `video`
        (not of clips of one channel, `ready`).

        Raises:
            ReadError: a picture cannot be read.
        """
        files = self.pictures[video][start : start + self.span : self.config.sample_every_n_frames]
        paths = [self.store.open(self.names[video], file) for file in files]
        label = int(self.labels[video])
        frames = load_frames(paths, self.config.resolution)
        if raw and self.ready:
            return {"frames": frames, "label": label}
        return {"video": change_channels(from_frames(frames), self.config.image_channels), "label": label}


class Pictures:
    """One video of a store, to be read whole."""

    def __init__(self, store: FolderStore | ZipStore, name: str):
        self.store, self.name = store, name

    def frames(self) -> np.ndarray:
        """Its pictures in their order, in the size they have: uint8 [T, H, W, 3].

        Raises:
            ReadError: one cannot be read, or they differ in size.
        """
        files = in_order([file for file in self.store.pictures(self.name) if not file.startswith(GRID)])
        frames = [np.asarray(read_picture(self.store.open(self.name, file))) for file in files]
        sizes = {frame.shape for frame in frames}
        if len(sizes) > 1:
            raise ReadError(f"{self.store.where}: the pictures of {self.name} differ in size ({sorted(sizes)[:3]})")
        return np.stack(frames)


def picture_videos(root: Path) -> list[Pictures]:
    """The videos that lie at `root` as pictures: in a zip file, in the zip files of a folder, or in folders; [] without
    any. Grids of samples are no videos.

    Raises:
        UserError: a zip file cannot be read.
    """
    if root.is_file() and root.suffix.lower() != ".zip":
        return []
    zips = [root] if root.is_file() else sorted(root.rglob("*.zip"))
    store: FolderStore | ZipStore
    if zips:
        store = ZipStore(zips)
    elif has_pictures(root):
        store = FolderStore(root)
    else:
        return []
    shown = [name for name in store.videos if any(not file.startswith(GRID) for file in store.pictures(name))]
    return [Pictures(store, name) for name in shown]


def load_pictures(paths: list[Any], resolution: int) -> torch.Tensor:
    """Pictures -> float32 [3, T, resolution, resolution] in [-0.5, 0.5]: middle square, Lanczos, as published."""
    return from_frames(load_frames(paths, resolution))


def load_frames(paths: list[Any], resolution: int) -> torch.Tensor:
    """The same as levels: uint8 [T, resolution, resolution, 3]."""
    return torch.from_numpy(np.stack([_square(read_picture(path), resolution) for path in paths]))


def read_picture(path: Any) -> Any:
    """The picture in RGB: grey is repeated, 16 bit becomes 8, palettes are resolved, transparency is dropped.

    `path` as a store opens it: a path, or a member of a zip file.

    Raises:
        ReadError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with open_picture(opened(path)) as picture:
            if picture.mode.startswith("I"):
                levels = np.asarray(picture).astype(np.int64)
                return Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            return picture.convert("RGB")
    except (*BROKEN, limits.TooLarge) as error:
        raise ReadError(f"{path}: {reason(error)}") from error


def sorted_pictures(folder: Path) -> list[str]:
    """Names of the pictures in a folder, by the last number of the name before its first dot.

    Raises:
        ReadError: a name has no number.
    """
    return in_order([entry.name for entry in os.scandir(folder) if is_picture(entry.name)])


def in_order(files: list[str]) -> list[str]:
    """Names of pictures by the last number of the name before its first dot.

    Raises:
        ReadError: a name has no number.
    """
    without = [file for file in files if not re.search(r"\d", file.split(".")[0])]
    if without:
        raise ReadError(f"pictures are sorted by the number in their names, and {sorted(without)[0]} has none")
    return sorted(files, key=lambda file: (int(re.findall(r"\d+", file.split(".")[0])[-1]), file))


def split_store(config: DataConfig, split: str) -> tuple[FolderStore | ZipStore, list[str]]:
    """Where the pictures of a split lie, and the sorted names of its videos there.

    Raises:
        UserError: the folder is missing or holds no picture, or too few videos for a split at random.
    """
    root = Path(config.data_path or "").expanduser()
    if config.data_path is None or not root.exists():
        raise UserError(f"--data_path {config.data_path}: --image_folder needs a folder of folders of pictures")
    both = [each for each in ("train", "test") if (root / each).is_dir() or (root / f"{each}.zip").is_file()]
    if both and split not in both:
        raise UserError(f"--data_path {root} has no folder {split}/. Make one, or leave out both train/ and test/")
    if zips := zips_at(root, split, config.resolution):
        store: FolderStore | ZipStore = ZipStore(zips)
    else:
        store = FolderStore(root / split if both else root)
    return store, store.videos if both else share_out(config, store.videos, split)


def share_out(config: DataConfig, names: list[str], split: str) -> list[str]:
    """Those of `names` that belong to a split at random, in their order.

    Raises:
        UserError: there are too few.
    """
    n_test = max(1, round(config.test_share * len(names))) if config.test_share else 0
    if n_test >= len(names) or (split == "test" and not n_test):
        raise UserError(
            f"--data_path {config.data_path}: {len(names)} video(s) cannot be split, with --test_share "
            f"{config.test_share}: lay them out in train/ and test/, or give another share"
        )
    order = np.random.default_rng(config.split_seed).permutation(len(names))
    chosen = order[:n_test] if split == "test" else order[n_test:]
    return [names[i] for i in sorted(chosen)]


def _square(picture: Any, resolution: int) -> np.ndarray:
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    return np.array(picture.resize((resolution, resolution), Image.Resampling.LANCZOS))
