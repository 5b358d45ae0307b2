"""The codebook: nearest code, moving averages, a start from data, and another chance for codes that nothing uses."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tats import kernels
from tats.vqgan.draws import Candidates, Draws, processes, together, total

DECAY = 0.99  # of the moving averages
SMOOTHING = 1e-7  # added to every count, so that no code divides by zero
COMMITMENT = 0.25
RARE = 1e-3  # added to every count when codes are priced, so that an unused one has a price
GATHERED = 65536  # latest vectors from which k-means starts, or four per code where that is more
RETIRED = 0.02  # a code chosen less often than this (moving average of counts per update) retires


@dataclass(frozen=True)
class Quantized:
    """What the codebook made of a batch.

    codes int64 [B, t, h, w], None where the codebook was left out; embeddings [B, D, t, h, w], whose gradient goes
    straight to the encoder; commitment, a scalar to be minimised; perplexity, the effective number of codes in use (in
    training, by all processes together).
    """

    codes: Tensor | None
    embeddings: Tensor
    commitment: Tensor
    perplexity: Tensor


class Codebook(nn.Module):
    """`n_codes` vectors that follow the data. All of its state is in three buffers with the released names.

    embeddings [K, D]: the codes. N [K]: moving average of how often each is chosen; all zero before the start.
    z_avg [K, D]: moving average of the sum of the vectors that chose it.
    """

    embeddings: Tensor
    N: Tensor
    z_avg: Tensor

    def __init__(self, n_codes: int, width: int, restart_thres: float = 1.0, restart: bool = True, start: str = "data"):
        super().__init__()
        self.restart_thres, self.restart, self.start = restart_thres, restart, start
        self.rate = 0.0  # > 0: in training, vectors prefer codes that are used often; see `choose`
        self.retiring = False  # codes that fell out of use become copies of the one used most
        self.register_buffer("embeddings", torch.randn(n_codes, width))
        self.register_buffer("N", torch.zeros(n_codes))
        self.register_buffer("z_avg", self.embeddings.clone())
        self._gathered: list[tuple[Tensor, int, Draws]] = []  # latest batches before the start, for k-means
        self._counts: Tensor | None = None  # of the batches held back, until `update`
        self._sums: Tensor | None = None
        self._candidates: Candidates | None = None
        self._draws = Draws()  # of the last batch collected
        self._known_started = False
        self.chosen: Tensor | None = None  # how often each code was chosen in training, until someone takes the counts

    @property
    def n_codes(self) -> int:
        """Number of codes."""
        return len(self.embeddings)

    @property
    def started(self) -> bool:
        """Whether the codes come from data: some count is not zero. True for every loaded codebook that has trained."""
        if not self._known_started:
            self._known_started = bool(self.N.any())
        return self._known_started

    def reset(self) -> None:
        """Forget the counts: the next batch in training mode starts the codes anew."""
        self.N.zero_()
        self._known_started = False
        self._counts = self._sums = self._candidates = None
        self._gathered = []

    def nearest(self, z: Tensor) -> Tensor:
        """z [B, D, t, h, w] -> codes int64 [B, t, h, w]"""
        if z.ndim != 5 or z.shape[1] != self.embeddings.shape[1]:
            raise ValueError(f"z must be [B, {self.embeddings.shape[1]}, t, h, w], got {tuple(z.shape)}")
        flat = z.detach().movedim(1, -1).flatten(0, 3)  # [B*t*h*w, D]
        return self.choose(flat).view(z.shape[0], *z.shape[2:])

    @torch.no_grad()
    def choose(self, flat: Tensor) -> Tensor:
        """The nearest code of each vector, flat [n, D] -> int64 [n]; in training with a rate, the cheapest.

        The cheapest code minimises squared distance + rate * price. The price of a code is the length of its name, -log
        of its share of all choices, in units of the batch's mean squared distance: entropy-constrained vector
        quantisation (P. Chou, T. Lookabaugh, R. Gray, 1989). Places that need no code of their own, such as an empty
        background, gather in one, which is what a transformer learns easily. Without the price, small differences of
        vectors that the decoder hardly looks at spread over many codes.
        """
        codes = kernels.nearest_code(flat, self.embeddings)
        if not self.training or self.rate == 0:
            return codes
        n = torch.tensor(float(len(flat)), device=flat.device)
        squares = (flat - self.embeddings[codes]).square().sum()
        total(n)
        total(squares)
        share = (self.N + RARE) / (self.N + RARE).sum()
        price = self.rate * squares / n * -share.log()  # [K]
        # one more coordinate, 0 for vectors and sqrt(price) for codes, adds the price to the squared distance
        return kernels.nearest_code(F.pad(flat, (0, 1)), torch.cat([self.embeddings, price.sqrt()[:, None]], 1))

    def lookup(self, codes: Tensor) -> Tensor:
        """codes int64 [B, t, h, w] -> [B, D, t, h, w]"""
        return F.embedding(codes, self.embeddings).movedim(-1, 1)

    def skip(self, z: Tensor, draws: Draws | None = None) -> Quantized:
        """The embeddings as they come, as if every vector had a code of its own.  z [B, D, t, h, w]

        In training, the latest vectors are kept until a start by k-means.
        """
        if self.training and self.start == "kmeans" and not self.started:
            self.gather(z.detach().movedim(1, -1).flatten(0, 3).float(), len(z), draws or Draws())
        return Quantized(None, z, z.new_zeros(()), z.new_zeros(()))

    def gather(self, flat: Tensor, clips: int, draws: Draws) -> None:
        """Keep a batch for the start, and of the earlier ones only as many as can be used.  flat [n, D]"""
        self._gathered.append((flat, clips, draws))
        wanted = max(GATHERED, 4 * self.n_codes) // processes()[1]
        while sum(len(each) for each, _, _ in self._gathered[1:]) >= wanted:
            self._gathered.pop(0)

    def gathered(self) -> list[dict[str, Any]]:
        """What was kept for the start, as plain values and tensors for a checkpoint: a dict per batch, with the vectors
        [n, D] of all processes one after the other. To be called in all of them."""
        return [
            {"vectors": together(flat), "clips": clips * processes()[1], "key": list(draws.key), "first": draws.first}
            for flat, clips, draws in self._gathered
        ]

    def gather_again(self, stored: list[dict[str, Any]]) -> None:
        """Take this process's share of what `gathered` gave, whatever their number was then. Clips that can't be dealt
        out evenly are left out."""
        rank, world = processes()
        self._gathered = []
        for batch in stored:
            clips = int(batch["clips"]) // world
            per_clip = len(batch["vectors"]) // int(batch["clips"])
            share = batch["vectors"][rank * clips * per_clip : (rank + 1) * clips * per_clip]
            seed, step, player = batch["key"]
            if clips:
                self._gathered.append((share.clone(), clips, Draws(seed, step, player, int(batch["first"]))))

    def forward(self, z: Tensor, draws: Draws | None = None, *, hold: bool = False) -> Quantized:
        """Replace every vector by its nearest code.  z [B, D, t, h, w]

        In training mode the codes move towards the vectors after the replacement; with `hold` only once `update` is
        called. `draws` holds the randomness of start and restart (fresh from torch's generator if None).
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
            draws = draws or Draws()
            flat = z.detach().movedim(1, -1).flatten(0, 3)  # [B*t*h*w, D]
            if self.training and not self.started:
                self.begin(flat, len(z), draws)
            codes = self.choose(flat).view(z.shape[0], *z.shape[2:])  # [B, t, h, w]
            e = self.lookup(codes)
            commitment = COMMITMENT * F.mse_loss(z, e)
            counts = torch.bincount(codes.flatten(), minlength=self.n_codes).to(flat.dtype)  # [K]
            if self.training:
                total(counts)
                self.collect(flat, codes.flatten(), counts, len(z), draws)
                if not hold:
                    self.update()
            del flat  # a copy of z: it must not add to the peak of what follows
            share = counts / counts.sum()
            perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
            return Quantized(codes, (e - z).detach() + z, commitment, perplexity)

    @torch.no_grad()
    def begin(self, flat: Tensor, clips: int, draws: Draws) -> None:
        """Start from data: random vectors of the (global) batch become the codes, or the means of its clusters.

        The clusters are those of all batches that were gathered; their counts are scaled to one batch, the size that
        the moving averages will have.
        """
        earlier = [(vectors.to(flat), count, drawn) for vectors, count, drawn in self._gathered]
        batches = [*earlier, (flat, clips, draws)]
        candidates = Candidates(self.n_codes, "start")
        for each in batches:
            candidates.add(*each)
        codes = candidates.finish(draws)  # [K, D]
        counts = torch.ones_like(self.N)
        if self.start == "kmeans":
            codes, counts = cluster(torch.cat([each for each, _, _ in batches]), codes)
            counts = counts / len(batches)
        self._gathered = []
        self.embeddings.copy_(codes)
        self.z_avg.copy_(codes * counts[:, None])
        self.N.copy_(counts)
        self._known_started = True

    @torch.no_grad()
    def collect(self, flat: Tensor, codes: Tensor, counts: Tensor, clips: int, draws: Draws) -> None:
        """Add one batch to what the next `update` will use.  flat [n, D], codes [n]; counts [K] of all processes"""
        sums = torch.zeros_like(self.z_avg).index_add_(0, codes, flat.to(self.z_avg.dtype))  # [K, D]
        if self._counts is None or self._sums is None:
            self._counts, self._sums = counts.clone(), sums
        else:
            self._counts += counts
            self._sums += sums
        if self.restart and not self.retiring:
            if self._candidates is None:
                self._candidates = Candidates(self.n_codes, "restart")
            badly = (flat - self.embeddings[codes]).square().sum(1) if self.rate > 0 else None  # [n]
            self._candidates.add(flat, clips, draws, badly)
        self._draws = draws

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages by what was collected, all processes together; then give unused codes another vector."""
        if self._counts is None or self._sums is None:
            return
        total(self._sums)
        self.chosen = self._counts if self.chosen is None else self.chosen.to(self._counts) + self._counts
        self.N.mul_(DECAY).add_(self._counts, alpha=1 - DECAY)
        self.z_avg.mul_(DECAY).add_(self._sums, alpha=1 - DECAY)
        n = self.N.sum()
        weights = (self.N + SMOOTHING) / (n + self.n_codes * SMOOTHING) * n  # [K]
        torch.div(self.z_avg, weights[:, None], out=self.embeddings)
        if self._candidates is not None:
            fresh = self._candidates.finish(self._draws)  # [K, D]
            unused = self.N.lt(self.restart_thres)
            if self.rate > 0:
                self.place(fresh, unused)
            else:
                self.embeddings.copy_(torch.where(unused[:, None], fresh, self.embeddings))
        if self.retiring:
            unused = self.N.lt(RETIRED)
            self.embeddings.copy_(torch.where(unused[:, None], self.embeddings[self.N.argmax()], self.embeddings))
        self._counts = self._sums = self._candidates = None

    def place(self, fresh: Tensor, unused: Tensor) -> None:
        """Give unused codes the vectors that are represented worst, with a count that makes them affordable.

        fresh [K, D], drawn by their squared distance; unused bool [K]. Random vectors would mostly be of what has many
        codes already, and with a count of zero nothing could pay for them.
        """
        rows = fresh[unused.cumsum(0).sub_(1).clamp_(min=0)]  # the first of them, one after the other
        count = torch.full_like(self.N, self.restart_thres)
        self.embeddings.copy_(torch.where(unused[:, None], rows, self.embeddings))
        self.z_avg.copy_(torch.where(unused[:, None], rows * self.restart_thres, self.z_avg))
        self.N.copy_(torch.where(unused, count, self.N))


def cluster(flat: Tensor, codes: Tensor, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """k-means over the vectors of all processes.  flat [n, D], codes [K, D] to begin with -> codes [K, D], counts [K]

    A cluster that nothing chooses keeps its vector and counts as one.
    """
    counts = torch.ones_like(codes[:, 0])
    for _ in range(rounds):
        nearest = kernels.nearest_code(flat, codes)
        counts = torch.bincount(nearest, minlength=len(codes)).to(codes.dtype)
        sums = torch.zeros_like(codes).index_add_(0, nearest, flat.to(codes.dtype))
        total(counts)
        total(sums)
        used = counts > 0
        codes = torch.where(used[:, None], sums / counts.clamp(min=1)[:, None], codes)
    return codes, counts.clamp(min=1)
