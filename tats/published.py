"""The settings of released checkpoints: from the flags stored in them, and from the sizes of their tensors.

Where the two disagree about a size the tensors are right, and the disagreement is said in one line. What no tensor
shows (the shrinking per axis, the padding, the number of heads) comes from the flags.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from tats import flags
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.plain import matches
from tats.vqgan.config import VQGANConfig

SPECTROGRAM = (64, 16)  # rows and columns that belong to one video frame

# flags of the published training that a file may lack because they came later, with the value they had before
_LATER = {"padding_type": "replicate", "sample_every_n_frames": 1, "restart_thres": 1.0, "no_random_restart": False}


def vqgan_config(args: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> VQGANConfig:
    """The configuration of a VQGAN: `args`, the stored flags; `state`, tensors under their own names ("encoder...").

    `source` names the file in messages. Raises `UserError` where flags and tensors contradict each other in something
    the tensors can't settle.
    """
    n_codes, embedding_dim = state["codebook.embeddings"].shape
    n_hiddens, image_channels = state["encoder.conv_first.conv.weight"].shape[:2]
    sizes: dict[str, Any] = {
        "n_codes": n_codes,
        "embedding_dim": embedding_dim,
        "n_hiddens": n_hiddens,
        "image_channels": image_channels,
        "norm_type": "batch" if "encoder.final_block.0.running_mean" in state else "group",
    }
    for name, value in sizes.items():
        _say_contradiction(source, name, args.get(name), value)
    if "downsample" not in args:
        raise UserError(f"{source}: the stored flags lack 'downsample', which no tensor shows; the file can't be used")
    downsample = _powers_of_two(args["downsample"], source)
    blocks = _blocks(state)
    if max(downsample).bit_length() - 1 != blocks:
        raise UserError(
            f"{source}: the flags say --downsample {' '.join(map(str, downsample))}, but the file has {blocks} "
            f"shrinking blocks, so a largest factor of {2**blocks}: flags and weights are not of one model"
        )
    later = {name: args.get(name, value) for name, value in _LATER.items()}
    rest = {name: args[name] for name in ("resolution", "sequence_length") if name in args}
    return flags.from_dict(VQGANConfig, {**sizes, "downsample": downsample, **later, **rest}, source)


def inner_vqgan_config(
    gpt: GPTConfig, args: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> VQGANConfig:
    """The configuration of the VQGAN inside a transformer's checkpoint, whose own flags are not stored there."""
    t, h, w = inferred_downsample(args, _blocks(state), gpt.block_size, gpt.key)
    print(
        f"{source}: holds a VQGAN without its flags; taken as --downsample {t} {h} {w} --padding_type replicate "
        "from the sizes (give the VQGAN's own checkpoint if that is wrong)",
        file=sys.stderr,
    )
    known = ("resolution", "sequence_length", "sample_every_n_frames")
    given = {name: args[name] for name in known if name in args}
    return vqgan_config({**given, "downsample": (t, h, w)}, state, source)


def inferred_downsample(args: Mapping[str, Any], blocks: int, block_size: int, key: str) -> tuple[int, int, int]:
    """How a VQGAN with so many shrinking blocks shrinks videos, from the window of the transformer over its codes.

    Pictures shrink by the largest factor. Where the window holds one token of condition, time shrinks by what makes the
    clip fit it; a text or a sound takes an unknown part of it (and models
    with a table of places count in latent units): time shrinks by 4, as in all released models.
    """
    space = 2**blocks
    if key in ("text", "stft") or args.get("vtokens_pos"):
        return min(space, 4), space, space
    side = max(int(args.get("resolution", 128)) // space, 1)
    stride = max(int(args.get("sample_every_n_latent_frames", 0) or 0), 1)
    wanted, frames, time = max(block_size // side**2, 1), _frames_per_clip(args), 1
    while time < space and -(-(frames // (2 * time)) // stride) >= wanted:
        time *= 2
    return time, space, space


def gpt_config(
    stored: Mapping[str, Any],
    state: Mapping[str, Tensor],
    source: str,
    vqgan: VQGANConfig | None = None,
    sound: VQGANConfig | None = None,
    *,
    quiet: bool = False,
) -> GPTConfig:
    """The configuration of a transformer.

    `stored` is `hyper_parameters` of the file ("args" are its flags), `state` its tensors under the published names.
    `vqgan` tells how videos become codes, `sound` the same for sounds where those are the condition. `quiet` leaves the
    lines about contradictions to a later call.
    """
    args = stored["args"]
    key = "label" if args.get("unconditional") else stored.get("cond_stage_key", args.get("cond_stage_key", "label"))
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    known: dict[str, Any] = {
        "hyper_parameters": stored,
        "downsample": vqgan.downsample if vqgan else _downsample_inside(args, shapes, key),
        "n_codes": _n_codes(args, state, vqgan, sound if key == "stft" else None),
    }
    clips = {**args, "sequence_length": _frames_per_clip(args)}
    config = GPTConfig.from_published(clips, shapes, **known)
    t, h, w = config.latent_shape
    if key in ("text", "stft"):
        n_cond = max(config.block_size - t * h * w, 1)  # published windows are as long as condition and codes together
        exact = _sound_codes(sound) if key == "stft" and sound is not None else n_cond
        config = dataclasses.replace(config, n_cond=exact if exact <= n_cond + 1 else n_cond)
    if not quiet:
        classes = None if config.unconditional or key != "label" else args.get("class_cond_dim")
        flags = {"n_codes": vqgan.n_codes if vqgan else None, "class_cond_dim": classes}
        flags["n_codes of sounds"] = sound.n_codes if sound and key == "stft" else None
        found = {
            "n_codes": config.n_codes,
            "class_cond_dim": config.code_offset,
            "n_codes of sounds": config.code_offset,
        }
        for name in ("n_layer", "n_embd", "block_size"):
            flags[name], found[name] = args.get(name), getattr(config, name)
        for name, value in found.items():
            _say_contradiction(source, name, flags[name], value)
    if config.n_cond + t * h * w - 1 > config.block_size:
        raise UserError(
            f"{source}: a window of {config.block_size} positions can't hold {config.n_cond} of the condition and "
            f"{t}x{h}x{w} codes: the VQGAN given with it shrinks videos in another way than the one it was trained with"
        )
    return config


def _n_codes(
    args: Mapping[str, Any],
    state: Mapping[str, Tensor],
    vqgan: VQGANConfig | None,
    sound: VQGANConfig | None,
) -> int | None:
    """Size of the codebook: the VQGAN inside the file, else the one beside it; None leaves it to the vocabulary."""
    inner = state.get("first_stage_model.codebook.embeddings")
    if inner is not None:
        return len(inner)
    if args.get("vtokens") or vqgan is None:
        return len(state["transformer.tok_emb.weight"]) - sound.n_codes if sound else None
    return vqgan.n_codes


def _frames_per_clip(args: Mapping[str, Any]) -> int:
    """Frames that reach the VQGAN: videos are thinned out inside the clip, folders of pictures keep their length."""
    length = int(args.get("sequence_length", 16))
    kept = int(args.get("sample_every_n_frames", 1) or 1)
    return length if args.get("image_folder") or args.get("vtokens") or args.get("vtokens_pos") else length // kept


def _powers_of_two(factors: Any, source: str) -> tuple[int, int, int]:
    """The published code takes the power of two below a factor without a word."""
    given = tuple(factors) if matches(tuple[int, int, int], factors) else ()
    if len(given) != 3 or min(given) < 1:
        raise UserError(f"{source}: stored --downsample {factors} is not three factors of at least 1")
    t, h, w = (1 << (factor.bit_length() - 1) for factor in given)
    _say_contradiction(source, "downsample", given, (t, h, w))
    return t, h, w


def _say_contradiction(source: str, name: str, flag: Any, value: Any) -> None:
    if flag is not None and flag != value:
        print(
            f"{source}: the stored flags say {name} {flag}, the file's tensors {value}: taken {value}", file=sys.stderr
        )


def _blocks(state: Iterable[str]) -> int:
    """How often the encoder shrinks."""
    return len({name.split(".")[2] for name in state if name.startswith("encoder.conv_blocks.")})


def _downsample_inside(
    args: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], key: str
) -> tuple[int, int, int] | None:
    """The shrinking of the VQGAN inside a transformer's file; None where it holds none."""
    prefix = "first_stage_model."
    blocks = _blocks([name.removeprefix(prefix) for name in shapes if name.startswith(prefix)])
    return inferred_downsample(args, blocks, shapes["transformer.pos_emb"][1], key) if blocks else None


def _sound_codes(sound: VQGANConfig) -> int:
    """Codes of one sound: a spectrogram of 64 x 16 per video frame."""
    _, h, w = sound.downsample
    return sound.latent_shape[0] * (SPECTROGRAM[0] // h) * (SPECTROGRAM[1] // w)
