"""`tats evaluate`: train a feature network on a dataset's classes, and score two sets of clips with it.

tats evaluate --train_features --data_path data/shapes --features_ckpt runs/features.pt
tats evaluate runs/samples data/real --features_ckpt runs/features.pt
"""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats.data.config import DataConfig
from tats.flags import UserError, arg, parse

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tats.metrics.features import FeatureNet

ARRAYS = (".npy", ".npz")
TEST_CLIPS = 480  # clips of the test split that a new network is asked for, spread evenly over the split


@dataclass(frozen=True)
class EvaluateConfig:
    """Train a feature network, or score generated clips against real ones."""

    train_features: bool = arg(
        False, "train a feature network on the classes of --data_path and write it to --features_ckpt"
    )
    features_ckpt: str | None = arg(None, "the feature network; without it, runs/features.pt")
    generated: str | None = arg(None, "generated clips: folder of .npy, .npz or video files, or one such file")
    real: str | None = arg(None, "real clips, likewise (`tats evaluate GENERATED REAL` works as well)")
    i3d_ckpt: str | None = arg(None, "score with I3D and these weights: the published FVD and KVD")
    limit: int = arg(2048, "clips of each side that are compared, at most")
    out: str | None = arg(None, "JSON file for the result")
    feature_steps: int = arg(300, "training steps of the feature network, 32 clips each")
    feature_clips: int = arg(2000, "clips that it learns from, at most; of 16 frames each they take 100 MB")
    seed: int = arg(0, "seed of the training")
    device: str | None = arg(None, "cpu, cuda, ...; none: a GPU when there is one")
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        for name in ("limit", "feature_steps", "feature_clips"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.features_ckpt is not None and self.i3d_ckpt is not None:
            raise UserError("--features_ckpt and --i3d_ckpt are two networks: give one of them")

    @property
    def path(self) -> Path:
        """Where the feature network lies."""
        return Path(self.features_ckpt or "runs/features.pt")


def train_features(config: EvaluateConfig) -> "FeatureNet":
    """Train the feature network on the train split, judge it on the test split, and write it.

    Raises:
        UserError: the data is missing or its clips are too short.
    """
    from tqdm import tqdm

    from tats.data.module import VideoData
    from tats.metrics.features import save
    from tats.metrics.train_features import gather, train

    if config.data.vtokens:
        raise UserError("--train_features learns from pixels: leave --vtokens out and give the videos")
    data = VideoData(config.data, seed=config.seed)
    wanted = min(config.feature_clips, 32 * config.feature_steps)
    batches = -(-wanted // config.data.batch_size)
    shown = tqdm(_epochs(data, wanted), "clips for the feature network", batches, unit="batch", mininterval=0.5)
    frames, labels = gather(shown, wanted)
    shown.close()
    test = gather(_spread(data.test_loader(), TEST_CLIPS))
    with tqdm(total=config.feature_steps, desc="feature network", unit="step", mininterval=0.5) as bar:

        def progress(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        network = train(
            frames,
            labels,
            data.label_names,
            test=test,
            steps=config.feature_steps,
            seed=config.seed,
            device=device_of(config.device),
            progress=progress,
        )
    save(network, config.path)
    return network


def _epochs(data: Any, wanted: int) -> Iterator[dict[str, Any]]:
    """Batches of as many epochs as `wanted` clips need; every epoch cuts other windows, so at most four are taken."""
    loader = data.train_loader()
    for _ in range(min(4, -(-wanted // max(1, len(loader.dataset))))):
        yield from loader


def _spread(loader: Any, wanted: int) -> Iterator[dict[str, Any]]:
    """Batches of clips spread evenly over the whole split, whose files are sorted by class."""
    from tats.data.loader import Failure, collate

    total = len(loader.dataset)
    count = min(total, wanted)
    places = [k * total // count for k in range(count)]
    for start in range(0, count, 32):
        batch = collate([loader.dataset[0, place] for place in places[start : start + 32]])
        if isinstance(batch, Failure):
            raise UserError(batch.message)
        yield batch


def read_clips(path: str | Path, data: DataConfig, limit: int) -> "Iterator[np.ndarray | Tensor]":
    """Clips below `path`, batch by batch, in the order of the file names, `limit` in all.

    Arrays (.npy, .npz: uint8 frames [N, T, H, W, C]) are taken as they are; where a folder holds none, its video files
    are: the first `--sequence_length` frames of each, at `--resolution`.

    Raises:
        UserError: nothing is there, or an array holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give clips as .npy, .npz or video files")
    inside = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = sorted(inside) if path.is_dir() else [path]
    arrays = [file for file in files if file.suffix in ARRAYS and file.name.split("_")[0].split(".")[0] != "codes"]
    left = limit
    for batch in map(_read_array, arrays) if arrays else _read_videos(files, path, data):
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def _read_array(path: Path) -> "np.ndarray":
    """uint8 frames [N, T, H, W, C]; a .npy stays on the disk until it is used."""
    import numpy as np

    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        array = loaded
    else:
        with loaded:
            if len(loaded.files) != 1:
                raise UserError(
                    f"{path} holds {len(loaded.files)} arrays ({', '.join(loaded.files)}), one was expected"
                )
            array = loaded[loaded.files[0]]
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] not in (1, 3):
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}; clips are uint8 [N, T, H, W, 1 or 3]")
    return array


def _read_videos(files: Sequence[Path], path: Path, data: DataConfig) -> "Iterator[Tensor]":
    """The first frames of video files, each as a batch of one."""
    from tats.media import read_frames
    from tats.reader import SUFFIXES
    from tats.video import preprocess

    videos = [file for file in files if file.name.lower().endswith(tuple(SUFFIXES))]
    if not videos:
        raise UserError(f"{path} holds no clips: give .npy or .npz arrays, or video files ({', '.join(SUFFIXES)})")
    for file in videos:
        frames = read_frames(file)
        if len(frames) < data.sequence_length:
            raise UserError(f"{file} has {len(frames)} frames, --sequence_length asks for {data.sequence_length}")
        yield preprocess(frames, data.resolution, data.sequence_length, data.sample_every_n_frames)[None]


def score(config: EvaluateConfig) -> dict[str, Any]:
    """Compare `--generated` with `--real`: what `tats.metrics.features.compute` gives, and both paths."""
    from tats.metrics.features import compute, open_network

    if config.generated is None or config.real is None:
        raise UserError("give two sets of clips, tats evaluate GENERATED REAL, or train a network: --train_features")
    network = open_network(None if config.i3d_ckpt else config.path, config.i3d_ckpt, device_of(config.device))
    generated = read_clips(config.generated, config.data, config.limit)
    result = compute(generated, read_clips(config.real, config.data, config.limit), network)
    return {**result, "generated": config.generated, "real": config.real}


def device_of(name: str | None) -> str:
    """The device asked for, or a GPU if there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def write_json(result: dict[str, Any], path: str | Path) -> None:
    """Write a result, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    """`tats evaluate --train_features ...` or `tats evaluate GENERATED REAL ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    paths = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if len(paths) > 2:
        raise UserError(f"tats evaluate compares two sets of clips, got {len(paths)}: {', '.join(paths)}")
    named = [word for pair in zip(("--generated", "--real"), paths) for word in pair]
    words = named + words[len(paths) :]
    config = parse(EvaluateConfig, words, "tats evaluate")
    if config.train_features:
        described = train_features(config).describe()
        line = f"feature network {described['fingerprint']} at {config.path}: "
        if described["accuracy"] is not None:
            line += f"{100 * described['accuracy']:.1f} % of test clips by class, "
        print(f"{line}{100 * described['play_accuracy']:.1f} % by way of playing")
        result = described
    if config.generated is not None or not config.train_features:
        result = score(config)
        print(result["line"])
        for note in result["notes"]:
            print(f"note: {note}")
    if config.out is not None:
        write_json(result, config.out)
