"""The folder of a training run, and the checkpoint that a run goes on from."""

import dataclasses
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tats import flags, shards, unpickle, whole_files
from tats.flags import UserError
from tats.launched import say
from tats.plain import matches
from tats.trainer_config import TrainerConfig

# Another batch size is warned about (`tats.effective`): other numbers of processes may bring it along.
SHOWN = {"log_images_every", "log_videos_every"}
MAY_DIFFER = {"num_workers", "keep_gb", "batch_size", *SHOWN} | {
    field.name for field in dataclasses.fields(TrainerConfig)
} - {
    "seed",
    "ema_decay",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a checkpoint has come: its step, and where the log stood then (None: it does not say)."""

    step: int
    log: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run, and the checkpoint and the step that it goes on from, if any.

    log: where the log in this folder stood when that checkpoint was written.
    """

    folder: Path
    checkpoints: Path
    resume: Path | None = None
    step: int = 0
    log: dict[str, Any] | None = None


def find_run(config: TrainerConfig, name: str, settings: Any) -> Run:
    """The folder to work in and the checkpoint to go on from, as --resume says.

    Raises:
        UserError: a checkpoint that is missing, damaged or not ours, or `auto` with other settings than before.
    """
    root = Path(config.default_root_dir or Path("runs") / name).expanduser()
    above = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "can't be written to" if above.is_dir() else "is a file"
        raise UserError(f"--default_root_dir {root}: {above} {reason}; name a folder that can be made")
    numbers = [
        int(found[1])
        for entry in sorted(root.glob("version_*"))
        if (found := re.fullmatch(r"version_(\d+)", entry.name))
    ]
    fresh = root / f"version_{max(numbers, default=-1) + 1}"
    wanted = config.resume_from_checkpoint or (None if config.resume in ("auto", "never") else config.resume)
    if wanted is not None:
        flag = "--resume" if config.resume_from_checkpoint is None else "--resume_from_checkpoint"
        path, progress = named(flags.existing_path(wanted, flag))
        folder = _run_of(path, root, config) or fresh
        say(f"going on from {path} at step {progress.step} in {folder}")
        log = progress.log if folder != fresh else None
        return Run(folder, _checkpoint_folder(config, folder), path, progress.step, log)
    if config.resume == "auto" and not config.fast_dev_run:
        for number in sorted(numbers, reverse=True):
            folder = root / f"version_{number}"
            whole = newest(_checkpoint_folder(config, folder))
            if whole is not None:
                path, progress = whole
                compare_settings(folder / "config.yaml", settings)
                say(f"going on with {folder} at step {progress.step}; --resume never begins a new run")
                return Run(folder, path.parent, path, progress.step, progress.log)
    return Run(fresh, _checkpoint_folder(config, fresh))


def _checkpoint_folder(config: TrainerConfig, folder: Path) -> Path:
    if config.weights_save_path is not None:
        return Path(config.weights_save_path).expanduser() / folder.name
    return folder / "checkpoints"


def _run_of(path: Path, root: Path, config: TrainerConfig) -> Path | None:
    """The folder below `root` of the run that a checkpoint belongs to, if it belongs to one."""
    above = path.absolute().parent
    folder = root / (above.parent.name if above.name == "checkpoints" else above.name)
    ours = folder.is_dir() and _checkpoint_folder(config, folder).resolve() == above.resolve()
    return folder if ours else None


def named(path: Path) -> tuple[Path, Progress]:
    """A checkpoint that was named, and how far it has come; a damaged `last.ckpt` stands for the one before.

    Raises:
        UserError: damaged, or nothing that training can go on from.
    """
    try:
        return path, read_progress(path)
    except UserError as error:
        whole = newest(path.parent, leave_out=path)
        if whole is None:
            raise
        if path.name != "last.ckpt":
            raise UserError(f"{error}; {whole[0]} is whole") from None
        say(f"{error}; {whole[0]} takes its place")
        return whole


def newest(folder: Path, leave_out: Path | None = None) -> tuple[Path, Progress] | None:
    """The newest whole checkpoint of a folder and how far it has come. Those that are damaged are named."""
    paths = [path for path in folder.glob("*.ckpt") if path != leave_out]
    for path in sorted(paths, key=lambda path: (path.name == "last.ckpt", path.stat().st_mtime_ns), reverse=True):
        try:
            return path, read_progress(path)
        except UserError as error:
            say(f"{error}; trying the one before")
    return None


def read_progress(path: Path) -> Progress:
    """How far one of our checkpoints has come.

    Raises:
        UserError: damaged, or nothing that training can go on from.
    """
    wrong = whole_files.damage(path) if path.is_file() else None
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong}")
    try:
        stored = unpickle.load(path)
    except UserError as error:
        raise UserError(f"{path} is damaged, or holds things that are no plain values ({error})") from None
    if not isinstance(stored, dict) or "kind" not in stored or "loops" not in stored:
        raise UserError(f"{path} is no checkpoint of such a run; --init_from begins with the weights of any checkpoint")
    shards.check(path, stored)
    if not matches(int, stored.get("step", 0)):
        raise UserError(f"{path} is damaged: its step is {str(stored['step'])[:60]}")
    return Progress(stored.get("step", 0), stored.get("log"))


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Nobody else trains in a folder meanwhile. The claim ends with this process, however it ends.

    Raises:
        UserError: another process trains there.
    """
    path = folder / ".lock"
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"another process trains in {folder}; wait for it, or begin a new run with --resume never"
                ) from None  # any other reason: this file system knows no locks
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def compare_settings(path: Path, settings: Any) -> None:
    """A run is resumed by itself only with the settings it began with.

    Raises:
        UserError: naming each setting that differs, its stored and its given value.
    """
    import yaml

    if settings is None or not path.exists():
        return
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}; --resume never begins a new run") from None
    given = flags.to_dict(settings)
    differing = [
        f"{key} was {stored[key]}, now {given[key]}"
        for key in stored
        if key in given and key not in MAY_DIFFER and stored[key] != given[key]
    ]
    if differing:
        raise UserError(
            f"{path.parent} was begun with other settings: {'; '.join(differing)}. --resume never begins a new run, "
            f"--resume {path.parent / 'checkpoints' / 'last.ckpt'} goes on all the same"
        )
