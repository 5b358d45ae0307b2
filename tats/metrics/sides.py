"""The two sides of a score: clips of files, or clips that are made while they are judged (`tats.metrics.data_side` has
those of data sets).

A side has a number of clips, and gives any of them in batches; several processes each take every n-th. Nothing is held
but the batch at hand.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tats.arrays import ArrayError, read_npy, read_npz
from tats.data.frames import Pictures, picture_videos
from tats.flags import UserError
from tats.metrics.clip_choice import offset_of
from tats.metrics.processes import ALONE, World
from tats.metrics.protocols import Protocol
from tats.metrics.usage import CodeUsage
from tats.video import from_frames, to_frames

Batch = dict[str, Tensor]  # "frames" uint8 [b, T, H, W, C], "weight" float64 [b] where clips count differently
ARRAYS = (".npy", ".npz")
_DIGEST = 1 << 56  # fingerprints are sums below this, so that those of a hundred processes still fit an int64


class Side(Interface):
    """What a score needs of its clips."""

    pixels: str  # raw, or video files; and from which size they were resized, if they were

    def __len__(self) -> int:
        """Clips there are."""
        ...

    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """The clips of `part` that fall to this process, in order; `seed` draws what is random about them."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values: what these clips are, and where they come from."""
        ...

    def key(self) -> dict[str, Any] | None:
        """Plain values that change when the clips do, known without reading them; None where there are none."""
        ...


class MadeClips:
    """Clips that are made while they are judged: by a model that samples, or from codes.

    make(numbers, seed): frames uint8 [b, T, H, W, C] of the clips with these numbers, of which there are `count`.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[Sequence[int], int], Tensor],
        protocol: Protocol,
        about: dict[str, Any],
        batch_size: int = 16,
    ):
        self.count, self.make, self.protocol, self.about, self.batch_size = count, make, protocol, about, batch_size
        self.pixels = "raw"

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """What makes these clips."""
        return {**self.about, "clips": self.count}

    def key(self) -> None:
        """None: what is made is not kept."""
        return None

    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """See `Side`."""
        mine = list(world.share(part))
        for first in range(0, len(mine), self.batch_size):
            numbers = mine[first : first + self.batch_size]
            made = self.make(numbers, seed).cpu()
            self.pixels = _origin("raw", made[0], self.protocol)
            clips = [clip_of(each, self.protocol, number, seed) for number, each in zip(numbers, made)]
            yield {"frames": torch.stack(clips)}


class FileClips:
    """Clips that lie in files: arrays uint8 [N, T, H, W, C] (.npy, .npz), else one clip in each video file, else one in
    each folder of pictures (of a folder, or of zip files).

    path: such a file, or a folder of them, in the order of their names. limit: clips that are taken, at most.
    """

    def __init__(self, path: str | Path, protocol: Protocol, limit: int | None = None, batch_size: int = 16):
        self.path, self.protocol, self.batch_size = Path(path).expanduser(), protocol, batch_size
        arrays, films = clip_files(self.path)
        self.pixels = "raw" if arrays else "video files" if isinstance(films[0], Path) else "pictures"
        self._arrays = [read_array(file) for file in arrays]
        self._films = films
        counts = [len(array) for array in self._arrays] or [1] * len(films)
        self._ends = np.cumsum(counts)
        total = int(self._ends[-1])
        self.count = total if limit is None else min(total, limit)

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """Where the clips lie and in what form."""
        return {"path": str(self.path), "pixels": self.pixels, "clips": self.count}

    def key(self) -> dict[str, Any]:
        """The files, their sizes and times."""
        return {"files": files_print(self.path), "clips": self.count, "seeded": self.protocol.offset}

    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """See `Side`."""
        waiting: list[Tensor] = []
        for number in world.share(part):
            whole = self._whole(number)
            self.pixels = _origin(self.pixels.split(",")[0], whole, self.protocol)
            clip = clip_of(whole, self.protocol, number, seed, str(self.path))
            if waiting and (clip.shape != waiting[0].shape or len(waiting) == self.batch_size):
                yield {"frames": torch.stack(waiting)}
                waiting = []
            waiting.append(clip)
        if waiting:
            yield {"frames": torch.stack(waiting)}

    def _whole(self, number: int) -> Tensor:
        """Clip number `number` as it lies there, uint8 [T, H, W, C]."""
        file = int(np.searchsorted(self._ends, number, side="right"))
        if self._arrays:
            row = number - (int(self._ends[file - 1]) if file else 0)
            return torch.from_numpy(np.array(self._arrays[file][row]))
        from tats.media import read_frames

        film = self._films[file]
        return torch.from_numpy(read_frames(film) if isinstance(film, Path) else film.frames())


def _origin(pixels: str, frames: Tensor, protocol: Protocol) -> str:
    """Where the pixels of generated frames [T, H, W, C] come from, and their size if it is not the protocol's."""
    height, width = frames.shape[1:3]
    kept = protocol.size is None or (height, width) == tuple(protocol.size)
    return pixels if kept else f"{pixels}, resized from {height}x{width}"


def files_print(path: Path) -> str:
    """Sixteen hexadecimal digits that change when a file at or below `path` changes its name, size or time."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        about = file.stat()
        digest.update(f"{file.relative_to(path)} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def clip_files(path: Path) -> tuple[list[Path], list[Path] | list[Pictures]]:
    """Arrays and videos at or below `path`; where there are arrays, these are the clips. Videos are files, or where
    there are none, folders of pictures.

    Raises:
        UserError: there is none of them.
    """
    from tats.reader import SUFFIXES

    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give clips as .npy, .npz or video files")
    inside = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = sorted(inside) if path.is_dir() else [path]
    arrays = [file for file in files if file.suffix in ARRAYS and file.name.split("_")[0].split(".")[0] != "codes"]
    films = [
        file for file in files if file.name.lower().endswith(tuple(SUFFIXES)) and not file.name.startswith("grid_")
    ]
    if arrays or films:
        return arrays, [] if arrays else films
    pictures = picture_videos(path)
    if not pictures:
        raise UserError(
            f"{path} holds no clips: give .npy or .npz arrays, video files ({', '.join(SUFFIXES)}), or folders of "
            f"pictures, which may lie in zip files"
        )
    return [], pictures


def read_array(path: Path) -> np.ndarray:
    """uint8 frames [N, T, H, W, C]; a .npy stays on the disk until it is used."""
    try:
        arrays = read_npz(path) if zipfile.is_zipfile(path) else {"": read_npy(path)}
    except ArrayError as error:
        raise UserError(f"no array of clips in {error}") from None
    if len(arrays) != 1:
        raise UserError(f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}), one was expected")
    (array,) = arrays.values()
    if array.dtype != np.uint8 or array.ndim != 5 or array.shape[-1] not in (1, 3) or not len(array):
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}; clips are uint8 [N, T, H, W, 1 or 3]")
    return array


def clip_of(frames: Tensor, protocol: Protocol, number: int, seed: int, where: str = "the generated videos") -> Tensor:
    """The clip that a protocol takes of generated video `number`, at its size; uint8 [T, H, W, C] both.

    Raises:
        UserError: it is too short.
    """
    if protocol.frames is not None:
        span = (protocol.frames - 1) * protocol.generated_stride + 1
        if len(frames) < span:
            raise UserError(
                f"{where}: a video has {len(frames)} frames, clips are {protocol.frames} frames of a window of {span}; "
                "--sequence_length sets another length for both sides"
            )
        first = offset_of(protocol, len(frames) - span, number, seed)
        frames = frames[first : first + span : protocol.generated_stride]
    return resized(frames, protocol.size, protocol.resize, protocol.levels)


def quantised(video: Tensor, levels: str) -> Tensor:
    """float [C, T, H, W] or [B, C, T, H, W] in [-0.5, 0.5] -> uint8 frames; `levels` truncated or rounded."""
    if levels == "truncated":
        return to_frames(video)
    return ((video.float().clamp(-0.5, 0.5) + 0.5) * 255).round_().to(torch.uint8).movedim(-4, -1).contiguous()


def resized(frames: Tensor, size: tuple[int, int] | None, resize: str, levels: str) -> Tensor:
    """uint8 frames [T, H, W, C] at another size: scaled until they cover it, the middle kept.

    resize: bilinear, or antialias (bilinear, of the means of the pixels that fall together).
    """
    if size is None or tuple(frames.shape[1:3]) == tuple(size):
        return frames
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    cover = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    pictures = frames.movedim(-1, 1).float()  # [T, C, H, W]
    pictures = F.interpolate(pictures, cover, mode="bilinear", align_corners=False, antialias=resize == "antialias")
    top, left = (cover[0] - size[0]) // 2, (cover[1] - size[1]) // 2
    pictures = pictures[:, :, top : top + size[0], left : left + size[1]]
    pictures = pictures if levels == "truncated" else pictures.round()
    return pictures.clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()


class Watched:
    """The batches of a side on their way to a network, with what is counted on the way: clips, and a fingerprint
    of their pixels that depends neither on their order nor on who judged them."""

    def __init__(self) -> None:
        self.clips = 0
        self._sum = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches."""
        for batch in batches:
            for clip in batch["frames"].contiguous().numpy():
                digest = hashlib.blake2b(clip.tobytes(), digest_size=7).digest()
                self._sum = (self._sum + int.from_bytes(digest, "big")) % _DIGEST
            self.clips += len(batch["frames"])
            yield batch

    def fingerprint(self, world: World = ALONE) -> str:
        """Fourteen hexadecimal digits: equal for equal sets of clips."""
        return self.joined([int(world.sum(torch.tensor(self._sum)))])

    @staticmethod
    def joined(sums: Sequence[int]) -> str:
        """The fingerprint of several sets of clips together, from those of each as numbers."""
        return f"{sum(sums) % _DIGEST:014x}"


class Reconstructions:
    """The clips of another side as they come back from a VQGAN; counts which of its codes they use."""

    pixels = "raw"

    def __init__(self, vqgan: Any, real: Side, protocol: Protocol):
        """vqgan: anything with `encode`, `decode` and `n_codes`."""
        self.vqgan, self.real, self.protocol = vqgan, real, protocol
        self.usage = CodeUsage(vqgan.n_codes)

    def __len__(self) -> int:
        return len(self.real)

    def describe(self) -> dict[str, Any]:
        """What was reconstructed."""
        return {"form": "reconstructions", "clips": len(self)}

    def key(self) -> None:
        """None: what is made is not kept."""
        return None

    @torch.inference_mode()
    def batches(self, seed: int, part: range, world: World = ALONE) -> Iterator[Batch]:
        """See `Side`. Frames that the VQGAN's shrinking of time leaves over have no code: there must be none."""
        self.usage = CodeUsage(self.vqgan.n_codes)
        device = next(self.vqgan.parameters()).device
        for batch in self.real.batches(seed, part, world):
            codes = self.vqgan.encode(from_frames(batch["frames"]).to(device))  # [b, t, h, w]
            rebuilt = self.vqgan.decode(codes)
            if rebuilt.shape[2:] != batch["frames"].shape[1:4]:
                raise UserError(
                    f"clips of {list(batch['frames'].shape[1:4])} come back from the VQGAN as "
                    f"{list(rebuilt.shape[2:])}: take a --sequence_length and --resolution that its downsample divides"
                )
            self.usage.add(codes)
            yield {**batch, "frames": quantised(rebuilt, self.protocol.levels).cpu()}
