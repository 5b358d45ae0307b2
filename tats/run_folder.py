"""The folder of a training run, and the checkpoint that a run goes on from."""

import dataclasses
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from tats import flags
from tats.flags import UserError
from tats.launched import say
from tats.trainer_config import TrainerConfig

MAY_DIFFER = {"num_workers", "keep_gb"} | {field.name for field in dataclasses.fields(TrainerConfig)} - {
    "seed",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run, and the checkpoint and the step that it goes on from, if any."""

    folder: Path
    checkpoints: Path
    resume: Path | None = None
    step: int = 0


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
        path = flags.existing_path(
            wanted, "--resume" if config.resume_from_checkpoint is None else "--resume_from_checkpoint"
        )
        stored = read_progress(path)
        ours = path.parent.name == "checkpoints" and path.parent.parent.parent.resolve() == root.resolve()
        folder = root / path.parent.parent.name if ours else fresh
        say(f"going on from {path} at step {stored} in {folder}")
        return Run(folder, _checkpoint_folder(config, folder), path, stored)
    if config.resume == "auto" and not config.fast_dev_run:
        for number in sorted(numbers, reverse=True):
            folder = root / f"version_{number}"
            whole = newest(_checkpoint_folder(config, folder))
            if whole is not None:
                path, step = whole
                compare_settings(folder / "config.yaml", settings)
                say(f"going on with {folder} at step {step}; --resume never begins a new run")
                return Run(folder, path.parent, path, step)
    return Run(fresh, _checkpoint_folder(config, fresh))


def _checkpoint_folder(config: TrainerConfig, folder: Path) -> Path:
    if config.weights_save_path is not None:
        return Path(config.weights_save_path).expanduser() / folder.name
    return folder / "checkpoints"


def newest(folder: Path) -> tuple[Path, int] | None:
    """The newest whole checkpoint of a folder and its step; `last.ckpt` before others of the same time."""
    paths = sorted(
        folder.glob("*.ckpt"), key=lambda path: (path.stat().st_mtime, path.name == "last.ckpt"), reverse=True
    )
    for path in paths:
        try:
            return path, read_progress(path)
        except UserError as error:
            say(f"{error}; trying the one before")
    return None


def read_progress(path: Path) -> int:
    """The step of one of our checkpoints.

    Raises:
        UserError: damaged, or nothing that training can go on from.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path} is damaged, or holds things that are no plain values") from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else 'it is empty'}") from None
    if not isinstance(stored, dict) or "kind" not in stored or "loops" not in stored:
        raise UserError(f"{path} is no checkpoint of such a run; --init_from begins with the weights of any checkpoint")
    return int(stored.get("step", 0))


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
