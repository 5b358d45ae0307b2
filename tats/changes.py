"""What --schedule asks for: a YAML file of how the condition of long videos changes on the way.

    - from_frame: 0           # frames of the video, as --frames counts them
      label: red_circle       # a class, by name or id
    - from_frame: 64
      label: blue_square
      cfg_scale: 2            # of guidance
    - from_frame: 128
      text: "a circle turns"  # what an entry does not name stays as it is
      sound: drums.wav        # begins here; looked for beside this file (`tats.joined_sounds`)

What holds before the first entry is what the flags ask for; an entry from frame 0 takes their place.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch

from tats.conditions import sentences, tokens_of
from tats.flags import UserError, existing_path, nearest
from tats.gpt.condition import GIVEN, label_id
from tats.gpt.config import GPTConfig
from tats.gpt.course import Change
from tats.gpt.sample_config import HierarchicalConfig, LongConfig, OutputConfig
from tats.vqgan.model import VQGAN

Config = TypeVar("Config", LongConfig, HierarchicalConfig)
NAMES = ("label", "text", "sound", "cfg_scale")
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Schedule:
    """The entries of a file, in the order of their frames; each has `from_frame` and at least one of `NAMES`. Without
    entries nothing changes."""

    path: str
    entries: list[dict[str, Any]]

    @property
    def settings(self) -> dict[str, Any]:
        """What the codes depend on."""
        return {"schedule": self.entries} if self.entries else {}

    @property
    def sounds(self) -> list[tuple[int, Path, str]]:
        """The sounds that entries give: from which frame on, the file, and how messages name it."""
        return [
            (entry["from_frame"], sound_file(self.path, entry["sound"]), f"{self._where(number)}: {entry['sound']}")
            for number, entry in enumerate(self.entries)
            if "sound" in entry
        ]

    def begun(self, args: Config) -> Config:
        """The flags with the class or the text of the first frames, where an entry from frame 0 gives them.

        Raises:
            UserError: a flag gives them too.
        """
        given: dict[str, Any] = {}
        flags = {"label": args.output.label, "text": args.output.text, "sound": args.audio}
        first = self.entries[0] if self.entries and self.entries[0]["from_frame"] == 0 else {}
        for name in first.keys() & flags.keys():
            if flags[name]:
                flag = "audio" if name == "sound" else name
                raise self._wrong(0, f"it gives the {name} of the first frames, as --{flag} does: leave one out")
            if name != "sound":  # `tats.joined_sounds` takes it with those of the other entries
                given[name] = [first[name]] if name == "label" else first[name]
        return dataclasses.replace(args, output=dataclasses.replace(args.output, **given)) if given else args

    def changes(self, config: GPTConfig, output: OutputConfig, vqgan: VQGAN, total: int) -> list[Change]:
        """The entries as the samplers take them, for videos of `total` latent frames; not their sounds, which
        `tats.joined_sounds` joins.

        output: the flags with which texts are read.

        Raises:
            UserError: an entry does not go with the transformer, lies between two latent frames or behind the end.
        """
        factor, changes = vqgan.config.downsample[0], []
        for number, entry in enumerate(self.entries):
            frame, rest = divmod(entry["from_frame"], factor)
            if rest:
                near = f"{frame * factor} or {(frame + 1) * factor}"
                raise self._wrong(
                    number, f"a latent frame is {factor} frames, changes lie between two. Nearest: {near}"
                )
            if frame >= total:
                raise self._wrong(number, f"the videos have {total * factor} frames, nothing is left to change")
            wrong = [name for key, name in GIVEN.items() if name in entry and key not in config.keys]
            if wrong:
                takes = " and ".join(config.keys) or "no condition"
                raise self._wrong(number, f"it gives a {wrong[0]}, this transformer takes {takes}")
            if entry.keys() == {"from_frame", "sound"}:
                continue
            label, text = entry.get("label"), entry.get("text")
            changes.append(
                Change(
                    frame,
                    label=None if label is None else self._class(config, number, label),
                    text=None if text is None else self._tokens(config, output, number, text),
                    cfg_scale=entry.get("cfg_scale"),
                )
            )
        return changes

    def _wrong(self, number: int, problem: str) -> UserError:
        """What is said of an entry that does not go."""
        return UserError(f"{self._where(number)}: {problem}")

    def _where(self, number: int) -> str:
        """How messages name an entry."""
        return f"--schedule {self.path}: entry {number + 1} (from_frame {self.entries[number]['from_frame']})"

    def _class(self, config: GPTConfig, number: int, label: str) -> int:
        try:
            found = label_id(config, label)
        except UserError as error:
            raise self._wrong(number, str(error)) from None
        if not 0 <= found < config.n_classes:
            raise self._wrong(number, f"label {label}: this transformer knows classes 0 to {config.n_classes - 1}")
        return found

    def _tokens(self, config: GPTConfig, output: OutputConfig, number: int, text: str) -> torch.Tensor:
        try:
            return tokens_of(config, output, sentences(text))[0]
        except UserError as error:
            raise self._wrong(number, str(error)) from None


def read_schedule(path: str | None) -> Schedule:
    """The file that --schedule names; without it, nothing changes.

    Raises:
        UserError: it can't be read, or is not a list of entries as this module describes them.
    """
    if path is None:
        return Schedule("", [])
    import yaml

    file = existing_path(path, "--schedule")
    try:
        if Path(file).stat().st_size > MOST_BYTES:
            raise UserError(f"--schedule {path}: more than {MOST_BYTES:,} bytes, which is no schedule")
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"--schedule {path}: not a readable YAML file: {error}") from None
    if not isinstance(content, list) or not content:
        raise UserError(
            f"--schedule {path}: expected a list of entries such as '- {{from_frame: 64, label: 3}}', got "
            f"{'nothing' if not content else type(content).__name__}"
        )
    entries = [_entry(path, number, entry) for number, entry in enumerate(content)]
    _check_order(path, [entry["from_frame"] for entry in entries])
    return Schedule(path, entries)


def sound_file(path: str, sound: str) -> Path:
    """The file of the sound that an entry of the schedule `path` names: of a relative path, the one beside it."""
    return Path(path).expanduser().parent / Path(sound).expanduser()


def _entry(path: str, number: int, entry: Any) -> dict[str, Any]:
    """An entry, checked: `from_frame`, and what changes there."""
    where, known = f"--schedule {path}: entry {number + 1}", ("from_frame", *NAMES)
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected from_frame and what changes there, got {entry!r}")
    strange = [name for name in entry if name not in known]
    if strange:
        raise UserError(f"{where}: '{strange[0]}' is none of {', '.join(known)}{nearest(str(strange[0]), known)}")
    frame = entry.get("from_frame")
    if type(frame) is not int or frame < 0:
        raise UserError(f"{where}: from_frame counts frames of the video from 0, got {frame!r}")
    found: dict[str, Any] = {"from_frame": frame}
    for name in NAMES:
        value = entry.get(name)
        if value is None:
            continue
        if name == "cfg_scale":
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise UserError(f"{where}: cfg_scale is a number, 0 or more (1: no guidance), got {value!r}")
            found[name] = float(value)
        elif type(value) not in ((int, str) if name == "label" else (str,)) or not str(value).strip():
            takes = {"label": "a class by name or id", "text": "a sentence", "sound": "the path of a file"}[name]
            raise UserError(f"{where}: {name} is {takes}, got {value!r}; quotes make any word a text")
        else:
            found[name] = str(value)
    if "sound" in found:
        existing_path(sound_file(path, found["sound"]), f"{where}: sound")
    if len(found) == 1:
        raise UserError(f"{where}: nothing changes from frame {frame} on; give {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return found


def _check_order(path: str, frames: Sequence[int]) -> None:
    for number, (before, frame) in enumerate(pairwise(frames), 2):
        if frame <= before:
            raise UserError(
                f"--schedule {path}: entry {number} is from frame {frame} on, the one before it from {before}: entries "
                f"stand in the order of their frames"
            )
