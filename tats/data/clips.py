"""Folders of video files: `<data_path>/{train,test}/.../<class>/<file>`.

The class of a file is the name of the folder it lies in; files that lie in train/ or test/ itself are of one class
named `all`. Ids of classes follow the sorted names of the train split, in both splits.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tats.data.captions import Maps, caption_file, one_hot_map, read_texts
from tats.data.config import DataConfig
from tats.data.index import index_folder
from tats.data.left_out import check_short, check_unreadable, say
from tats.flags import UserError
from tats.reader import SUFFIXES, read_clip
from tats.video import preprocess

NO_FOLDER = "all"  # class of files that lie in no folder of their own


class VideoFolder:
    """The videos of one split as a source of clips.

    `names` paths below the split, `labels` int64 [n] and `label_names`, `starts` int64 [n] windows each video has,
    `clips` int64 [n] clips per epoch: as many as fit side by side. `read` decodes one.
    """

    def __init__(self, config: DataConfig, split: str, label_names: list[str] | None = None):
        """`split` is train or test; `label_names` are those of the train split, None for the train split itself.

        Raises:
            UserError: no such folder, no video in it, too many unreadable, or none long enough.
        """
        self.config, self.span = config, config.span
        self.root = split_folder(config.data_path, split)
        names = find_videos(self.root)
        classes = [class_of(name) for name in names]
        self.label_names = sorted(set(classes)) if label_names is None else label_names
        names = self._of_known_class(names, classes)
        entries = index_folder(self.root, names, config.check_videos == "all", config.index_workers)
        problems = [f"{entry.name}: {entry.problem}" for entry in entries if entry.timeline is None]
        check_unreadable(str(self.root), problems, len(entries))
        readable = [(entry.name, entry.timeline) for entry in entries if entry.timeline is not None]
        short = [name for name, timeline in readable if timeline.n_frames < config.span]
        check_short(str(self.root), short, len(readable), config.span)
        kept = [(name, timeline) for name, timeline in readable if timeline.n_frames >= config.span]
        self.names = [name for name, _ in kept]
        self._timelines = [timeline for _, timeline in kept]
        ids = {name: i for i, name in enumerate(self.label_names)}
        self.labels = np.array([ids[class_of(name)] for name in self.names], np.int64)
        self._kept: dict[int, np.ndarray] = {}
        self._room = int(config.keep_gb * 1e9)
        frames = np.array([timeline.n_frames for timeline in self._timelines], np.int64)
        self.starts = frames - config.span + 1
        self.clips = frames // config.span
        self.texts = read_texts(caption_file(config, self.root), self.names) if config.text_cond else None
        self.maps = Maps(config.smap_path, split, self.names) if config.smap_cond else None

    def _of_known_class(self, names: list[str], classes: list[str]) -> list[str]:
        unknown = sorted(set(classes) - set(self.label_names))
        if not unknown:
            return names
        kept = [name for name, of in zip(names, classes, strict=True) if of in self.label_names]
        listed = ", ".join(unknown)
        if not kept:
            raise UserError(
                f"{self.root}: no video is of a class of the train split ({', '.join(self.label_names[:10])}), "
                f"only of {listed}. Name the folders alike in train/ and test/."
            )
        say(f"{self.root}: left out {len(names) - len(kept)} of {len(names)} videos of classes that train/ has not: {listed}")  # fmt: skip  # noqa: E501
        return kept

    def path(self, video: int) -> Path:
        """The file of one video."""
        return self.root / self.names[video]

    def frames(self, video: int, start: int) -> np.ndarray:
        """Frames of one window as stored: uint8 [clip_frames, H, W, 3]. Within --keep_gb, videos are decoded once."""
        span, step = self.config.span, self.config.sample_every_n_frames
        whole = self._kept.get(video)
        if whole is None:
            if self._room <= 0:
                return read_clip(self.path(video), self._timelines[video], start, span, step)
            whole = read_clip(self.path(video), self._timelines[video], 0, self._timelines[video].n_frames, 1)
            self._kept[video] = whole
            self._room -= whole.nbytes
        return whole[start : start + span : step]

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """One clip: `video` float [C, T, res, res] in [-0.5, 0.5], `label` int.

        With --text_cond `text`, one of its texts, drawn; with --smap_cond N `video_smap` float [N, T, res, res], which
        --smap_only puts in place of `video`.

        Raises:
            ReadError: the file cannot be decoded there.
        """
        config = self.config
        clip: dict[str, Any] = {"label": int(self.labels[video])}
        if self.maps is not None:
            rows = self.maps.rows(video, start, start + self.span, config.sample_every_n_frames)
            clip["video_smap"] = one_hot_map(rows, config, self.maps.paths[video])
        if config.smap_only:
            clip["video"] = clip.pop("video_smap")
        else:
            frames = self.frames(video, start)
            clip["video"] = preprocess(frames, config.resolution, image_channels=config.image_channels)
        if self.texts is not None:
            clip["text"] = self.texts[video][int(draw.integers(len(self.texts[video])))]
        return clip


def split_folder(data_path: str | None, split: str) -> Path:
    """`<data_path>/<split>`.

    Raises:
        UserError: not given, or no such folder.
    """
    if data_path is None:
        raise UserError("--data_path is needed: a folder with train/ and test/, one folder of videos per class in each")
    root = Path(data_path).expanduser()
    if not root.is_dir():
        raise UserError(f"--data_path {data_path}: no such folder")
    if not (root / split).is_dir():
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:5]
        holds = f"; it holds {', '.join(found)}" if found else ""
        raise UserError(
            f"--data_path {data_path} has no folder {split}/{holds}. Lay videos out as {split}/<class>/<file>"
        )
    return root / split


def find_videos(root: Path) -> list[str]:
    """Paths below `root` of all video files, sorted, with forward slashes; links to folders are followed.

    Raises:
        UserError: there is none.
    """
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(folder).relative_to(root)
        names += [(inside / name).as_posix() for name in files
                  if name.lower().endswith(SUFFIXES) and not name.startswith(".")]  # fmt: skip
    if not names:
        raise UserError(f"{root} holds no video: looked for {', '.join('*' + suffix for suffix in SUFFIXES)} in all its folders")  # fmt: skip  # noqa: E501
    return sorted(names)


def class_of(name: str) -> str:
    """Class of a file: the folder it lies in."""
    return Path(name).parent.name or NO_FOLDER
