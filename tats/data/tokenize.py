"""A data set through the VQGAN once, so that transformers train without decoding video."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tats.data.beside import facts_of
from tats.data.captions import caption_file
from tats.data.clips import VideoFolder
from tats.data.code_index import INDEX, Index, read_index, write_index
from tats.data.code_parts import encode_shared
from tats.data.code_writer import CodeWriter
from tats.data.config import DataConfig
from tats.data.left_out import say
from tats.data.loader import Clips, Loader, Order
from tats.data.module import VideoData
from tats.data.room import check_disk
from tats.data.spectrogram import SIZE
from tats.data.variants import PLAIN, Variants, Varied
from tats.flags import UserError
from tats.reader import ReadError, read_all
from tats.video import preprocess

CUT = ("sequence_length", "sample_every_n_frames", "resolution", "image_channels")  # what a clip is


SPLITS = ("train", "test")
IN_BATCH = {"stft": "stft", "smap": "video_smap"}  # what a batch calls what lies beside its videos


@dataclass(frozen=True)
class Encoder:
    """A VQGAN and its fingerprint: it has `encode`, `n_codes` and `config`."""

    vqgan: Any
    fingerprint: str


class Windows:
    """Chosen windows of another source, each a video of one clip: `video` and `start` int64 [n]."""

    span = 1

    def __init__(self, source: Any, video: np.ndarray, start: np.ndarray):
        self.source, self.video, self.start = source, video, start
        self.starts, self.clips = np.ones(len(video), np.int64), np.ones(len(video), np.int64)

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """Window number `video`."""
        return self.source.read(int(self.video[video]), int(self.start[video]), draw)


def windows(source: Any, stride: int) -> Windows:
    """Windows that begin at frame 0, stride, 2 * stride ... of every video, and the last one that fits."""
    starts = [np.unique(np.append(np.arange(0, count, stride), count - 1)) for count in source.starts.tolist()]
    video = np.repeat(np.arange(len(starts)), [len(row) for row in starts])
    return Windows(source, video, np.concatenate(starts))


def tokenize(
    config: DataConfig,
    vqgan: Any,
    fingerprint: str,
    out: str | Path,
    stride: int | None = None,
    beside: Mapping[str, Encoder] | None = None,
    variants: Variants = PLAIN,
) -> Path:
    """Encode windows of both splits and write them as shards below `out`; returns that folder.

    `vqgan` has `encode`, `n_codes` and `config`. Clips are as long as `config` says, which may differ from what the
    VQGAN was trained on (a line says so), in the resolution and channels that it was trained with. Windows of training
    videos begin `stride` frames apart (None: side by side), those of test videos side by side. Captions that lie beside
    the videos are kept. beside: the VQGANs of sounds (`stft`) and of semantic maps (`smap`) whose codes are wanted
    beside those of the videos. variants: crops and mirror images of the training videos. A folder that holds these very
    codes is kept as it is, and a stopped run goes on.

    Raises:
        UserError: the data cannot be read, the folder holds other codes, or the disk has no room for them.
    """
    out = Path(out).expanduser()
    own, others = vqgan.config, dict(beside or {})
    config = with_captions(replace(config, resolution=own.resolution, image_channels=own.image_channels))
    cut = {name: getattr(config, name) for name in CUT}
    length = (own.sequence_length, own.sample_every_n_frames)
    if (config.sequence_length, config.sample_every_n_frames) != length:
        say(f"clips of {config.clip_frames} frames; the VQGAN was trained on clips of {length[0] // length[1]}")
    shape = _latent_shape(vqgan, config)
    stride = stride or config.span
    data = VideoData(config, seed=0)
    for split in SPLITS:
        source, facts = variants_of(data.source(split), split, variants, bool(others))
        clip = {**cut, "window_stride": stride, **facts}
        found = {key: facts_of(each.vqgan.n_codes, _latent_shape(each.vqgan, config, key), each.fingerprint)
                 for key, each in others.items()}  # fmt: skip
        index = Index(vqgan.n_codes, shape, fingerprint, clip, data.label_names, list(getattr(source, "names", [])))
        index.captions, index.beside = _captions(source), found
        if not _kept(out / split, index):
            listed = windows(source, stride if split == "train" else config.span)
            need_room(out, len(listed.video) * math.prod(shape), index)
            encode = partial(_encode, config, vqgan, listed, others)
            encode_shared(out / split, index, len(listed.video), encode)
    return out


def variants_of(source: Any, split: str, variants: Variants, beside: bool) -> tuple[Any, dict[str, Any]]:
    """The source whose videos are encoded, and what the index says of their variants: only training videos have any."""
    if split != "train" or not variants.several:
        return source, {}
    if beside:
        raise UserError(
            "--crops and --flips change the picture, and not what lies beside it: encode sounds without them"
        )
    return Varied(source, variants), variants.facts


def need_room(out: Path, codes: int, index: Index) -> None:
    """Check that the disk has room for that many codes.

    Raises:
        UserError: it has not.
    """
    check_disk(out, codes * index.dtype.itemsize, f"{codes:,} codes")


def with_captions(config: DataConfig) -> DataConfig:
    """The same, with captions where both splits have them: they cost nothing, and serve who trains from the codes."""
    if config.text_cond or config.data_path is None or config.vtokens:
        return config
    root = Path(config.data_path).expanduser()
    if root.is_file():
        files = [root.parent / f"{split}_text_description.txt" for split in SPLITS]
    else:
        files = [caption_file(config, root / split) for split in SPLITS]
    return replace(config, text_cond=not config.image_folder and all(path.is_file() for path in files))


def _captions(source: Any) -> list[list[str]]:
    """The captions of every video of a source; none without."""
    texts, rows = getattr(source, "texts", None), getattr(source, "videos", None)
    if texts is None:
        return []
    return [texts[row] for row in rows.tolist()] if isinstance(rows, np.ndarray) else list(texts)


@torch.inference_mode()
def _encode(
    config: DataConfig, vqgan: Any, listed: Windows, others: Mapping[str, Encoder], items: range, writer: CodeWriter
) -> list[str]:
    """Encode some of the windows; all of them can be read, or this ends."""
    from tqdm import tqdm

    begin = items.start + writer.done
    listed = Windows(listed.source, listed.video[begin : items.stop], listed.start[begin : items.stop])
    if not len(listed.video):
        return []
    clips = Clips(listed, seed=0, train=False)
    order = Order(len(clips), config.batch_size, 0, train=False)
    loader = Loader(clips, order, config.num_workers, config.worker_start)
    device = next(vqgan.parameters()).device
    for batch in tqdm(loader, desc=f"encoding {writer.folder}", unit=" batches"):
        places = batch["index"].numpy()
        codes = vqgan.encode(batch["video"].to(device))  # [B, t, h, w]
        more = {key: each.vqgan.encode(batch[IN_BATCH[key]].to(device)) for key, each in others.items()}
        writer.add(codes, listed.video[places], listed.start[places], batch["label"], more)
    say(f"{writer.folder}: {len(clips)} clips of codes, of {len(set(listed.video.tolist()))} videos")
    return []


def tokenize_whole(
    config: DataConfig,
    vqgan: Any,
    fingerprint: str,
    out: str | Path,
    encode: Callable[..., Iterator[torch.Tensor]],
    variants: Variants = PLAIN,
) -> Path:
    """Encode whole videos of both splits, of any length and in constant memory, and write them as shards below `out`.

    `encode(vqgan, pieces)` turns pieces of a video, float [1, C, n, H, W], into latent frames, int64 [1, h, w]. Every
    video becomes one clip of codes; videos of less than a latent frame are left out. Returns the folder; one that holds
    these very codes is kept as it is.

    Raises:
        UserError: the data cannot be read, or the folder holds other codes.
    """
    out = Path(out).expanduser()
    own, every = vqgan.config, config.sample_every_n_frames
    factor = own.downsample[0]
    config = with_captions(replace(config, resolution=own.resolution, image_channels=own.image_channels))
    config = replace(config, sequence_length=factor if config.image_folder else factor * every)  # a latent frame
    latents, height, width = own.latent_shape
    cut = {name: getattr(config, name) for name in CUT[1:]} | {"latent_frames": latents}
    data = VideoData(config, seed=0)
    for split in SPLITS:
        source, facts = variants_of(data.source(split), split, variants, False)
        clip, names = {**cut, **facts}, list(getattr(source, "names", []))
        index = Index(vqgan.n_codes, (1, height, width), fingerprint, clip, data.label_names, names)
        index.captions = _captions(source)
        if not _kept(out / split, index):
            encode_shared(out / split, index, len(source.starts), partial(_encode_whole, source, vqgan, encode))
    return out


def _encode_whole(
    source: Any, vqgan: Any, encode: Callable[..., Iterator[torch.Tensor]], items: range, writer: CodeWriter
) -> list[str]:
    """Encode some of the videos; a line on each that can't be read."""
    from tqdm import tqdm

    device = next(vqgan.parameters()).device
    begin = writer.index.video[-1] + 1 if writer.done else items.start  # what a stopped run has not got to
    lost = sorted(set(range(items.start, begin)) - set(writer.index.video))
    problems, latents = [f"video {video} could not be read in an earlier run" for video in lost], 0
    for video in tqdm(range(begin, items.stop), desc=f"encoding {writer.folder}", unit=" videos"):
        pieces = (piece[None].to(device) for piece in whole_video(source, video))
        label = int(source.labels[video]) if hasattr(source, "labels") else 0
        try:
            latents += writer.add_video((codes[0] for codes in encode(vqgan, pieces)), video, label)
        except ReadError as error:
            problems.append(str(error))
    say(f"{writer.folder}: {len(items) - len(problems)} videos, {latents} latent frames")
    return problems


def whole_video(source: Any, video: int) -> Iterator[torch.Tensor]:
    """All frames of one video of a source, as many at a time as its windows have: float [C, n, H, W].

    Raises:
        ReadError: they cannot be decoded.
    """
    config = source.config
    size, every = config.clip_frames, config.sample_every_n_frames
    if isinstance(source, VideoFolder):  # decoded once, from the first frame to the last
        frames: list[np.ndarray] = []
        for number, frame in enumerate(read_all(source.path(video))):
            if number % every == 0:
                frames.append(frame)
            if len(frames) == size:
                yield preprocess(np.stack(frames), config.resolution, image_channels=config.image_channels)
                frames = []
        if frames:
            yield preprocess(np.stack(frames), config.resolution, image_channels=config.image_channels)
        return
    draw, last = np.random.default_rng(0), int(source.starts[video] - 1) // every * every
    begin = 0
    while begin <= last:
        yield source.read(video, begin, draw)["video"]
        begin += size * every
    if rest := size - (begin - last) // every:  # frames after the last full window
        yield source.read(video, last, draw)["video"][:, -rest:]


@torch.inference_mode()
def _latent_shape(vqgan: Any, config: DataConfig, key: str = "video") -> tuple[int, int, int]:
    """Latent frames, rows and columns of one clip, of its sound (`stft`) or of its maps (`smap`).

    Raises:
        UserError: the clip is too short for this VQGAN, or is no such thing.
    """
    side = config.resolution
    sizes = {"video": (config.clip_frames, side, side), "smap": (config.clip_frames, side, side)}
    size = {**sizes, "stft": (config.span, *SIZE)}[key]
    channels = {"video": config.image_channels, "smap": config.smap_cond, "stft": 1}[key]
    if vqgan.config.image_channels != channels:
        raise UserError(f"{key} has {channels} channels, the VQGAN for it {vqgan.config.image_channels}")
    device = next(vqgan.parameters()).device
    try:
        t, h, w = vqgan.encode(torch.zeros(1, channels, *size, device=device)).shape[1:]
    except RuntimeError as error:
        raise UserError(
            f"--sequence_length {config.sequence_length} makes clips of {size[0]} frames, too short for a VQGAN that "
            f"shrinks time by {vqgan.config.downsample[0]} ({str(error).splitlines()[0]})"
        ) from None
    return t, h, w


def _kept(folder: Path, wanted: Index) -> bool:
    """Whether the folder holds these codes already. Captions that have changed meanwhile are written into its index."""
    if not (folder / INDEX).exists():
        return False
    index = read_index(folder)
    beside = [{key: facts["vqgan"] for key, facts in each.beside.items()} for each in (index, wanted)]
    if (index.vqgan, index.clip, index.videos, beside[0]) == (wanted.vqgan, wanted.clip, wanted.videos, beside[1]):
        if wanted.captions and index.captions != wanted.captions:
            index.captions = wanted.captions
            write_index(folder, index)
        say(f"{folder}: these codes are there already, {len(index.label)} clips")
        return True
    other = "another VQGAN" if index.vqgan != wanted.vqgan else "other videos or windows"
    if beside[0] != beside[1]:
        other = f"{' and '.join(['videos', *beside[0]])}, not of {' and '.join(['videos', *beside[1]])} as asked for"
    raise UserError(f"--out {folder.parent} holds codes of {other}. Remove it, or give another folder")
