"""Where the pictures of videos lie: in folders, in a zip file, or in several zip files that belong together.

A store lists its videos, the pictures of each, and opens one picture. Three layouts are known, and a video is whatever
directly holds pictures in any of them:

    DIR/<video>/<number>.jpg                        folders (`FolderStore`)
    FILE.zip with <video>/<number>.jpg              one zip file, its videos in any folders (`ZipStore`)
    DIR/partition_0000.zip, partition_0001.zip ...  several, each with a list of its pictures, `frame_paths.json`

`dataset.json` in the root of a store may name the classes: {"labels": [["<video>/<picture>", class id], ...]}, with
"label_names" beside it where the classes have names.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tats.data.safe_zip import SafeZip
from tats.flags import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
LABELS = "dataset.json"
LISTED = "frame_paths.json"  # in each of several zip files: {video: [names of its pictures]}


class FolderStore:
    """Videos that are folders of pictures below `root`; links to folders are followed.

    `videos` sorted paths below the root, with forward slashes.
    """

    def __init__(self, root: Path):
        """Raises:
        UserError: no folder holds a picture.
        """
        self.root, self.where = root, str(root)
        self.videos = picture_folders(root)

    def pictures(self, video: str) -> list[str]:
        """Names of the pictures of a video, in no order."""
        return [entry.name for entry in os.scandir(self.root / video) if is_picture(entry.name)]

    def open(self, video: str, picture: str) -> Path:
        """What `read_picture` takes: here the path."""
        return self.root / video / picture

    def classes(self) -> "Classes | None":
        """What `dataset.json` says of the classes; None without one."""
        path = self.root / LABELS
        try:
            return Classes(path, path.read_bytes()) if path.is_file() else None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error


class ZipStore:
    """Videos that are folders of pictures in one or more zip files.

    `videos` sorted; of several files each, in the order of their names, with the file's name in front where the names
    of the videos alone would not tell them apart. Nothing is unpacked to the disk.
    """

    def __init__(self, paths: Sequence[Path]):
        """Raises:
        UserError: a file is no zip, holds what no data set needs, or no picture.
        """
        self.archives = [SafeZip(path) for path in paths]
        self.where = str(paths[0] if len(paths) == 1 else paths[0].parent)
        found = [_videos_of(archive) for archive in self.archives]
        if not any(found):
            raise UserError(f"{self.where} holds no folder of pictures: looked for {', '.join('*' + end for end in PICTURES)}")  # fmt: skip  # noqa: E501
        clash = len({video for videos in found for video in videos}) < sum(map(len, found))
        self._places: dict[str, tuple[int, str]] = {}  # video -> (archive, folder in it)
        self._pictures: dict[str, list[str]] = {}
        for number, videos in enumerate(found):
            for folder in sorted(videos):
                name = f"{self.archives[number].path.stem}/{folder}" if clash else folder
                self._places[name], self._pictures[name] = (number, folder), videos[folder]
        self.videos = list(self._places)

    def pictures(self, video: str) -> list[str]:
        """Names of the pictures of a video, in no order."""
        return self._pictures[video]

    def open(self, video: str, picture: str) -> "Member":
        """What `read_picture` takes: the bytes, read when they are asked for."""
        number, folder = self._places[video]
        return Member(self.archives[number], f"{folder}/{picture}" if folder != "." else picture)

    def classes(self) -> "Classes | None":
        """What the files' `dataset.json` say of the classes, all together; None without any."""
        found = [
            Classes(archive.path / name, archive.read(name))
            for archive in self.archives
            for name in archive.names
            if PurePosixPath(name).name == LABELS
        ]
        for other in found[1:]:
            found[0].add(other)
        return found[0] if found else None


class Member:
    """A picture in a zip file."""

    def __init__(self, archive: SafeZip, name: str):
        self.archive, self.name = archive, name

    def __str__(self) -> str:
        return f"{self.archive.path}: {self.name}"

    def file(self) -> io.BytesIO:
        """Its bytes, as a file.

        Raises:
            ReadError: they are damaged.
        """
        return io.BytesIO(self.archive.read(self.name))


class Classes:
    """Classes of videos, as a `dataset.json` gives them: `names` of the classes by id."""

    def __init__(self, path: Path, content: bytes):
        """Raises:
        UserError: it is not of that form.
        """
        self.path = path
        try:
            said = json.loads(content)
            pairs = said.get("labels") or []
            pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
            self._ids = {str(PurePosixPath(file).parent): int(label) for file, label in pairs}
            names = [str(name) for name in said.get("label_names") or []]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f'{path}: not of the form {{"labels": [["<video>/<picture>", id], ...]}} ({error})'
            ) from None
        highest = max(self._ids.values(), default=-1)
        if (
            min(self._ids.values(), default=0) < 0
            or (names and highest >= len(names))
            or highest > len(self._ids) + 10**6
        ):
            raise UserError(
                f"{path}: class ids from {min(self._ids.values())} to {highest}, and {len(names)} label_names"
            )
        self.names = names or [str(label) for label in range(highest + 1)]

    def add(self, other: "Classes") -> None:
        """Classes of another file of the same data set.

        Raises:
            UserError: it names the classes differently.
        """
        longer, shorter = sorted((self.names, other.names), key=len, reverse=True)
        if longer[: len(shorter)] != shorter:
            raise UserError(f"{other.path} and {self.path} name their classes differently")
        self.names, self._ids = longer, {**self._ids, **other._ids}

    def of(self, video: str) -> int:
        """Class id of a video: listed by its path, by any end of it, or by its path below the zip file's own folder.

        Raises:
            UserError: it is not listed.
        """
        parts = PurePosixPath(video).parts
        for first in range(len(parts)):
            label = self._ids.get("/".join(parts[first:]))
            if label is not None:
                return label
        raise UserError(f"{self.path} lists no class for {video}")


def _videos_of(archive: SafeZip) -> dict[str, list[str]]:
    """The folders of a zip file that hold pictures, with the names of these; only listed ones where there is a list."""
    if LISTED in archive.names:
        return _listed(archive)
    videos: dict[str, list[str]] = {}
    for name in archive.names:
        folder, _, file = name.rpartition("/")
        if is_picture(file) and not any(part.startswith(".") for part in folder.split("/")):
            videos.setdefault(folder or ".", []).append(file)
    return videos


def _listed(archive: SafeZip) -> dict[str, list[str]]:
    inside = set(archive.names)
    try:
        listed = json.loads(archive.read(LISTED))
        videos = {str(video): [str(name) for name in names] for video, names in listed.items() if names}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{archive.path}: {LISTED} is not of the form {{video: [pictures]}} ({error})") from None
    for video, names in videos.items():
        lost = next((name for name in names if f"{video}/{name}" not in inside), None)
        if lost is not None:
            raise UserError(f"{archive.path}: {LISTED} lists {video}/{lost}, which is not there: make the file anew")
    return videos


def zips_at(root: Path, split: str, height: int) -> list[Path]:
    """The zip files that hold a split of the data at `root`, sorted; [] when the data lie in no zip files.

    `root` is a zip file itself (its own split: it is shared out); or a folder with `<split>.zip`, or with partitions
    in `<split>/`, in `<split>/<height>x<width>/`, in `<height>x<width>/` or in itself. Of several sizes the one of
    `height` is taken, or the only one.

    Raises:
        UserError: there are several sizes, and none of that height.
    """
    if root.is_file():
        return [root] if root.suffix.lower() == ".zip" else []
    if (root / f"{split}.zip").is_file():
        return [root / f"{split}.zip"]
    for folder in (root / split, root):
        if found := sorted(folder.glob("partition_*.zip")):
            return found
        sizes = sorted(each.parent for each in folder.glob("[0-9]*x[0-9]*/partition_0*.zip"))
        if sizes:
            fitting = [each for each in dict.fromkeys(sizes) if each.name.startswith(f"{height:04d}x")]
            if not fitting and len(set(sizes)) > 1:
                there = ", ".join(dict.fromkeys(each.name for each in sizes))
                raise UserError(f"{folder} holds pictures of {there}: name one of these heights with --resolution")
            return sorted((fitting or sizes)[0].glob("partition_*.zip"))
    return []


def picture_folders(root: Path) -> list[str]:
    """Paths below `root` of all folders that hold pictures, sorted; links to folders are followed.

    Raises:
        UserError: there is none.
    """
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(is_picture(name) for name in files):
            names.append(Path(folder).relative_to(root).as_posix())
    if not names:
        raise UserError(f"{root} holds no folder of pictures: looked for {', '.join('*' + end for end in PICTURES)}")
    return sorted(names)


def has_pictures(root: Path) -> bool:
    """Whether a picture lies anywhere in a folder."""
    return any(is_picture(name) for _, _, files in os.walk(root, followlinks=True) for name in files)


def is_picture(name: str) -> bool:
    """Whether a file is one, by its name."""
    return name.lower().endswith(PICTURES) and not name.startswith(".")


def opened(picture: Any) -> Any:
    """What PIL opens: a path as it is, the bytes of a member of a zip file.

    Raises:
        ReadError: they are damaged.
    """
    return picture.file() if isinstance(picture, Member) else picture
