"""Reading the weight files of the published networks: plain state dicts, and TorchScript as it is. Nothing that a plain
file holds is run."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tats import unpickle
from tats.flags import UserError


def is_torchscript(path: str | Path) -> bool:
    """The file holds a program beside its weights, as `torch.jit.save` writes it."""
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_torchscript(path: str | Path, name: str, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """A TorchScript module in evaluation mode; its code is TorchScript's own language, not Python.

    Raises:
        UserError: there is no such file, or it is no TorchScript.
    """
    if not Path(path).is_file():
        raise UserError(f"no {name} at {path}: `tats weights list` says where it comes from")
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path} is no TorchScript file of {name}: {str(error).strip().splitlines()[0]}") from error


def read_state(path: str | Path, name: str, key: str) -> dict[str, Tensor]:
    """The state dict in a file, from a checkpoint's "state_dict", "model" or "module" where there is one.

    Args:
        name: the network, for errors. key: a parameter that its state dict must have.

    Raises:
        UserError: no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no {name} weights at {path}: `tats weights list` says where they come from")
    try:
        state = unpickle.load(path)
    except UserError as error:
        raise UserError(f"{path} holds no {name} weights: {error}") from error
    for inside in ("state_dict", "model", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(inside), Mapping):
            state = state[inside]
    if not isinstance(state, Mapping) or not isinstance(state.get(key), Tensor):
        raise UserError(f"{path} holds no {name} weights: '{key}' is missing")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, name: str) -> None:
    """Copy a state dict into the network, whose every weight it must hold, and put it into evaluation mode.

    Raises:
        UserError: names or shapes differ.
    """
    try:
        missing, left_over = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {name}: {str(error).strip().splitlines()[-1].strip()}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or left_over:
        raise UserError(f"{path} does not fit {name}: missing {missing[:3]}, left over {left_over[:3]}")
    network.eval().requires_grad_(False)
