"""What goes with the videos of a folder: their texts, and the semantic maps of rendered MUGEN videos.

Videos lie as in any folder of videos: `<data_path>/{train,test}/<class>/<name>.mp4`.

With `--text_cond`, each split has a `captions.json`, an object from file (path below the split) to its text or a list
of texts; or a `captions.csv` with the columns `file` and `caption`, several rows for several texts. `--text_path FILE`
takes another file of either form for both splits, or the published one: `{"data": [{"video": {"video_file":
"<name>.mp4"}, "annotations": [{"text": "..."}, ...]}, ...]}`. Files are looked up by their path below the split, then
by their name alone. Where a video has several texts, each pass through the data draws one.

With `--smap_cond N`, the semantic map of a video is `<smap_path>/{train,test}/<class>/<name>.npy`: uint8 [frames, H,
W], the class of every pixel, below N.
"""

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from tats.arrays import ArrayError, read_npy
from tats.data.config import DataConfig
from tats.flags import UserError
from tats.plain import plain_text
from tats.reader import ReadError
from tats.video import preprocess_map

FILES = ("captions.json", "captions.csv")  # where the texts of a split lie, the first that is there


def caption_file(config: DataConfig, split: Path) -> Path:
    """The file with the texts of a split: that of --text_path, else the one that lies in the folder of the split."""
    if config.text_path:
        return Path(config.text_path).expanduser()
    return next((split / name for name in FILES if (split / name).is_file()), split / FILES[0])


def read_texts(path: Path, names: list[str]) -> list[list[str]]:
    """The texts of each of `names`, one or more per video.

    Raises:
        UserError: the file is missing, of another form, or has no text for a video.
    """
    listed = read_captions(path)
    found = [_texts_of(name, listed) for name in names]
    missing = [name for name, texts in zip(names, found, strict=True) if not texts]
    if missing:
        raise UserError(f"{path}: no text for {len(missing)} of {len(names)} videos: {', '.join(missing[:5])}")
    return found


def read_captions(path: Path) -> dict[str, list[str]]:
    """All texts of a file, by the names of the videos as they stand there.

    Raises:
        UserError: the file is missing or of another form.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text_cond needs {path}: {error}") from error
    return _from_table(path, content) if path.suffix.lower() == ".csv" else _from_json(path, content)


def _from_json(path: Path, text: str) -> dict[str, list[str]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    try:
        texts = _published(content) if isinstance(content, dict) and isinstance(content.get("data"), list) else content
        listed = {name: [value] if isinstance(value, str) else list(value) for name, value in texts.items()}
        listed = {name: [plain_text(each) for each in texts if isinstance(each, str)] for name, texts in listed.items()}
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} must hold an object from file to text, or the annotations of MUGEN") from error
    return {name: [each for each in texts if each.strip()] for name, texts in listed.items()}


def _from_table(path: Path, text: str) -> dict[str, list[str]]:
    """Rows of file and caption; the header says which column is which."""
    listed: dict[str, list[str]] = {}
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
        if not {"file", "caption"} <= names.keys():
            raise UserError(f"{path} must begin with a line that names the columns file and caption, has {[*names]}")
        for row in rows:
            file, caption = (plain_text(row[names[name]] or "") for name in ("file", "caption"))
            if caption.strip():
                listed.setdefault(file.strip(), []).append(caption.strip())
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return listed


def _texts_of(name: str, listed: dict[str, list[str]]) -> list[str]:
    return listed.get(name) or listed.get(PurePosixPath(name).name) or []


def _published(content: dict[str, Any]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for entry in content["data"]:
        name = PurePosixPath(entry["video"]["video_file"]).name
        texts.setdefault(name, []).extend(each["text"] for each in entry["annotations"] if "text" in each)
    return texts


def one_hot_map(rows: np.ndarray, config: DataConfig, path: Path) -> Tensor:
    """Semantic map of a clip, uint8 [t, H, W, C] from `path` -> float [classes, t, res, res], one channel each.

    Raises:
        ReadError: a pixel is of a class that --smap_cond does not count.
    """
    try:
        return preprocess_map(rows, config.resolution, config.smap_cond)
    except ValueError as error:
        raise ReadError(f"{path}: {error}") from error


class Maps:
    """The semantic maps of the videos `names` of a split, opened when they are read."""

    def __init__(self, smap_path: str | None, split: str, names: list[str]):
        """Raises:
        UserError: no folder, or videos without map.
        """
        if smap_path is None:
            raise UserError("--smap_cond on a folder of videos needs --smap_path, the folder of the semantic maps")
        root = Path(smap_path).expanduser() / split
        self.paths = [root / PurePosixPath(name).with_suffix(".npy") for name in names]
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            raise UserError(
                f"--smap_path {smap_path}: no map for {len(missing)} of {len(names)} videos, such as {missing[0]}"
            )

    def rows(self, video: int, start: int, stop: int, step: int) -> np.ndarray:
        """Maps of frames start to stop by step: uint8 [n, H, W, 1].

        Raises:
            ReadError: the file is no such array, or shorter than its video.
        """
        path = self.paths[video]
        try:
            maps = read_npy(path)
        except ArrayError as error:
            raise ReadError(str(error)) from None
        if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) < stop:
            raise ReadError(f"{path}: must be uint8 [frames, H, W] with {stop} frames or more, is {maps.dtype} {list(maps.shape)}")  # fmt: skip  # noqa: E501
        return np.array(maps[start:stop:step])[..., None]
