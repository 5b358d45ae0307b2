"""Models from files and back: released checkpoints, our own, and folders with `model.safetensors`.

    gpt, vqgan = load_pair("gpt.ckpt", "vqgan.ckpt", device="cuda")
    save(vqgan, "folder/")

Nothing that a file holds is executed (see `tats.unpickle`). Tensors are read when they are used: critics, perceptual
weights, optimizer states and attention masks of a released file cost neither time nor memory.
"""

import hashlib
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tats import folders, limits, published, shards, unpickle, weights
from tats.flags import UserError, from_dict, to_dict
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

Device = str | torch.device
Model = TypeVar("Model", bound=nn.Module)

CONFIGS = {"vqgan": VQGANConfig, "gpt": GPTConfig}
CALLED = {"vqgan": "a VQGAN", "gpt": "a transformer"}
_CRITICS = ("image_discriminator.", "video_discriminator.", "perceptual_model.")
MOST_GROWTH = 16  # times the size of its file that a model may have: numbers may be stored in half or a quarter
_NO_FUNCTION = (".N", ".z_avg", ".num_batches_tracked")  # state that changes no code and no picture


@dataclass(frozen=True)
class Stored:
    """A checkpoint as it lies in its file.

    kind: "vqgan" or "gpt". config: the settings of the model, plain values. state_dict: its tensors, views of the file.
    others: what else the file holds (critics, perceptual weights, the VQGANs inside a released transformer), under its
    stored names. extra: plain values beside the model (label names, the VQGAN's fingerprint). published: the stored
    flags of a released file, else None.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    others: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] | None = None

    def inner(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of a VQGAN inside a released transformer: `first_stage_model.` or `cond_stage_model.`."""
        inside = {name.removeprefix(prefix): value for name, value in self.others.items() if name.startswith(prefix)}
        return {name: value for name, value in inside.items() if not name.startswith(_CRITICS)}


def load_vqgan(path: str | Path, device: Device = "cpu") -> VQGAN:
    """The VQGAN of a checkpoint, in evaluation mode.

    path: a released file, one of ours, a folder made by `save`, or the name of a released model that has been fetched
    (`tats weights list`). A released transformer's file gives the VQGAN it holds. Raises `UserError` where the file is
    damaged, of another kind, or its tensors do not fit.
    """
    stored = read_checkpoint(path)
    if stored.kind == "gpt":
        return inner_vqgan(stored, "first_stage_model.", None, device)
    config = from_dict(VQGANConfig, stored.config, str(stored.path))
    return _build(VQGAN, config, stored.state_dict, stored.path, device)


def load_transformer(
    path: str | Path,
    vqgan_ckpt: str | Path | None = None,
    stft_vqgan_ckpt: str | Path | None = None,
    device: Device = "cpu",
) -> GPT:
    """The transformer of a checkpoint, in evaluation mode; `gpt.config` also says how its codes lie in a window.

    vqgan_ckpt, stft_vqgan_ckpt: the VQGANs it was trained with. Released files do not store how these shrink videos and
    sounds; without them it is inferred from the sizes of the window. Raises `UserError` as `load_vqgan`.
    """
    stored = _expect(read_checkpoint(path), "gpt")
    return _transformer(stored, vqgan_ckpt, stft_vqgan_ckpt, device)


def load_pair(
    gpt: str | Path, vqgan: str | Path, device: Device = "cpu", stft_vqgan: str | Path | None = None
) -> tuple[GPT, VQGAN]:
    """A transformer and the VQGAN that turns its codes into videos.

    A released transformer holds the VQGAN it was trained with: that copy is taken, as its authors did, and `vqgan` says
    how it shrinks videos. For our checkpoints `vqgan` must be the very model the codes came from, else `UserError`.
    """
    stored = _expect(read_checkpoint(gpt), "gpt")
    transformer = _transformer(stored, vqgan, stft_vqgan, device)
    if stored.inner("first_stage_model."):
        return transformer, inner_vqgan(stored, "first_stage_model.", vqgan, device)
    model = load_vqgan(vqgan, device)
    expected, found = stored.extra.get("vqgan"), fingerprint(model)
    if expected is not None and expected != found:
        raise UserError(
            f"{gpt} was trained on the codes of another VQGAN (fingerprint {expected}) than {vqgan} ({found}): its "
            "codes would decode to noise. Give the VQGAN it was trained with"
        )
    if transformer.config.n_codes != model.n_codes:
        raise UserError(
            f"{gpt} knows {transformer.config.n_codes} codes, {vqgan} has {model.n_codes}: they do not belong together"
        )
    return transformer, model


def load_sound_vqgan(gpt: str | Path, stft_vqgan: str | Path, device: Device = "cpu") -> VQGAN:
    """The VQGAN of sounds that goes with a transformer: a released one holds its own copy, which is taken.

    For our checkpoints it must be the very model that the sounds were encoded with, else `UserError`.
    """
    stored = _expect(read_checkpoint(gpt), "gpt")
    if stored.inner("cond_stage_model."):
        return inner_vqgan(stored, "cond_stage_model.", stft_vqgan, device)
    model = load_vqgan(stft_vqgan, device)
    expected, found = stored.extra.get("stft_vqgan"), fingerprint(model)
    if expected is not None and expected != found:
        raise UserError(
            f"{gpt} was trained on sounds of another VQGAN (fingerprint {expected}) than {stft_vqgan} ({found}): give "
            f"the one it was trained with"
        )
    return model


def save(model: VQGAN | GPT, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write `model.safetensors` and `config.json` into `folder` (made if missing); `load_*` read them back.

    extra: plain values to keep beside the model. Returns the folder.
    """
    kind = "vqgan" if isinstance(model, VQGAN) else "gpt"
    folders.write(Path(folder), kind, to_dict(model.config), extra or {}, model.state_dict())
    return Path(folder)


def fingerprint(model: VQGAN | GPT | str | Path) -> str:
    """16 hexadecimal digits that change with anything that changes what the model computes: weights and settings."""
    if not isinstance(model, nn.Module):
        stored = read_checkpoint(model)
        model = load_vqgan(model) if stored.kind == "vqgan" else load_transformer(model)
    digest = hashlib.sha256()
    if isinstance(model, VQGAN):
        facts = (model.config.downsample, model.config.padding_type, model.config.norm_type)
        digest.update(repr(facts).encode())
    for name, value in sorted(model.state_dict().items()):
        if not name.endswith(_NO_FUNCTION):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().view(-1).numpy())
    return digest.hexdigest()[:16]


def read_checkpoint(path: str | Path) -> Stored:
    """What a checkpoint holds, without building a model and without running anything that the file says.

    path: as in `load_vqgan`. Raises `UserError` for a missing, damaged or foreign file.
    """
    path = weights.find(path)
    if path.is_dir() or path.name == "model.safetensors":
        return _read_folder(path if path.is_dir() else path.parent)
    content = unpickle.load(path)
    if isinstance(content, dict) and shards.PARTS in content:  # of --strategy fsdp
        content = shards.whole(path, content)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: no checkpoint of a VQGAN or a transformer: it has no 'state_dict'")
    state = {str(name): value for name, value in content["state_dict"].items() if isinstance(value, Tensor)}
    if "kind" in content:
        with _understood(path):
            return _read_ours(path, content, state)
    about = content.get("hyper_parameters")
    args = about.get("args") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(args, Namespace):
        raise UserError(f"{path}: holds no settings ('kind' and 'config', or the flags of a released checkpoint)")
    return _read_published(path, {**about, "args": dict(vars(args))}, state)


def settings(
    stored: Stored, vqgan_ckpt: str | Path | None = None, stft_vqgan_ckpt: str | Path | None = None
) -> VQGANConfig | GPTConfig:
    """The configuration of a stored model; a released transformer's depends on the VQGANs that it was trained with."""
    if stored.kind == "vqgan":
        return from_dict(VQGANConfig, stored.config, str(stored.path))
    if stored.published is None:
        return from_dict(GPTConfig, stored.config, str(stored.path))
    vqgan = _config_of(vqgan_ckpt) if vqgan_ckpt is not None else None
    sound = _config_of(stft_vqgan_ckpt) if stft_vqgan_ckpt is not None else None
    with _understood(stored.path):
        return published.gpt_config(stored.extra, _raw(stored), str(stored.path), vqgan, sound)


def inner_vqgan(stored: Stored, prefix: str, own_ckpt: str | Path | None = None, device: Device = "cpu") -> VQGAN:
    """A VQGAN inside a released transformer's file: `first_stage_model.`, or `cond_stage_model.` for sounds.

    own_ckpt: the same VQGAN in its own file, which knows its flags; without it they are inferred from sizes.
    """
    state, source = stored.inner(prefix), str(stored.path)
    if not state or stored.published is None:
        raise UserError(f"{source} holds a transformer and no VQGAN: give the VQGAN's own checkpoint")
    if own_ckpt is not None:
        config = published.vqgan_config(to_dict(_config_of(own_ckpt)), state, source)
    else:
        gpt = from_dict(GPTConfig, stored.config, source)
        args = {**stored.published, **({"resolution": published.SPECTROGRAM[0]} if prefix.startswith("cond") else {})}
        with _understood(stored.path):
            config = published.inner_vqgan_config(gpt, args, state, source)
    return _build(VQGAN, config, state, stored.path, device)


def check(stored: Stored, config: VQGANConfig | GPTConfig) -> None:
    """Raise `UserError` unless the stored tensors are exactly those of a model with this configuration."""
    with _unfilled():
        model = VQGAN(config) if isinstance(config, VQGANConfig) else GPT(config)
    _compare_names(model.state_dict(), stored.state_dict, stored.path, type(model).__name__)


def _read_ours(path: Path, content: dict[str, Any], state: dict[str, Tensor]) -> Stored:
    kind = content["kind"]
    if str(kind) not in CONFIGS:
        raise UserError(f"{path}: holds a model of the kind {kind!r}; this version knows vqgan and gpt")
    averages = content.get("ema")  # of a run with --ema_decay: what samplers take in place of the weights
    averages = averages.get("state_dict") if isinstance(averages, dict) else None
    if isinstance(averages, dict):
        state = {**state, **{str(name): value for name, value in averages.items() if isinstance(value, Tensor)}}
    own = {name.removeprefix(f"{kind}."): value for name, value in state.items() if name.startswith(f"{kind}.")}
    others = {name: value for name, value in state.items() if not name.startswith(f"{kind}.")}
    return Stored(path, kind, dict(content["config"]), own, others, dict(content.get("extra") or {}))


def _read_published(path: Path, stored: dict[str, Any], state: dict[str, Tensor]) -> Stored:
    if "transformer.tok_emb.weight" in state:
        own: dict[str, Tensor] = {}
        others: dict[str, Tensor] = {}
        for name, value in state.items():
            ours = name.startswith("transformer.") and not name.endswith(".attn.mask")
            (own if ours else others)[name.removeprefix("transformer.") if ours else name] = value
        with _understood(path):
            config = to_dict(published.gpt_config(stored, state, str(path), quiet=True))
        return Stored(path, "gpt", config, own, others, stored, stored["args"])
    if "codebook.embeddings" in state and "encoder.conv_first.conv.weight" in state:
        own = {name: value for name, value in state.items() if not name.startswith(_CRITICS)}
        others = {name: value for name, value in state.items() if name.startswith(_CRITICS)}
        with _understood(path):
            config = to_dict(published.vqgan_config(stored["args"], own, str(path)))
        return Stored(path, "vqgan", config, own, others, stored, stored["args"])
    raise UserError(
        f"{path}: neither a VQGAN (codebook.embeddings, encoder.conv_first...) nor a transformer "
        f"(transformer.tok_emb.weight): it holds {_some(state)}"
    )


def _read_folder(folder: Path) -> Stored:
    kind, config, extra, tensors = folders.read(folder)
    if kind not in CONFIGS:
        raise UserError(f"{folder}: holds a model of the kind {kind!r}; this version knows vqgan and gpt")
    return Stored(folder, kind, config, tensors, extra=extra)


def _expect(stored: Stored, kind: str) -> Stored:
    if stored.kind != kind:
        raise UserError(f"{stored.path} holds {CALLED[stored.kind]}, here belongs {CALLED[kind]}")
    return stored


def _raw(stored: Stored) -> dict[str, Tensor]:
    """The tensors of a released transformer under their published names."""
    return {**{f"transformer.{name}": value for name, value in stored.state_dict.items()}, **stored.others}


def _config_of(path: str | Path) -> VQGANConfig:
    stored = _expect(read_checkpoint(path), "vqgan")
    return from_dict(VQGANConfig, stored.config, str(stored.path))


def _transformer(
    stored: Stored, vqgan_ckpt: str | Path | None, stft_vqgan_ckpt: str | Path | None, device: Device
) -> GPT:
    return _build(GPT, settings(stored, vqgan_ckpt, stft_vqgan_ckpt), stored.state_dict, stored.path, device)


def _build(kind: type[Model], config: Any, state: Mapping[str, Tensor], path: Path, device: Device) -> Model:
    """A model with the tensors of a file, which must be exactly those it wants, in evaluation mode on `device`."""
    with _understood(path), _unfilled():
        model = kind(config)
    wanted = model.state_dict()
    _compare_names(wanted, state, path, type(model).__name__)
    _compare_size(wanted, path)
    own = {name: _own(state[name], value.dtype, device) for name, value in wanted.items()}
    _check_numbers(own, path)
    model.load_state_dict(own, strict=True, assign=True)
    if isinstance(model, VQGAN) and torch.device(device).type == "cpu":
        model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # faster, see docs/speed.md
    return model.eval()


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Raise `UserError` where the settings in a file are of another type, or so far off that no model has them."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: its settings, or the sizes of its tensors, are those of no VQGAN and no transformer ({reason})"
        ) from error


@contextmanager
def _unfilled() -> Iterator[None]:
    """Models made inside have sizes and no values: nothing is drawn or filled that a file overwrites.

    For tensors without values torch would load its compiler to draw from a normal distribution, which takes seconds.
    """
    normal = torch.nn.init.normal_
    torch.nn.init.normal_ = lambda tensor, *_, **__: tensor
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.nn.init.normal_ = normal


def _compare_names(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, what: str) -> None:
    missing, left_over = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or left_over:
        parts = [f"{len(missing)} missing ({_some(missing)})"] if missing else []
        parts += [f"{len(left_over)} left over ({_some(left_over)})"] if left_over else []
        raise UserError(f"{path}: its tensors are not those of this {what}: {', '.join(parts)}")
    other = [
        f"{name} is {tuple(found[name].shape)}, wanted {tuple(value.shape)}"
        for name, value in wanted.items()
        if found[name].shape != value.shape
    ]
    if other:
        raise UserError(f"{path}: {len(other)} tensors have another size than the settings say: {_some(other)}")


def _compare_size(wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raise `UserError` where a small file announces huge tensors: stored views may repeat a number for ever."""
    needed = sum(value.numel() * value.element_size() for value in wanted.values())
    wrong = limits.problem("max_unpacked_mb", needed / 1e6, "{:,.0f} MB")
    if wrong is not None and path.is_file() and needed > MOST_GROWTH * path.stat().st_size:
        raise UserError(f"{path}: refused, because its {path.stat().st_size:,} bytes announce tensors of {wrong}")


def _check_numbers(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `UserError` where a weight is no number: nothing but more of them can come out of such a model."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not _is_finite(value)]
    if bad:
        raise UserError(
            f"{path}: {len(bad)} of {len(state)} tensors hold NaN or infinity ({_some(bad)}): the training that wrote "
            "it had gone wrong by then. Take an earlier checkpoint"
        )


def _is_finite(value: Tensor) -> bool:
    """Whether no number is NaN or infinite: a sum would be, too. Its own type is fast, but may overflow."""
    return bool(value.sum().isfinite()) or bool(value.sum(dtype=torch.float64).isfinite())


def _own(value: Tensor, dtype: torch.dtype | None = None, device: Device | None = None) -> Tensor:
    """A contiguous copy with a storage of its own: stored tensors may overlap, be shared, or be views of a file."""
    dtype, device = dtype or value.dtype, torch.device(device or value.device)
    if device.type != "cpu":
        copy = value.detach().to(device=device, dtype=dtype)
        again = copy.data_ptr() == value.data_ptr()
        return copy.clone(memory_format=torch.contiguous_format) if again else copy.contiguous()
    room = torch.from_numpy(np.empty(value.numel() * dtype.itemsize, np.uint8))  # numpy asks for large pages
    return room.view(dtype).view(value.shape).copy_(value.detach())


def _some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
