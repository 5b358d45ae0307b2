"""--compute_fvd of the sampling scripts: the videos of a run, scored by a protocol as their codes are decoded.

What a score needs is opened before videos are made, which takes long; afterwards only their codes are needed, so that
videos of any length are judged piece by piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tats import output, sampling
from tats.codes_file import Video
from tats.data.config import DataConfig
from tats.evaluate_sides import decode
from tats.flags import UserError
from tats.gpt.judge_config import JudgeConfig, LongJudgeConfig
from tats.gpt.sample_config import DrawConfig
from tats.metrics.data_side import DataClips, data_clips
from tats.metrics.evaluation import Pair, evaluate
from tats.metrics.features import Network
from tats.metrics.networks import open_network
from tats.metrics.protocols import Protocol, find
from tats.metrics.sides import MadeClips
from tats.output import Store
from tats.vqgan.model import VQGAN


@dataclass(frozen=True)
class Judge:
    """What the videos of a run are compared with, and how."""

    protocol: Protocol
    network: Network
    real: DataClips | None
    seed: int


def opened(args: Any, data: DataConfig, latent_frames: int, vqgan: VQGAN) -> Judge | None:
    """The judge of a sampling script with these flags, None without --compute_fvd; its videos have so many latent
    frames."""
    if not args.judge.compute_fvd:
        return None
    frames = latent_frames * vqgan.config.downsample[0]
    return judge_of(args.judge, data, frames, args.output.n_sample, args.draw)


def judge_of(wanted: JudgeConfig, data: DataConfig, frames: int, n_sample: int, draw: DrawConfig) -> Judge | None:
    """The judge that --compute_fvd asks for; None, and a line that says how to get one, where no network was given.

    data: where real clips lie and how they are cut. frames: of every video that is made, of which there are `n_sample`.

    Raises:
        UserError: the network or the data can't be read, or the videos are shorter than the clips that are compared.
    """
    recipe = find(wanted.protocol)
    if wanted.features_ckpt is None and wanted.i3d_ckpt is None:
        sampling.say(
            "--compute_fvd: no score without a network: give --i3d_ckpt FILE for FVD (tats weights list), or "
            "--features_ckpt FILE (made by: tats evaluate --train_features --data_path DATA --features_ckpt FILE)"
        )
        return None
    if data.data_path is None:
        raise UserError("--compute_fvd compares with real clips: --data_path is needed")
    if data.vtokens:
        raise UserError("--compute_fvd compares pixels: leave --vtokens out and give the videos")
    if recipe.kind != "frechet" or recipe.picture:
        raise UserError(f"--compute_fvd compares two sets of clips; --protocol {recipe.name} is for tats evaluate")
    protocol = recipe.with_choices(
        frames=data.clip_frames,
        stride=data.sample_every_n_frames,
        size=(data.resolution, data.resolution),
        n_generated=n_sample,
        n_real=n_sample if recipe.n_real == recipe.n_generated else None,
    )
    if (data.clip_frames - 1) * protocol.generated_stride >= frames:
        raise UserError(
            f"--compute_fvd compares clips of equal length: this transformer makes {frames} frames, real clips would "
            f"have {data.clip_frames}; take --sequence_length {frames * data.sample_every_n_frames}"
        )
    network = open_network(wanted.features_ckpt, wanted.i3d_ckpt, sampling.device_of(draw.device))
    return Judge(protocol, network, data_clips(data, protocol, draw.seed), draw.seed)


def data_of(wanted: LongJudgeConfig) -> DataConfig:
    """The real clips that the flags of a long sampler describe; what they leave open is as the protocol says."""
    recipe = find(wanted.protocol)
    stride = wanted.sample_every_n_frames or recipe.stride
    length = (recipe.frames or 16) if wanted.image_folder else ((recipe.frames or 16) - 1) * stride + 1
    return DataConfig(
        data_path=wanted.data_path,
        sequence_length=wanted.sequence_length or length,
        resolution=wanted.resolution or (recipe.size or (128, 128))[0],
        sample_every_n_frames=stride,
        image_folder=wanted.image_folder,
        num_workers=wanted.num_workers,
    )


def score(judge: Judge, store: Store, vqgan: VQGAN, videos: Sequence[Video], batch_size: int = 16) -> dict[str, Any]:
    """The score of a run's videos, from their codes; says it, and what limits it."""
    made = clips_of(store, vqgan, videos, judge.protocol, batch_size)
    result = evaluate(judge.protocol, Pair(made, judge.real), judge.network, judge.seed)
    result["fingerprints"] |= {name: store.settings[name] for name in ("gpt", "coarse", "fine", "vqgan")
                               if name in store.settings}  # fmt: skip
    result["versions"] = output.versions()
    print(result["line"])
    for note in result["notes"]:
        print(f"note: {note}")
    return result


def clips_of(
    store: Store, vqgan: VQGAN, videos: Sequence[Video], protocol: Protocol, batch_size: int = 16
) -> MadeClips:
    """The videos of a run as a side of a score."""

    def make(numbers: Sequence[int], seed: int) -> Tensor:
        rows = [store.codes.rows[videos[number].index] for number in numbers]
        return decode(vqgan, (np.stack(pieces) for pieces in zip(*(row.pieces() for row in rows))), protocol)

    return MadeClips(len(videos), make, protocol, {"path": str(store.folder)}, batch_size)
