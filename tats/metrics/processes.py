"""Several processes that judge one set of clips together: each takes its share, and what they found is merged.

    world = current()                                   # alone, or this process among those of torch.distributed
    mine = world.share(videos)                          # every video is judged by exactly one process
    total = world.sum(torch.tensor(float(len(found))))

Nothing is padded and nothing is judged twice, so that results do not depend on the number of processes.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tats.flags import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all that work together; one alone by default. All of them must call the same methods in the
    same order."""

    rank: int = 0
    size: int = 1

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Every `size`-th item, from the `rank`-th on: together the processes see each item once."""
        return itertools.islice(items, self.rank, None, self.size)

    def index(self, place: int) -> int:
        """The place among all items of this process's item number `place`."""
        return self.rank + self.size * place

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of tensors of one shape; on the CPU."""
        total = tensor.detach().to(_device(self), copy=True)
        if self.size > 1:
            with _all_alive(self):
                dist.all_reduce(total)
        return total.cpu()

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows [n, ...] of all processes, in the order of their ranks; they may have different n. On the CPU."""
        if self.size == 1:
            return tensor.detach().cpu()
        sent = tensor.detach().to(_device(self)).contiguous()
        counts = [torch.zeros(1, dtype=torch.int64, device=sent.device) for _ in range(self.size)]
        with _all_alive(self):
            dist.all_gather(counts, torch.tensor([len(sent)], device=sent.device))
        longest = max(int(count) for count in counts)
        padded = torch.cat([sent, sent.new_zeros(longest - len(sent), *sent.shape[1:])])
        received = [torch.empty_like(padded) for _ in range(self.size)]
        with _all_alive(self):
            dist.all_gather(received, padded)
        return torch.cat([rows[: int(count)].cpu() for rows, count in zip(received, counts)])

    def agree(self, failure: str | None) -> None:
        """Raise in every process what went wrong in any; without it the others would wait for ever.

        Raises:
            UserError: some process has met a failure; the first one is told.
        """
        if self.size > 1:
            encoded = torch.frombuffer(bytearray((failure or "").encode() + b"\0"), dtype=torch.uint8)
            lines = bytes(self.gather(encoded).tolist()).split(b"\0")[: self.size]
            failure = next((line.decode() for line in lines if line), None)
        if failure is not None:
            raise UserError(failure)


ALONE = World()


def current() -> World:
    """The world that `torch.distributed` was started with, or this process alone."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def _all_alive(world: World) -> Iterator[None]:
    """Raise UserError where processes wait for one that has ended."""
    try:
        yield
    except RuntimeError as error:
        if "onnection" not in str(error) and "imed out" not in str(error):  # gloo's words, with any capitals
            raise
        raise UserError(
            f"one of the {world.size} processes has ended, so that nothing can be put together; its output says why. "
            "The same command begins again, and takes stored statistics of real clips from where they are"
        ) from error


def _device(world: World) -> torch.device:
    """Where tensors must lie to be sent."""
    return torch.device("cuda" if world.size > 1 and dist.get_backend() == "nccl" else "cpu")
