"""What `tats evaluate` opens: both sides of a score, the network, and the processes that share the work."""

import atexit
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats import checkpoint
from tats.codes_file import read_codes
from tats.evaluate_flags import EvaluateConfig
from tats.flags import UserError
from tats.gpt.api import sample_codes, sample_long_codes
from tats.gpt.model import GPT
from tats.metrics.data_side import data_clips
from tats.metrics.evaluation import How, Pair
from tats.metrics.features import Network
from tats.metrics.networks import open_named, open_network
from tats.metrics.processes import World, current
from tats.metrics.protocols import Protocol
from tats.metrics.sides import FileClips, MadeClips, Reconstructions, Side, quantised
from tats.perceptual import open_perceptual
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import decode_stream


@dataclass
class Opened:
    """Everything a score needs, and the fingerprints of the checkpoints it depends on."""

    pair: Pair
    network: Network | None
    how: How
    checkpoints: dict[str, str]


def open_all(config: EvaluateConfig, protocol: Protocol) -> Opened:
    """Sides, network and processes for a score.

    Raises:
        UserError: something is missing, unreadable, or does not fit the protocol.
    """
    if config.generated is None and config.gpt_ckpt is None and not config.reconstruct:
        raise UserError(
            "give two sets of clips, tats evaluate GENERATED REAL; or --generated, --gpt_ckpt or --reconstruct with "
            "--data_path; or train a network: --train_features"
        )
    for path in (config.generated, config.real):
        if path is not None and not Path(path).expanduser().exists():
            raise UserError(f"{path}: no such file or folder; give clips as .npy, .npz or video files")
    world, device = join(config.draw.device)
    network = open_judge(config, protocol, device)
    real = None if protocol.kind == "inception" and not config.reconstruct else real_side(config, protocol)
    models: dict[str, GPT | VQGAN] = {}
    if config.gpt_ckpt:
        gpt, vqgan = checkpoint.load_pair(config.gpt_ckpt, str(config.vqgan_ckpt), device)
        models = {"gpt": gpt, "vqgan": vqgan}
        generated: Side = sampled(gpt, vqgan, config, protocol)
    elif config.vqgan_ckpt:
        vqgan = checkpoint.load_vqgan(config.vqgan_ckpt, device)
        models = {"vqgan": vqgan}
        if config.generated:
            generated = decoded(Path(config.generated), vqgan, protocol, config.data.batch_size)
        elif real is not None:
            generated = Reconstructions(vqgan, real, protocol)
    else:
        generated = FileClips(str(config.generated), protocol, None, config.data.batch_size)
    prints = {kind: checkpoint.fingerprint(model) for kind, model in models.items()}
    how = How(world, "replace" if config.replace_cache else "use")
    return Opened(Pair(generated, real), network, how, prints)


def join(device: str | None) -> tuple[World, str]:
    """The processes that work together, as torchrun has started them, and this one's device."""
    size, gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    if size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if gpu and device != "cpu" else "gloo")
        atexit.register(torch.distributed.destroy_process_group)  # threads left at the end abort the process
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if gpu else "cpu"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return current(), device


def open_judge(config: EvaluateConfig, protocol: Protocol, device: str) -> Any:
    """The network that the flags name, or the protocol's own; None where pairs are compared without LPIPS."""
    if protocol.kind == "pairs":
        return None if config.lpips_ckpt is None else open_perceptual(config.lpips_ckpt, device)
    if config.i3d_ckpt is not None:
        return open_network(None, config.i3d_ckpt, device)
    if config.features_ckpt is not None or protocol.network == "file":
        return open_network(config.path, None, device)
    return open_named(protocol.network, None, device)


def real_side(config: EvaluateConfig, protocol: Protocol) -> Side:
    """Real clips: files, or those of a data set that the protocol chooses."""
    if config.real is not None:
        return FileClips(config.real, protocol, protocol.n_real, config.data.batch_size)
    return data_clips(config.data.data(), protocol, config.seed)


def decoded(path: Path, vqgan: VQGAN, protocol: Protocol, batch_size: int) -> MadeClips:
    """Videos that lie there as codes, as samplers write them: codes*.npz, beside a manifest that names their VQGAN.

    Raises:
        UserError: there are no codes, or of several lengths, or they are those of another VQGAN.
    """
    files = sorted(path.rglob("codes*.npz")) if path.is_dir() else [path]
    by_index = {index: row for file in files for index, (_, row) in read_codes(file).items()}
    rows = [by_index[index] for index in sorted(by_index)]
    if not rows:
        raise UserError(f"{path} holds no codes: --vqgan_ckpt decodes codes*.npz, as samplers write them")
    if len({row.shape for row in rows}) > 1:
        raise UserError(f"{path} holds videos of several lengths: give one of its files, codes_00000.npz, ...")
    manifest = files[0].parent / "manifest.json"
    made_by = json.loads(manifest.read_text(encoding="utf-8"))["settings"].get("vqgan") if manifest.exists() else None
    if made_by not in (None, checkpoint.fingerprint(vqgan)):
        raise UserError(f"{path} holds codes of another VQGAN (fingerprint {made_by}) than --vqgan_ckpt: give that one")

    def make(numbers: Sequence[int], seed: int) -> Tensor:
        return decode(
            vqgan, (np.stack(pieces) for pieces in zip(*(rows[number].pieces() for number in numbers))), protocol
        )

    about = {"path": str(path), "form": "codes"}
    return MadeClips(len(rows), make, protocol, about, batch_size)


@torch.inference_mode()
def decode(vqgan: VQGAN, pieces: Iterable[Any], protocol: Protocol) -> Tensor:
    """Frames uint8 [B, T, H, W, C] from codes int [B, n, h, w] that come piece by piece; of longer videos no more is
    decoded than the protocol looks at."""
    device = next(vqgan.parameters()).device
    needed = ((protocol.frames or sys.maxsize) - 1) * protocol.generated_stride + 1 + protocol.offset
    latent = (frame for piece in pieces for frame in torch.as_tensor(piece).long().to(device).unbind(1))
    trained = list(itertools.islice(latent, vqgan.latent_shape[0]))
    further = next(latent, None)
    if further is None:
        return quantised(vqgan.decode(torch.stack(trained, 1)), protocol.levels).cpu()
    found: list[Tensor] = []
    for video in decode_stream(vqgan, itertools.chain(trained, [further], latent), group_norm_in_pieces=True):
        found.append(quantised(video, protocol.levels).cpu())
        if sum(part.shape[1] for part in found) >= needed:
            break
    return torch.cat(found, 1)


def sampled(gpt: GPT, vqgan: VQGAN, config: EvaluateConfig, protocol: Protocol) -> MadeClips:
    """Videos that a transformer samples while they are judged: seeds that count on, classes by turns."""
    if gpt.config.key not in ("label", "none"):
        raise UserError(f"this transformer is conditioned on {gpt.config.key}: sample first, then give --generated")
    per_latent, trained = vqgan.config.downsample[0], gpt.config.latent_shape[0]
    span = ((protocol.frames or trained * per_latent) - 1) * protocol.generated_stride + 1 + protocol.offset
    latent = -(-span // per_latent)

    def make(numbers: Sequence[int], seed: int) -> Tensor:
        more: dict[str, Any] = {"seeds": [seed * 1_000_000 + number for number in numbers], **config.draw.settings}
        if gpt.config.key == "label":
            more["label"] = [number % gpt.config.n_classes for number in numbers]
        if latent <= trained:
            return decode(vqgan, [sample_codes(gpt, **more)], protocol)
        frames = sample_long_codes(gpt, latent, config.temporal_sample_pos, **more)
        return decode(vqgan, (frame[:, None] for frame in frames), protocol)

    about = {"form": "sampled", "gpt": config.gpt_ckpt, "vqgan": config.vqgan_ckpt, **config.draw.settings}
    return MadeClips(protocol.n_generated or 2048, make, protocol, about, config.data.batch_size)
