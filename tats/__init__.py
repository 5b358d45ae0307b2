"""TATS: long, token-based video generation.

The public names, loaded when they are first used, so that `import tats` costs nothing.
"""

import importlib
from pathlib import Path

_HERE = Path(__file__).resolve().parent
if not (_HERE / "kernels").exists() and (_HERE.parent / "kernels" / "__init__.py").exists():
    __path__.append(str(_HERE.parent))  # a plain checkout: `tats.kernels` is the folder kernels/ at the top

_PUBLIC = {
    "load_vqgan": "tats.checkpoint",
    "load_transformer": "tats.checkpoint",
    "load_pair": "tats.checkpoint",
    "save": "tats.checkpoint",
    "sample_codes": "tats.gpt.api",
    "sample_long_codes": "tats.gpt.api",
    "sample_wide_codes": "tats.gpt.api",
    "sample_hierarchical_codes": "tats.gpt.api",
    "continue_codes": "tats.gpt.api",
    "sample_queue": "tats.gpt.queue",
    "Request": "tats.gpt.queue",
    "decode_stream": "tats.vqgan.stream",
    "encode_stream": "tats.vqgan.stream",
    "write_video": "tats.media",
}
_SUBMODULES = ("kernels", "gpt", "vqgan", "data", "metrics", "flags", "video", "media", "checkpoint")

__all__ = [*_PUBLIC]  # noqa: PLE0604
__version__ = "0.1.0"


def submodules(package: str):
    """A module `__getattr__` that loads the submodules of `package` when they are first used."""

    def load(name: str):
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return load


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"tats.{name}")
    raise AttributeError(f"module 'tats' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PUBLIC, *_SUBMODULES])
