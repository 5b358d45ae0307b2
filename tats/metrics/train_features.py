"""Training of the small feature network on a dataset's own classes, in about half a minute on one CPU core.

    frames, labels = gather(data.train_loader())
    network = train(frames, labels, data.label_names, test=gather(data.test_loader()))
    features.save(network, "features.pt")

Two tasks share the features. The classes of the data teach looks. The second task teaches motion and needs no labels:
each clip is played as it is, slowly, frozen, shuffled, or cut to another clip midway, and the network tells which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tats.flags import UserError
from tats.metrics.features import PLAYS, FeatureConfig, FeatureNet, clips, shrink_frames

CUT = PLAYS.index("cut")
_UNCHANGED = 0.5  # share of a training batch that is played as it is: these clips are what the network will judge


def gather(batches: Any, limit: int = 4000, size: int = 32) -> tuple[Tensor, Tensor | None]:
    """The first `limit` clips of some batches, small: uint8 [N, T, size, size, 3] and labels int64 [N].

    `batches` is an iterable of dicts with "video" (or "frames") and, where the data has classes, "label". 4000 clips of
    16 frames take 200 MB.
    """
    frames: list[Tensor] = []
    labels: list[Tensor] = []
    count = 0
    for batch in batches:
        part = torch.cat([shrink_frames(piece, size) for piece in clips(batch)])
        frames.append(part)
        if isinstance(batch, Mapping) and "label" in batch:
            labels.append(torch.as_tensor(batch["label"]).long().cpu())
        count += len(part)
        if count >= limit:
            break
    if not frames:
        raise UserError("there are no clips to train a feature network on")
    joined = torch.cat(labels)[:limit] if len(labels) == len(frames) else None
    return torch.cat(frames)[:limit], joined


def train(
    frames: Tensor,
    labels: Tensor | None,
    label_names: Sequence[str] = (),
    *,
    test: tuple[Tensor, Tensor | None] | None = None,
    steps: int = 300,
    batch_size: int = 32,
    lr: float = 3e-3,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, float], None] | None = None,
) -> FeatureNet:
    """A FeatureNet trained on clips uint8 [N, T, H, W, 3] and their labels int64 [N] in [0, len(label_names)).

    AdamW with one cycle of the learning rate. Without labels, or with one class only, the second task alone trains it.
    `test` clips are not learned from; how many of them are recognised is stored in the network's config.
    `progress(step, loss)` is called after every step.

    Raises:
        UserError: the clips have fewer than four frames.
    """
    if frames.shape[1] < 4:
        raise UserError(f"a feature network needs clips of at least 4 frames, these have {frames.shape[1]}")
    names = tuple(label_names) if labels is not None and len(label_names) > 1 else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FeatureNet(FeatureConfig(names)).to(device).train()
    frames = torch.cat([shrink_frames(part, network.config.size) for part in frames.split(256)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(frames), (batch_size,), generator=generator)
        changed = torch.rand(batch_size, generator=generator) >= _UNCHANGED
        plays = torch.randint(1, len(PLAYS), (batch_size,), generator=generator) * changed
        by_class, by_play = network(play(frames[chosen], plays, generator).to(device))
        loss = F.cross_entropy(by_play, plays.to(device))
        whole = plays != CUT  # a clip that is cut shows two classes
        if names and labels is not None and whole.any():
            loss = loss + F.cross_entropy(by_class[whole.to(device)], labels[chosen][whole].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    network.eval()
    if test is not None:
        accuracy, play_accuracy = accuracies(network, *test)
        network.config = replace(network.config, accuracy=accuracy, play_accuracy=play_accuracy)
    return network


def play(frames: Tensor, plays: Tensor, generator: torch.Generator) -> Tensor:
    """Clips uint8 [B, T, H, W, 3], each played in one of the ways `PLAYS`; plays int64 [B].

    Slow shows a half of the clip, every frame twice; frozen one frame all the time; shuffled all frames in random
    order; cut goes on with the next clip of the batch from a frame in the middle.
    """
    count, length = frames.shape[:2]
    times = torch.arange(length)
    when = times.expand(count, length).clone()  # [B, T], the frame that is shown
    which = torch.arange(count)[:, None].repeat(1, length)  # [B, T], the clip it is taken from
    for clip, way in enumerate(PLAYS[int(number)] for number in plays):
        if way == "slow":
            start = torch.randint(length // 2 + 1, (), generator=generator)
            when[clip] = start + times // 2
        elif way == "frozen":
            when[clip] = torch.randint(length, (), generator=generator)
        elif way == "shuffled":
            when[clip] = torch.randperm(length, generator=generator)
        elif way == "cut":
            middle = int(torch.randint(2, length - 1, (), generator=generator))
            which[clip, middle:] = (clip + 1) % count
    return frames[which, when]


@torch.inference_mode()
def accuracies(network: FeatureNet, frames: Tensor, labels: Tensor | None, seed: int = 0) -> tuple[float | None, float]:
    """Shares of clips whose class (None without classes) and whose way of playing is recognised.

    Every clip is asked for its class as it is, and for its way of playing once in each of the five ways.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    right = right_play = 0
    for start in range(0, len(frames), 64):
        part = shrink_frames(frames[start : start + 64], network.config.size)
        for way in range(len(PLAYS)):
            played = play(part, torch.full((len(part),), way), generator)
            by_class, by_play = network(played.to(device))
            right_play += int((by_play.argmax(1) == way).sum())
            if way == 0 and labels is not None:
                right += int((by_class.argmax(1).cpu() == labels[start : start + 64]).sum())
    judged = bool(network.config.label_names) and labels is not None
    return right / len(frames) if judged else None, right_play / len(frames) / len(PLAYS)
