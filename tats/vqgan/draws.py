"""Random choices of training that depend on (seed, step, place in the batch), whatever the workers and processes."""

import hashlib

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def total(x: Tensor) -> None:
    """Add `x` up over all processes, in place."""
    if processes()[1] > 1:
        dist.all_reduce(x)


def together(x: Tensor) -> Tensor:
    """What all processes hold, one after the other.  x [n, ...], alike in all of them -> [processes * n, ...]"""
    world = processes()[1]
    if world == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class Draws:
    """The random numbers of one player in one optimizer step.

    With a seed they depend on (seed, step, player) and the place in the whole batch of that step, so that a batch
    comes out the same in one process or in several, at once or accumulated; `first` is the number of clips (of all
    processes) that the step has seen before. Without a seed they come from torch's own generator.
    """

    def __init__(self, seed: int | None = None, step: int = 0, player: int = 0, first: int = 0):
        self.key, self.first = (seed, step, player), first

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of its own for every purpose."""
        if self.key[0] is None:
            return torch.default_generator
        digest = hashlib.blake2b(repr((*self.key, purpose)).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

    def keys(self, purpose: str, first: int, count: int) -> Tensor:
        """One sorting key for each of the rows `first` to `first + count`.  -> float64 [count] on the CPU"""
        skipped = first if self.key[0] is not None else 0
        return torch.rand(skipped + count, dtype=torch.double, generator=self.generator(purpose))[skipped:]

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Normal noise for repeated vectors.  -> float32 of the given shape, on the CPU"""
        return torch.randn(shape, generator=self.generator("noise"))

    def frames(self, clips: int, length: int) -> Tensor:
        """One frame of each of this process's clips.  -> int64 [clips] in [0, length), on the CPU"""
        rank, world = processes()
        skipped = self.first if self.key[0] is not None else 0
        drawn = torch.randint(length, (skipped + clips * world,), generator=self.generator("frames"))
        return drawn[skipped + rank * clips :][:clips]


class Candidates:
    """A random sample of the vectors of all batches of a step: the `count` rows with the smallest keys, in order."""

    def __init__(self, count: int, purpose: str):
        self.count, self.purpose = count, purpose
        self.clips = 0  # of all processes, so far
        self.keys = torch.empty(0, dtype=torch.double)
        self.ids = torch.empty(0, dtype=torch.long)
        self.rows: Tensor | None = None  # [kept, D], in the order of `keys`

    def add(self, flat: Tensor, clips: int, draws: Draws, weights: Tensor | None = None) -> None:
        """Take one batch into account.  flat [n, D]: the vectors of this process's `clips` clips, clip after clip.

        weights [n], not negative: how likely each is drawn; None: all alike.

        Every process must bring equally many. The clips of process 0 come first, then those of process 1, and so on:
        the order in which `tats.data.loader.Order` deals a batch out.
        """
        rank, world = processes()
        per_clip = len(flat) // clips
        first, new = self.clips * per_clip, clips * world * per_clip
        drawn = draws.keys(self.purpose, first, new)  # uniform
        if weights is not None:  # times of exponential clocks: the first to ring is drawn with its share of the weights
            everywhere = torch.zeros(world, clips, per_clip, dtype=torch.double, device=flat.device)
            everywhere[rank] = weights.double().view(clips, per_clip)
            total(everywhere)
            drawn = -torch.log1p(-drawn) / everywhere.flatten().cpu().clamp(min=1e-30)
        keys = torch.cat([self.keys, drawn])
        ids = torch.cat([self.ids, torch.arange(first, first + new)])
        keep = keys.topk(min(self.count, len(keys)), largest=False).indices
        kept = len(self.keys)
        clip, place = (ids[keep] // per_clip) - self.clips, ids[keep] % per_clip
        rows = flat.new_zeros(len(keep), flat.shape[1])
        fresh = (keep >= kept) & (clip // clips == rank)
        rows[fresh.to(flat.device)] = flat[((clip % clips) * per_clip + place)[fresh].to(flat.device)]
        total(rows)
        if self.rows is not None:
            old = keep < kept
            rows[old.to(flat.device)] = self.rows[keep[old].to(flat.device)]
        self.keys, self.ids, self.rows = keys[keep], ids[keep], rows
        self.clips += clips * world

    def finish(self, draws: Draws) -> Tensor:
        """The sample.  -> [count, D]; fewer vectors are repeated with a little noise, so that no two are the same"""
        if self.rows is None:
            raise ValueError("candidates need at least one batch")
        rows = self.rows
        if len(rows) == self.count:
            return rows
        rows = rows[self.ids.argsort().to(rows.device)]
        repeats, width = -(-self.count // len(rows)), rows.shape[1]
        rows = rows.repeat(repeats, 1)
        rows = rows + draws.noise(tuple(rows.shape)).to(rows) * (0.01 / width**0.5)
        order = draws.keys(f"{self.purpose}, repeated", 0, len(rows)).argsort()
        return rows[order[: self.count].to(rows.device)]
