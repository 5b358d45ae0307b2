"""Which clip comes when: from (seed, epoch, index) alone, whatever the number of workers and processes.

A source (`VideoFolder`, `FrameFolder`, `VideoFile`, ...) knows its videos and reads windows of them. `Clips` makes a
data set out of it, `Order` lists the clips of every batch, `Loader` brings the batches.
"""

import atexit
import math
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tats.data.left_out import say
from tats.data.pool import processors
from tats.flags import UserError
from tats.video import with_video

MOST_DEATHS = 3  # times that workers may be killed while the same batch is waited for
_KILLED = "DataLoader worker (pid"  # so torch says that a worker is gone; exceptions out of workers begin otherwise
Place = tuple[int, int]  # (pass through the data, clip)


class Source(Protocol):
    """What a data set of videos offers. A window is `span` frames long; video v has `starts[v]` of them and gives
    `clips[v]` clips per epoch, at least one."""

    span: int
    starts: np.ndarray  # int64 [videos]
    clips: np.ndarray  # int64 [videos]

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        """The clip at window `start`; `draw` gives whatever else is random."""
        ...


class Clips(Dataset):
    """The clips of a source, by (pass, index).

    Training draws the window from (seed, pass, index). Testing takes fixed windows, the same for every seed: those that
    stand side by side, from the first frame on. raw: where the source can, clips hold `frames` in place of `video`.
    """

    def __init__(self, source: Source, seed: int, train: bool, raw: bool = False):
        self.source, self.seed, self.train = source, seed, train
        self._how = {"raw": True} if raw and getattr(source, "ready", False) else {}
        self.video_of = np.repeat(np.arange(len(source.clips)), source.clips)  # [clips]
        first = np.cumsum(source.clips) - source.clips
        self.number_of = np.arange(len(self.video_of)) - first[self.video_of]  # [clips], which one of its video

    def __len__(self) -> int:
        return len(self.video_of)

    def name(self, index: int) -> str:
        """What a clip is called: the name of its video, or its number where videos have none."""
        names = getattr(self.source, "names", None)
        return str(index) if not names else str(names[int(self.video_of[index])])

    def window(self, place: Place) -> tuple[int, int]:
        """Video and first frame of a clip."""
        return self._window(place, self._draw(place))

    def __getitem__(self, place: Place) -> "dict[str, Any] | Failure":
        return self._read(place)

    def _read(self, place: Place, **more: Any) -> "dict[str, Any] | Failure":
        draw = self._draw(place)
        video, start = self._window(place, draw)
        try:
            return {**self.source.read(video, start, draw, **self._how, **more), "index": place[1]}
        except UserError as error:  # raised in the main process: a worker would wrap it in a trace
            return Failure(str(error))

    def __getitems__(self, places: list[Place]) -> "list[dict[str, Any] | Failure] | dict[str, Any]":
        """A whole batch: at once where the source can (`read_many`), else clip by clip."""
        read_many = getattr(self.source, "read_many", None)
        if read_many is None and self._how and torch.utils.data.get_worker_info() is None:
            return self._read_side_by_side(places)
        if read_many is None:
            return [self[place] for place in places]
        index = np.array([index for _, index in places], np.int64)
        if getattr(self.source, "whole", False):  # clips of one window each: nothing is drawn
            batch = read_many(index)
        else:
            draws = [self._draw(place) for place in places]
            windows = np.array([self._window(place, draw) for place, draw in zip(places, draws)])
            batch = read_many(windows[:, 0], windows[:, 1], draws)
        return {**batch, "index": torch.from_numpy(index)}

    def _read_side_by_side(self, places: list[Place]) -> "list[dict[str, Any] | Failure] | dict[str, Any]":
        """Clips whose frames are read to where they lie in the batch. What a worker reads must lie in shared memory."""
        room = getattr(self.source, "room", lambda clips: None)(len(places))
        if room is None:
            return [self[place] for place in places]
        clips: list[dict[str, Any]] = []
        for place, row in zip(places, room):
            clip = self._read(place, room=row)
            if isinstance(clip, Failure):
                return [clip]
            clips.append({key: each for key, each in clip.items() if key != "frames"})
        others = collate(list(clips))
        return {"frames": torch.from_numpy(room), **others} if isinstance(others, dict) else [others]

    def _window(self, place: Place, draw: np.random.Generator) -> tuple[int, int]:
        video = int(self.video_of[place[1]])
        if self.train:
            return video, int(draw.integers(self.source.starts[video]))
        return video, int(self.number_of[place[1]]) * self.source.span

    def _draw(self, place: Place) -> np.random.Generator:
        return np.random.default_rng([self.seed, place[0] if self.train else 0, place[1]])


@dataclass(frozen=True)
class Failure:
    """A clip that could not be read, on its way to the main process."""

    message: str


class Order:
    """The batches of one epoch on one process: lists of places.

    Training runs through permutations of all clips, one after the other, each drawn from (seed, pass). A global batch
    is the next `world * batch_size` of them, dealt out in equal parts; an epoch is as many batches as see every clip
    once, so its last batch may begin the next pass. Batches are always full. Testing goes through the clips once, in
    order, and the last batch may be short; with several processes the first clips fill up the last round. Process 0 has
    the first part of a global batch, process 1 the next, and so on.
    """

    def __init__(
        self, n_clips: int, batch_size: int, seed: int, train: bool, rank: int | None = None, world: int | None = None
    ):
        """`rank` of `world` processes; None: as torch.distributed says whenever it is asked, since a training run may
        start its processes after the loaders are made."""
        self.n_clips, self.batch_size, self.seed, self.train = n_clips, batch_size, seed, train
        self._rank, self._world = rank, world
        self.epoch, self.start_batch = 0, 0

    @property
    def rank(self) -> int:
        """Number of this process."""
        if self._rank is not None:
            return self._rank
        return torch.distributed.get_rank() if _distributed() else 0

    @property
    def world(self) -> int:
        """Number of processes that share every batch."""
        if self._world is not None:
            return self._world
        return torch.distributed.get_world_size() if _distributed() else 1

    def __len__(self) -> int:
        return math.ceil(self.n_clips / (self.batch_size * self.world))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; nothing changes when it is the present one."""
        if epoch != self.epoch:
            self.epoch, self.start_batch = epoch, 0

    def batch(self, number: int) -> list[Place]:
        """Batch `number` of the present epoch."""
        first = ((self.epoch if self.train else 0) * len(self) + number) * self.world * self.batch_size
        first += self.rank * self.batch_size
        places = range(first, first + self.batch_size)
        if self.train:
            return [self._place(at) for at in places]
        return [(0, at % self.n_clips) for at in places if at < self.n_clips or self.world > 1]

    def __iter__(self) -> Iterator[list[Place]]:
        for number in range(self.start_batch, len(self)):
            yield self.batch(number)

    def _place(self, at: int) -> Place:
        turn, within = divmod(at, self.n_clips)
        return turn, int(self._permutation(turn)[within])

    def _permutation(self, turn: int) -> np.ndarray:
        if getattr(self, "_shuffled", (None,))[0] != turn:
            self._shuffled = (turn, np.random.default_rng([self.seed, turn]).permutation(self.n_clips))
        return self._shuffled[1]


class Loader:
    """Batches of clips, epoch after epoch. An iteration is one epoch; the next one goes on with the next epoch.

    Its state (`state_dict`, `load_state_dict`) is the number of the epoch and of the next batch; `set_epoch` and the
    attributes `sampler` and `dataset` are there for Lightning, which must not put a sampler of its own in their place.
    """

    def __init__(
        self, clips: Clips, order: Order, workers: int = 0, worker_start: str | None = None, raw: bool = False
    ):
        """raw: batches may hold `frames` uint8 in place of `video`, for whoever calls `tats.video.with_video` on the
        device. More workers than this process has cores are not started."""
        self.dataset, self.sampler, self.batch_size, self.raw = clips, order, order.batch_size, raw
        self.batch_sampler = None
        workers = min(workers, processors(), len(order) * order.batch_size)
        if workers:
            atexit.register(end_workers)
        self._make = lambda: DataLoader(
            clips,
            batch_sampler=order,  # of places, not of integers
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=worker_start if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals,
        )
        self._batches = self._make()

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`, unless it is the present one."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = self.sampler
        epoch, first = order.epoch, order.start_batch
        for number, batch in enumerate(self._surviving(), first + 1):
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            if order.train and order.epoch == epoch:
                order.start_batch = number
            yield batch if self.raw else with_video(batch)
        if order.train and order.epoch == epoch:
            order.set_epoch(epoch + 1)

    def _surviving(self) -> Iterator[Any]:
        """The batches of the epoch. When a worker is killed, all are started anew where the next batch stands; which
        clips a batch holds does not depend on workers.

        Raises:
            UserError: workers were killed again and again without bringing a batch.
        """
        done, deaths = self.sampler.start_batch, 0
        batches = self._started(done)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not was_killed(error):
                    raise
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise UserError(
                        f"the processes that load clips were killed {deaths} times before batch {done}, last: {error}. "
                        "Is there too little memory, or too little shared memory (/dev/shm)? --num_workers 0 loads in "
                        "the main process"
                    ) from None
                say(f"batch {done}: {error}. The processes that load clips are started again")
                self._batches = self._make()
                batches = self._started(done)
                continue
            done, deaths = done + 1, 0
            yield batch

    def _started(self, first: int) -> Iterator[Any]:
        """The batches of the present epoch from `first` on, as workers bring them."""
        order = self.sampler
        if not self._batches.num_workers:  # nobody to be killed: `first` is where the epoch stands
            return iter(self._batches)
        before, order.start_batch = order.start_batch, first
        batches = iter(self._batches)  # workers are given their first batches now
        order.start_batch = before
        if threading.current_thread() is threading.main_thread():
            # torch's handler would raise in the midst of a training step; who waits for a batch sees the death anyway
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.sampler.epoch, "batch": self.sampler.start_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.sampler.epoch, self.sampler.start_batch = state["epoch"], state["batch"]


def was_killed(error: Exception) -> bool:
    """Whether this is how the death of a worker shows: torch saw it, or what it had begun to hand over broke off. An
    exception out of a living worker says so."""
    text = str(error)
    if "in DataLoader worker process" in text:
        return False
    if isinstance(error, RuntimeError):
        return text.startswith((_KILLED, "received 0 items of ancdata"))
    return isinstance(error, ConnectionError | FileNotFoundError | EOFError)


def leave_signals(worker: int) -> None:
    """Start of a worker: signals to the whole group are for the main process, which finishes its batch first and then
    ends the workers (`end_workers`, should they still be there)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """At the end of the program, before multiprocessing sends its SIGTERM and waits: workers have nothing to save."""
    children = [child for child in multiprocessing.active_children() if child.daemon]
    if children:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call their end a failure
    for child in children:
        child.kill()


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def stacked(values: list[torch.Tensor]) -> torch.Tensor:
    """Tensors of one shape as one, [B, ...]. In a worker it is made in shared memory, where it must go. Elsewhere numpy
    gives the room: it asks for large pages, and filling fresh memory is several times faster with them."""
    if torch.utils.data.get_worker_info() is not None:
        shared: torch.Tensor = torch.utils.data.default_collate(values)
        return shared
    first = values[0]
    room = torch.from_numpy(np.empty(len(values) * first.nbytes, np.uint8))
    return torch.stack(values, out=room.view(first.dtype).view(len(values), *first.shape))


def collate(clips: "list[dict[str, Any] | Failure] | dict[str, Any]") -> "dict[str, Any] | Failure":
    """Clips -> batch: tensors are stacked, integers become int64 [B], texts a list. One failure fails the batch. A
    batch that was read at once passes."""
    if isinstance(clips, dict):
        return clips
    read: list[dict[str, Any]] = []
    for clip in clips:
        if isinstance(clip, Failure):
            return clip
        read.append(clip)
    batch: dict[str, Any] = {}
    for key, value in read[0].items():
        values = [clip[key] for clip in read]
        if isinstance(value, torch.Tensor):
            batch[key] = stacked(values)
        else:
            batch[key] = torch.tensor(values) if isinstance(value, int) else values
    return batch
