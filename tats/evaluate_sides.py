"""What `tats evaluate` opens: both sides of a score, the network, and the processes that share the work."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats import checkpoint
from tats.data.module import VideoData
from tats.evaluate_flags import EvaluateConfig
from tats.flags import UserError
from tats.gpt.model import GPT
from tats.metrics.evaluation import Pair
from tats.metrics.features import Network
from tats.metrics.networks import open_network
from tats.metrics.processes import ALONE, World, current
from tats.metrics.protocols import Protocol
from tats.metrics.sides import Batch, DataClips, FileClips, Joined, MadeClips, Side, quantised
from tats.video import from_frames
from tats.vqgan.model import VQGAN


@dataclass
class Opened:
    """Everything a score needs, and the fingerprints of the checkpoints it depends on."""

    pair: Pair
    network: Network | None
    network_name: str
    world: World
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
    network, name = open_judge(config, protocol, device)
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
    return Opened(Pair(generated, real), network, name, world, prints)


def join(device: str | None) -> tuple[World, str]:
    """The processes that work together, as torchrun has started them, and this one's device."""
    size, gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    if size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if gpu and device != "cpu" else "gloo")
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if gpu else "cpu"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return current(), device


def open_judge(config: EvaluateConfig, protocol: Protocol, device: str) -> tuple[Network | None, str]:
    """The network of the protocol or of the flags, and its name as protocols give it."""
    if protocol.kind == "pairs":
        return None, protocol.network
    if config.i3d_ckpt is not None:
        return open_network(None, config.i3d_ckpt, device), protocol.network
    if config.features_ckpt is not None or protocol.network == "file":
        network = open_network(config.path, None, device)
        return network, "file" if protocol.network == "file" else str(network.describe()["name"])
    return open_network(None, protocol.network, device), protocol.network


def real_side(config: EvaluateConfig, protocol: Protocol) -> Side:
    """Real clips: files, or those of a data set that the protocol chooses."""
    if config.real is not None:
        return FileClips(config.real, protocol, protocol.n_real, config.data.batch_size)
    if config.data.vtokens:
        raise UserError("real clips are pixels: leave --vtokens out and give the videos")
    frames = 1 if protocol.real_clips == "frames" else protocol.frames
    if frames is None:
        raise UserError(f"--protocol {protocol.name} takes clips of any length; name one with --sequence_length")
    span = frames if config.data.image_folder else (frames - 1) * protocol.stride + 1
    side = protocol.size[0] if protocol.size else None
    data = config.data.data()
    data = replace(
        data, sequence_length=span, resolution=side or data.resolution, sample_every_n_frames=protocol.stride
    )
    opened = VideoData(data, seed=config.seed)
    splits = protocol.split.split("+")
    sources = [opened.source(split) for split in splits]
    source = sources[0] if len(sources) == 1 else Joined(sources)
    about = {"path": str(config.data.data_path), "split": protocol.split, "form": type(sources[0]).__name__}
    return DataClips(source, protocol, about, config.data.batch_size, config.data.num_workers)


def decoded(path: Path, vqgan: VQGAN, protocol: Protocol, batch_size: int) -> MadeClips:
    """Videos that lie there as codes: codes*.npz of a sampler, or one array int [N, t, h, w]."""
    files = sorted(path.rglob("codes*.npz")) if path.is_dir() else [path]
    parts = []
    for file in files:
        loaded = np.load(file, allow_pickle=False)
        parts.append(loaded if isinstance(loaded, np.ndarray) else loaded["codes"])
    if not parts or any(part.ndim != 4 or not np.issubdtype(part.dtype, np.integer) for part in parts):
        raise UserError(f"{path} holds no codes: --vqgan_ckpt decodes codes*.npz, as samplers write them")
    codes = np.concatenate(parts)
    if codes.min() < 0 or codes.max() >= vqgan.n_codes:
        raise UserError(
            f"{path} holds codes up to {codes.max()}, the VQGAN has {vqgan.n_codes}: they do not belong together"
        )
    device = next(vqgan.parameters()).device

    def make(numbers: Sequence[int], seed: int) -> Tensor:
        with torch.inference_mode():
            return quantised(vqgan.decode(torch.from_numpy(codes[list(numbers)]).long().to(device)), protocol.levels)

    return MadeClips(len(codes), make, protocol, {"path": str(path), "form": "codes"}, batch_size)


class Reconstructions:
    """The clips of a side as they come back from a VQGAN; counts which codes they use."""

    pixels = "raw"

    def __init__(self, vqgan: VQGAN, real: Side, protocol: Protocol):
        self.vqgan, self.real, self.protocol = vqgan, real, protocol
        self.used = torch.zeros(vqgan.n_codes, dtype=torch.double)

    def __len__(self) -> int:
        return len(self.real)

    def describe(self) -> dict[str, Any]:
        """What was reconstructed."""
        return {"form": "reconstructions", "clips": len(self)}

    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """See `tats.metrics.sides.Side`."""
        device = next(self.vqgan.parameters()).device
        for batch in self.real.batches(seed, part, world):
            with torch.inference_mode():
                codes = self.vqgan.encode(from_frames(batch["frames"]).to(device))  # [b, t, h, w]
                rebuilt = self.vqgan.decode(codes)[:, :, : batch["frames"].shape[1]]
            self.used += torch.bincount(codes.flatten().cpu(), minlength=self.vqgan.n_codes)
            yield {**batch, "frames": quantised(rebuilt, self.protocol.levels).cpu()}


def sampled(gpt: GPT, vqgan: VQGAN, config: EvaluateConfig, protocol: Protocol) -> MadeClips:
    """Videos that a transformer samples while they are judged: seeds that count on, classes by turns."""
    from tats.gpt.api import sample_codes, sample_long_codes
    from tats.vqgan.stream import decode_stream

    classes = gpt.config.code_offset if gpt.config.key == "label" else 0
    if gpt.config.key not in ("label", "none"):
        raise UserError(f"this transformer is conditioned on {gpt.config.key}: sample first, then give --generated")
    count = protocol.n_generated or 2048
    per_latent, trained = vqgan.config.downsample[0], gpt.config.latent_shape[0]
    span = ((protocol.frames or trained * per_latent) - 1) * protocol.generated_stride + 1 + protocol.offset
    latent = max(-(-span // per_latent), 1)

    def make(numbers: Sequence[int], seed: int) -> Tensor:
        seeds = [seed * 1_000_000 + number for number in numbers]
        more: dict[str, Any] = {"seeds": seeds, **config.draw.settings}
        if classes:
            more["label"] = [number % classes for number in numbers]
        if latent <= trained:
            video = vqgan.decode(sample_codes(gpt, **more))
            return quantised(video, protocol.levels)
        frames = sample_long_codes(gpt, latent, config.temporal_sample_pos, **more)
        return torch.cat([quantised(piece, protocol.levels).cpu() for piece in decode_stream(vqgan, frames)], 1)

    about = {"form": "sampled", "gpt": config.gpt_ckpt, "vqgan": config.vqgan_ckpt, **config.draw.settings}
    return MadeClips(count, torch.inference_mode()(make), protocol, about, config.data.batch_size)
