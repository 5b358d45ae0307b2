"""Folders of pictures: every folder below `<data_path>` that holds pictures is one video.

With `<data_path>/train/` and `<data_path>/test/` these are the splits; without both, the folders are split at random,
`--test_share` of them for testing, the same for every run with the same `--split_seed`. Pictures are sorted by the last
number in their names, as numbers: `frame_2.png` comes before `frame_10.png`.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.config import DataConfig
from tats.data.left_out import check_short, check_unreadable
from tats.flags import UserError
from tats.reader import ReadError
from tats.video import change_channels, from_frames

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")


class FrameFolder:
    """The folders of one split as a source of clips.

    `names` folders below `root`, `pictures` the sorted file names in each, `starts` int64 [n] windows, `clips` int64
    [n] ones: a video gives one clip per epoch. A clip spans `sample_every_n_frames` times its frames, and the last
    window ends with the last picture.
    """

    def __init__(self, config: DataConfig, split: str):
        """Raises:
        UserError: no such folder, no pictures, too many unreadable folders, or none long enough.
        """
        from tqdm import tqdm

        self.config, self.span = config, config.span
        self.root, names = split_frames(config, split)
        pictures, problems = {}, []
        for name in tqdm(names, desc=f"looking at {self.root}", unit=" folders", delay=0.5):
            try:
                pictures[name] = sorted_pictures(self.root / name)
                looked_at = pictures[name] if config.check_videos == "all" else [pictures[name][0], pictures[name][-1]]
                for file in looked_at:
                    read_picture(self.root / name / file)
            except ReadError as error:
                problems.append(f"{name}: {error}")
                pictures.pop(name, None)
        check_unreadable(f"{self.root} ({split})", problems, len(names), "folders")
        short = [name for name, files in pictures.items() if len(files) < config.span]
        check_short(f"{self.root} ({split})", short, len(pictures), config.span)
        self.names = [name for name in pictures if len(pictures[name]) >= config.span]
        self.pictures = [pictures[name] for name in self.names]
        self.starts = np.array([len(files) - config.span + 1 for files in self.pictures], np.int64)
        self.clips = np.ones(len(self.names), np.int64)

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5]; `label` 0.

        Raises:
            ReadError: a picture cannot be read.
        """
        files = self.pictures[video][start : start + self.span : self.config.sample_every_n_frames]
        folder = self.root / self.names[video]
        video_ = load_pictures([folder / file for file in files], self.config.resolution)
        return {"video": change_channels(video_, self.config.image_channels), "label": 0}


def load_pictures(paths: list[Path], resolution: int) -> torch.Tensor:
    """Pictures -> float32 [3, T, resolution, resolution] in [-0.5, 0.5]: middle square, Lanczos, as published."""
    return from_frames(torch.from_numpy(np.stack([_square(read_picture(path), resolution) for path in paths])))


def read_picture(path: Path) -> Any:
    """The picture in RGB: grey is repeated, 16 bit becomes 8, palettes are resolved, transparency is dropped.

    Raises:
        ReadError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):
                levels = np.asarray(picture).astype(np.int64)
                return Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ReadError(f"{path}: {' '.join(str(error).split())}") from error


def sorted_pictures(folder: Path) -> list[str]:
    """Names of the pictures in a folder, by the last number of the name before its first dot.

    Raises:
        ReadError: a name has no number.
    """
    files = [entry.name for entry in os.scandir(folder) if _is_picture(entry.name)]
    without = [file for file in files if not re.search(r"\d", file.split(".")[0])]
    if without:
        raise ReadError(f"pictures are sorted by the number in their names, and {sorted(without)[0]} has none")
    return sorted(files, key=lambda file: (int(re.findall(r"\d+", file.split(".")[0])[-1]), file))


def split_frames(config: DataConfig, split: str) -> tuple[Path, list[str]]:
    """Root of a split and the sorted folders with pictures below it.

    Raises:
        UserError: the folder is missing or holds no picture, or too few folders for a split at random.
    """
    root = Path(config.data_path or "").expanduser()
    if config.data_path is None or not root.is_dir():
        raise UserError(f"--data_path {config.data_path}: --image_folder needs a folder of folders of pictures")
    if (root / "train").is_dir() or (root / "test").is_dir():
        if not (root / split).is_dir():
            raise UserError(f"--data_path {root} has no folder {split}/. Make one, or leave out both train/ and test/")
        return root / split, picture_folders(root / split)
    names = picture_folders(root)
    n_test = max(1, round(config.test_share * len(names))) if config.test_share else 0
    if n_test >= len(names) or (split == "test" and not n_test):
        raise UserError(
            f"--data_path {root}: {len(names)} folder(s) cannot be split, with --test_share {config.test_share}: lay "
            f"them out in train/ and test/, or give another share"
        )
    order = np.random.default_rng(config.split_seed).permutation(len(names))
    chosen = order[:n_test] if split == "test" else order[n_test:]
    return root, [names[i] for i in sorted(chosen)]


def picture_folders(root: Path) -> list[str]:
    """Paths below `root` of all folders that hold pictures, sorted; links to folders are followed.

    Raises:
        UserError: there is none.
    """
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(_is_picture(name) for name in files):
            names.append(Path(folder).relative_to(root).as_posix())
    if not names:
        raise UserError(f"{root} holds no folder of pictures: looked for {', '.join('*' + end for end in SUFFIXES)}")
    return sorted(names)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _square(picture: Any, resolution: int) -> np.ndarray:
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    return np.array(picture.resize((resolution, resolution), Image.Resampling.LANCZOS))
