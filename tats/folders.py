"""Model folders: `model.safetensors` (the tensors) and `config.json` (what they are)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError

FORMAT = 1
TENSORS, ABOUT = "model.safetensors", "config.json"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(folder: Path, kind: str, config: Mapping[str, Any], extra: Mapping[str, Any], tensors: Mapping[str, Tensor]):
    """Make or replace a model folder. config and extra: plain values; they are written last, once the tensors lie."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (TENSORS + ".part")
    write_tensors(part, tensors)
    part.replace(folder / TENSORS)
    about = {"format": FORMAT, "kind": kind, "config": dict(config), "extra": dict(extra)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, one tensor in memory at a time: a length, a header in JSON, then the bytes.

    Tensors may overlap or share their storage; each is written by itself.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in sorted(tensors.items()):
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, value in sorted(tensors.items()):
            plain = value.detach().to("cpu").contiguous().reshape(-1)
            if plain.numel():
                plain.view(torch.uint8).numpy().tofile(file)


def read(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """kind, config, extra and tensors (mapped from the file) of a model folder; `UserError` where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (ABOUT, TENSORS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: lacks {name}; a model folder holds {ABOUT} and {TENSORS}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        return str(about["kind"]), dict(about["config"]), dict(about.get("extra", {})), tensors
    except (ValueError, KeyError, TypeError, OSError, RecursionError, SafetensorError) as error:
        raise UserError(f"{folder}: damaged, or not written by this project ({error}); convert it again") from None


def size(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    return (
        sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
    )
