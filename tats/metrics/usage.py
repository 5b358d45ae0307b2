"""How much of a codebook is used, and how well a model foresees codes."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tats.metrics.processes import ALONE, World


class CodeUsage:
    """How often each code of a codebook of `n_codes` occurs; codes arrive in batches."""

    def __init__(self, n_codes: int):
        self.counts = torch.zeros(n_codes, dtype=torch.int64)

    def add(self, codes: Tensor) -> None:
        """Take in codes int64 of any shape, each in [0, n_codes)."""
        self.counts += torch.bincount(codes.flatten().cpu(), minlength=len(self.counts))

    def scores(self, world: World = ALONE) -> dict[str, Any]:
        """Plain values: codes_used, n_codes, the share that is used, and the perplexity: how many codes, used equally
        often, would be as hard to foresee (exp of the entropy).

        Raises:
            ValueError: no codes were added.
        """
        counts = world.sum(self.counts).double()
        if not counts.sum():
            raise ValueError("no codes were counted")
        share = counts / counts.sum()
        used = int((counts > 0).sum())
        return {
            "codes_used": used,
            "n_codes": len(counts),
            "codes_used_share": used / len(counts),
            "perplexity": float(torch.exp(-torch.special.xlogy(share, share).sum())),
        }


@dataclass
class Likelihood:
    """How well a model of codes foresees them: the negative log-likelihood of codes that arrive in batches.

    `dimensions`: numbers in one video, channels * frames * height * width. Bits per dimension are those of the codes
    spread over the pixels. A VQGAN loses detail, so they are no bound on the likelihood of the pixels themselves;
    models over the codes of one and the same VQGAN can be compared by them.
    """

    dimensions: int
    videos: int = 0
    codes: int = 0
    nats: float = 0.0

    def add(self, logits: Tensor, codes: Tensor) -> None:
        """Take in logits [B, n, V] for the codes int64 [B, n] of B whole videos."""
        if logits.shape[:2] != codes.shape or logits.ndim != 3:
            raise ValueError(f"logits [B, n, V] and codes [B, n] must agree: {list(logits.shape)}, {list(codes.shape)}")
        self.nats += float(F.cross_entropy(logits.detach().double().flatten(0, 1), codes.flatten(), reduction="sum"))
        self.codes += codes.numel()
        self.videos += len(codes)

    def include(self, other: "Likelihood") -> None:
        """Take in what another one has judged."""
        self.nats, self.codes, self.videos = (
            self.nats + other.nats,
            self.codes + other.codes,
            self.videos + other.videos,
        )

    def scores(self, world: World = ALONE) -> dict[str, Any]:
        """Plain values: bits_per_dimension, bits_per_code, perplexity of a code, and counts.

        Raises:
            ValueError: no codes were added.
        """
        nats, codes, videos = world.sum(
            torch.tensor([self.nats, self.codes, self.videos], dtype=torch.float64)
        ).tolist()
        if not codes:
            raise ValueError("no codes were judged")
        bits = nats / math.log(2)
        return {
            "bits_per_dimension": bits / (videos * self.dimensions),
            "bits_per_code": bits / codes,
            "code_perplexity": math.exp(nats / codes),
            "n_videos": int(videos),
            "n_codes_judged": int(codes),
        }
