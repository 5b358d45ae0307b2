"""`tats convert`: a checkpoint becomes a small folder that loads anywhere without pickle.

tats convert gpt.ckpt folder/ --vqgan_ckpt vqgan.ckpt
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tats import flags
from tats.flags import REQUIRED, UserError, arg

if TYPE_CHECKING:
    from tats.checkpoint import Stored


@dataclass(frozen=True)
class ConvertConfig:
    """Writes model.safetensors and config.json. Critics, perceptual weights, attention masks, optimizer states, and
    VQGANs that exist in a file of their own are left behind. CKPT and OUT may stand without their flags."""

    ckpt: str = arg(REQUIRED, "the checkpoint: released, ours, a folder, or a name of `tats weights list`")
    out: str = arg(REQUIRED, "folder to write")
    vqgan_ckpt: str | None = arg(None, "of a released transformer: the VQGAN it was trained with, in its own file")
    stft_vqgan_ckpt: str | None = arg(None, "of a released transformer from sound: the VQGAN of the sounds")
    overwrite: bool = arg(False, "replace a model that lies in --out already")

    notes: ClassVar[dict[str, tuple[int, str]]] = {}


_GROUPS = {
    "first_stage_model.": "a VQGAN inside",
    "cond_stage_model.": "a VQGAN of sounds inside",
    "image_discriminator.": "critics",
    "video_discriminator.": "critics",
    "perceptual_model.": "perceptual weights",
}


def convert(config: ConvertConfig) -> list[Path]:
    """Write the folder; gives the folders written (a VQGAN that exists only inside a transformer gets its own).

    Raises `UserError` where the checkpoint can't be read or `out` already holds a model.
    """
    from tats import checkpoint, folders

    out = Path(config.out).expanduser()
    if (out / folders.TENSORS).exists() and not config.overwrite:
        raise UserError(f"--out {out} holds a model already: give another folder, or --overwrite")
    stored = checkpoint.read_checkpoint(config.ckpt)
    settings = checkpoint.settings(stored, config.vqgan_ckpt, config.stft_vqgan_ckpt)
    checkpoint.check(stored, settings)
    extra = {} if stored.published is not None else dict(stored.extra)
    written = []
    for prefix, own_file, place in (
        ("first_stage_model.", config.vqgan_ckpt, out / "vqgan"),
        ("cond_stage_model.", config.stft_vqgan_ckpt, out / "stft_vqgan"),
    ):
        if stored.inner(prefix):
            inner = checkpoint.inner_vqgan(stored, prefix, own_file)
            if prefix == "first_stage_model.":
                extra["vqgan"] = checkpoint.fingerprint(inner)
            if own_file is None or checkpoint.fingerprint(own_file) != checkpoint.fingerprint(inner):
                written.append(checkpoint.save(inner, place))
    folders.write(out, stored.kind, flags.to_dict(settings), extra, stored.state_dict)
    report(stored, out, written)
    return [out, *written]


def report(stored: "Stored", out: Path, inner: Sequence[Path]) -> None:
    """Say what was left behind, and the sizes before and after."""
    from tats import folders

    left: dict[str, int] = {}
    for name, value in stored.others.items():
        whole = next((what for prefix, what in _GROUPS.items() if name.startswith(prefix)), None)
        deeper = next((what for part, what in _GROUPS.items() if f".{part}" in name), None)
        group = deeper or whole or ("attention masks" if name.endswith(".mask") else "other tensors")
        left[group] = left.get(group, 0) + value.numel() * value.element_size()
    for group, amount in sorted(left.items(), key=lambda item: -item[1]):
        kept = " (written beside)" if inner and "inside" in group else ""
        print(f"left behind: {group}, {_megabytes(amount)}{kept}")
    before, after = folders.size(stored.path), folders.size(out)
    print(f"{stored.path} {_megabytes(before)} -> {out} {_megabytes(after)} ({100 * after / before:.0f} %)")
    for folder in inner:
        print(f"the VQGAN inside: {folder} {_megabytes(folders.size(folder))} of these")


def _megabytes(amount: int) -> str:
    return f"{amount / 1e6:,.2f} MB"


def with_flags(words: Sequence[str]) -> list[str]:
    """`CKPT OUT ...` as `--ckpt CKPT --out OUT ...`."""
    leading = 0
    while leading < min(len(words), 2) and not words[leading].startswith("-"):
        leading += 1
    named = [part for flag, word in zip(("--ckpt", "--out"), words[:leading]) for part in (flag, word)]
    return [*named, *words[leading:]]


def main(argv: Sequence[str] | None = None) -> None:
    """`tats convert CKPT OUT`"""
    words = list(sys.argv[1:] if argv is None else argv)
    convert(flags.parse(ConvertConfig, with_flags(words), prog="tats convert"))
