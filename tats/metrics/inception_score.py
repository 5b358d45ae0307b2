"""The inception score: how sure a classifier is of each clip, and how varied its answers are over all of them.

Salimans et al., "Improved Techniques for Training GANs", 2016: exp of the mean divergence between the answer for one
clip and the mean answer. The clips are cut into parts (10 as published); the score is the mean over parts, beside its
population deviation. Only sums are kept: any number of clips fits, and the sums of several processes add up.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tats.flags import UserError
from tats.metrics.features import parts
from tats.metrics.networks import Classifier
from tats.metrics.processes import ALONE, World


class InceptionScore:
    """Sums over the answers for `total` clips (or frames), in `splits` parts.

    shuffle: seed of numpy's legacy shuffle that deals clips to parts, as StyleGAN-V does with 42; None: parts are runs
    of clips, in their order.

    Raises:
        UserError: fewer clips than parts.
    """

    def __init__(self, total: int, splits: int = 10, shuffle: int | None = None):
        if not 1 <= splits <= total:
            raise UserError(f"an inception score in {splits} parts needs at least as many clips, got {total}")
        self.total, self.splits = total, splits
        places = np.arange(total)
        if shuffle is not None:
            np.random.RandomState(shuffle).shuffle(places)
        part_of_rank = np.searchsorted([k * total // splits for k in range(1, splits)], np.arange(total), side="right")
        self._part = np.empty(total, np.int64)  # place of a clip -> its part
        self._part[places] = part_of_rank
        self._seen = np.zeros(total, bool)
        self._counts = torch.zeros(splits, dtype=torch.float64)
        self._negentropy = torch.zeros(splits, dtype=torch.float64)  # sums of p log p
        self._answers: Tensor | None = None  # [splits, classes], sums of p

    def add(self, probabilities: Any, places: Any) -> None:
        """Take in answers [n, classes] of the clips at `places` [n] among all; every place once.

        Raises:
            ValueError: a place twice or beyond the total, or rows that do not sum to 1.
        """
        p = torch.as_tensor(probabilities).detach().to("cpu", torch.float64)
        at = np.asarray(places, np.int64)
        if (
            p.ndim != 2
            or len(p) != len(at)
            or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4)
        ):
            raise ValueError(f"answers must be rows [n, classes] that sum to 1, one per place, got {list(p.shape)}")
        if at.min() < 0 or at.max() >= self.total or self._seen[at].any() or len(np.unique(at)) < len(at):
            raise ValueError(f"places must lie in [0, {self.total}), each given once")
        self._seen[at] = True
        if self._answers is None:
            self._answers = torch.zeros(self.splits, p.shape[1], dtype=torch.float64)
        part = torch.from_numpy(self._part[at])
        self._counts.index_add_(0, part, torch.ones(len(p), dtype=torch.float64))
        self._negentropy.index_add_(0, part, torch.special.xlogy(p, p).sum(1))
        self._answers.index_add_(0, part, p)

    def scores(self, world: World = ALONE) -> dict[str, Any]:
        """Plain values: "IS" (mean over parts), "IS_deviation", "splits", "n".

        Raises:
            UserError: some clips have no answer.
        """
        counts = world.sum(self._counts)
        missing = self.total - int(counts.sum())
        if missing:
            raise UserError(f"an inception score of {self.total} clips lacks the answers for {missing} of them")
        classes = int(world.gather(torch.tensor([0 if self._answers is None else self._answers.shape[1]])).max())
        mine = self._answers if self._answers is not None else torch.zeros(self.splits, classes, dtype=torch.float64)
        mean = world.sum(mine) / counts[:, None]  # [splits, classes]
        divergence = world.sum(self._negentropy) / counts - torch.special.xlogy(mean, mean).sum(1)
        values = divergence.exp()
        return {
            "IS": float(values.mean()),
            "IS_deviation": float(values.std(correction=0)),
            "splits": self.splits,
            "n": self.total,
        }


@torch.inference_mode()
def inception_score(
    batches: Any,
    network: Classifier,
    total: int,
    *,
    splits: int = 10,
    shuffle: int | None = None,
    world: World = ALONE,
) -> dict[str, Any]:
    """The inception score of `total` clips (for a network of pictures: of all their frames), given as
    `tats.metrics.features.clips` takes them; of several processes each gives its own share.

    Returns:
        What `InceptionScore.scores` gives, the network, and one line to print. Clips beyond `total` are not looked at.

    Raises:
        UserError: fewer clips than `total`, or fewer than parts.
    """
    score: InceptionScore | None = None
    failure, done, inside = None, 0, 1
    try:
        for frames, _ in parts(batches):
            places = torch.tensor([world.index(done + k) for k in range(len(frames))])
            done += len(frames)
            frames, places = frames[places < total], places[places < total]
            if not len(frames):
                break
            if score is None:
                inside = frames.shape[1] if network.unit == "frame" else 1
                score = InceptionScore(total * inside, splits, shuffle)
            at = (places[:, None] * inside + torch.arange(inside)).flatten()
            score.add(network.probabilities(frames), at.numpy())
    except UserError as error:
        failure = str(error)
    world.agree(failure)
    inside = int(world.gather(torch.tensor([inside])).max())
    found = (score or InceptionScore(total * inside, splits, shuffle)).scores(world)
    described = network.describe()
    unit = f"{network.unit}s"
    line = f"IS {found['IS']:.4g} ± {found['IS_deviation']:.2g} ({found['n']} {unit} in {splits} parts; "
    return {**found, "unit": network.unit, "network": described,
            "line": f"{line}{described['name']} {described['fingerprint']})"}  # fmt: skip
