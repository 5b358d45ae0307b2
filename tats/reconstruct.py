"""`tats reconstruct`: send a folder of videos through a VQGAN and see what comes back.

tats reconstruct --vqgan_ckpt V.ckpt --data_path data/shapes --out runs/reconstructions
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats import flags
from tats.flags import REQUIRED, UserError, arg, new_folder

if TYPE_CHECKING:
    from torch import Tensor

    from tats.perceptual import Perceptual
    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.model import VQGAN

FILMS = (".avi", ".mp4", ".webm", ".mkv", ".mov")
FPS = 8.0  # of the films that are written


@dataclass(frozen=True)
class ReconstructConfig:
    """Encodes and decodes clips, and says how close they come: PSNR, SSIM, LPIPS, use of the codebook."""

    vqgan_ckpt: str = arg(REQUIRED, "the VQGAN: a checkpoint, a model folder, or the name of a released one")
    data_path: str = arg(REQUIRED, "folder with train/ and test/, or any folder of videos, or one video")
    out: str = arg("reconstructions", "folder for the films and reconstruct.json")
    split: str = arg("test", "which split of a folder with train/ and test/", ["train", "test"])
    n_clips: int | None = arg(None, "clips that are judged, at most (none: all)")
    n_films: int = arg(8, "clips that are written side by side with what came back")
    batch_size: int = arg(8, "clips at a time")
    num_workers: int = arg(0, "processes that load clips")
    image_folder: bool = arg(False, "--data_path holds folders of pictures, one folder per video")
    lpips_ckpt: str | None = arg(None, "judge by LPIPS too, with these weights: alexnet, vgg16, or a file")
    device: str = arg("auto", "cpu, cuda, cuda:1 ...; auto: a GPU when there is one")

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.n_films < 0:
            raise UserError(f"--n_films must not be negative, got {self.n_films}")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, load, judge; the scores are printed, stored and returned."""
    config = flags.parse(ReconstructConfig, argv, prog="tats reconstruct")
    import torch

    from tats import checkpoint

    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    vqgan = checkpoint.load_vqgan(config.vqgan_ckpt, device)
    judge = None
    if config.lpips_ckpt is not None:
        from tats.perceptual import open_perceptual

        judge = open_perceptual(config.lpips_ckpt, device)
    out = new_folder(config.out, "--out")
    result = reconstruct(vqgan, clips_of(config, vqgan.config), out, config.n_clips, config.n_films, judge)
    result["vqgan"] = {"path": config.vqgan_ckpt, "fingerprint": checkpoint.fingerprint(vqgan)}
    result["settings"] = flags.to_dict(config)
    (out / "reconstruct.json").write_text(json.dumps(result, indent=1) + "\n")
    lpips = "" if judge is None else f", LPIPS {result['lpips']:.4f}"
    print(
        f"{result['n_clips']} clips: PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}{lpips}; "
        f"{result['codes_used']} of {vqgan.n_codes} codes used, perplexity {result['perplexity']:.1f}\n"
        f"{out / 'reconstruct.json'}"
    )
    return result


def reconstruct(
    vqgan: "VQGAN",
    batches: "Iterator[Tensor]",
    out: Path | None,
    n_clips: int | None = None,
    n_films: int = 0,
    judge: "Perceptual | None" = None,
) -> dict[str, Any]:
    """Scores of what comes back from the VQGAN, in evaluation mode.  batches: video [B, C, T, H, W] in [-0.5, 0.5]

    The first `n_films` clips are written below `out`, original at the left. Returns psnr in dB and ssim (means over
    frames, with their counts), lpips with a `judge`, codes_used and perplexity over all clips together, and the l1
    distance of pixels.

    Raises:
        UserError: there are no clips.
    """
    import torch

    from tats.metrics.quality import Quality
    from tats.metrics.usage import CodeUsage
    from tats.video import to_frames

    quality, usage = Quality(), CodeUsage(vqgan.n_codes)
    if judge is not None:
        quality.network, quality.device = judge.network, judge.device
    done, distance, films = 0, 0.0, 0
    device = next(vqgan.parameters()).device
    for video in batches:
        video = video[: n_clips - done if n_clips is not None else None]
        with torch.inference_mode():
            codes = vqgan.encode(video.to(device))  # [B, t, h, w]
            rebuilt = vqgan.decode(codes).float().cpu().clamp(-0.5, 0.5)[:, :, : video.shape[2]]
        video = video[:, :, : rebuilt.shape[2]]  # frames that the downsampling leaves over have no code
        usage.add(codes)
        before, after = to_frames(video), to_frames(rebuilt)  # uint8 [B, T, H, W, C]
        quality.add(before, after)
        distance += float((video - rebuilt).abs().mean((1, 2, 3, 4)).sum())
        for pair in zip(before, after):
            if films < n_films and out is not None:
                side_by_side(out / f"{films:03}.mp4", *pair)
                films += 1
        done += len(video)
        if n_clips is not None and done >= n_clips:
            break
    if not done:
        raise UserError("there are no clips to send through the VQGAN")
    known = {"network": judge.describe()} if judge is not None else {}
    return {**quality.scores(), "l1": distance / done, **usage.scores(), **known}


def side_by_side(path: Path, before: "Tensor", after: "Tensor") -> None:
    """A film of the original at the left and what came back at the right.  uint8 [T, H, W, C] twice"""
    import torch

    from tats.media import write_video

    pair = torch.cat([before, torch.zeros_like(before[:, :, :2]), after], 2)  # [T, H, 2 W + 2, C]
    write_video(path, pair.expand(-1, -1, -1, 3).numpy(), FPS)


def clips_of(config: ReconstructConfig, model: "VQGANConfig") -> "Iterator[Tensor]":
    """The clips of the folder, at the size that the VQGAN was trained with: video [B, C, T, H, W]"""
    path = Path(config.data_path).expanduser()
    if not path.exists():
        raise UserError(f"--data_path {path}: no such file or folder")
    if path.is_dir() and (config.image_folder or any((path / split).is_dir() for split in ("train", "test"))):
        return _clips_of_dataset(config, model)
    return _clips_of_files(path, model, config.batch_size)


def _clips_of_dataset(config: ReconstructConfig, model: "VQGANConfig") -> "Iterator[Tensor]":
    from tats.data.config import DataConfig
    from tats.data.module import VideoData

    data = VideoData(
        DataConfig(
            data_path=config.data_path,
            sequence_length=model.sequence_length,
            resolution=model.resolution,
            sample_every_n_frames=model.sample_every_n_frames,
            image_channels=model.image_channels,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            image_folder=config.image_folder,
        ),
        seed=0,
    )
    loader = data.test_loader() if config.split == "test" else data.train_loader()
    return (batch["video"] for batch in loader)


def _clips_of_files(path: Path, model: "VQGANConfig", batch_size: int) -> "Iterator[Tensor]":
    """Windows side by side of every video below a folder; a shorter rest, and a shorter video, are left out."""
    import numpy as np
    import torch

    from tats.reader import read_all
    from tats.video import preprocess

    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in FILMS) if path.is_dir() else [path]
    if not files:
        raise UserError(f"--data_path {path} holds no videos ({' '.join(FILMS)})")
    waiting: list[Tensor] = []
    for file in files:
        window: list[np.ndarray] = []  # no more of a film is held
        for frame in read_all(file):
            window.append(frame)
            if len(window) < model.sequence_length:
                continue
            every = model.sample_every_n_frames
            waiting.append(preprocess(np.stack(window), model.resolution, None, every, model.image_channels))
            window = []
            if len(waiting) == batch_size:
                yield torch.stack(waiting)
                waiting = []
    if waiting:
        yield torch.stack(waiting)


if __name__ == "__main__":
    flags.run(main)
