"""Training ends with the first loss that is not a finite number, and the batch that gave it is named and kept."""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tats.callbacks import first_loss, step_of
from tats.flags import UserError

NONE = 2**62  # the number of a batch that never comes
NAMED = 8  # clips in one line


class Seen(NamedTuple):
    """What is known of a batch without its numbers: which it is, and its texts."""

    batch: int
    step: int
    epoch: int
    texts: dict[str, Any]


class NumbersOnly(Callback):
    """Stops at the first loss that is no number, in all processes together. Reads the device only every `every`-th
    batch; the tensors of the first bad batch stay there until then.

    folder: where that batch is stored (None: nowhere), as `not_a_number/batch_12_process_0.pt`: a dict of plain values
    and tensors, which `torch.load(path, weights_only=True)` reads.
    """

    def __init__(self, every: int, folder: Path | None = None) -> None:
        self.every, self.folder = every, folder
        self.first: Tensor | None = None  # first batch with a bad loss, NONE without, on the loss's device
        self.kept: dict[str, Tensor] = {}  # that batch
        self.seen: deque[Seen] = deque(maxlen=every)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = first_loss(outputs)
        if loss is None:
            return
        batch = batch if isinstance(batch, dict) else {"batch": batch}
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        if any(self.kept[name].shape != value.shape for name, value in tensors.items() if name in self.kept):
            self._raise_if_bad(trainer)  # before a batch of another size takes its place
            self.kept = {}
        if self.first is None:
            self.first = torch.full((), NONE, dtype=torch.long, device=loss.device)
        bad = ~torch.isfinite(loss).reshape(()) & (self.first == NONE)
        number = trainer.fit_loop.epoch_loop.total_batch_idx
        self.first = torch.where(bad, number, self.first)
        for name, value in tensors.items():  # chosen on the device: nothing waits for it
            self.kept[name] = torch.where(bad.to(value.device), value, self.kept.get(name, value))
        texts = {name: value for name, value in batch.items() if isinstance(value, list)}
        self.seen.append(Seen(number, step_of(trainer), trainer.current_epoch, texts))
        if batch_idx % self.every == 0:
            self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raises UserError in all processes when a loss of any was no number: before that, nothing may be saved."""
        if self.first is None:
            return
        first = self.first.clone()
        if trainer.world_size > 1:
            dist.all_reduce(first, dist.ReduceOp.MIN)
        if int(first) < NONE:
            self._raise_if_bad(trainer)
            raise UserError(self._message(int(first), step_of(trainer), "it was a batch of another process"))

    def _raise_if_bad(self, trainer: Trainer) -> None:
        """Store the bad batch of this process, if there is one, and end."""
        if self.first is None or int(self.first) == NONE:
            return
        seen = next(each for each in self.seen if each.batch == int(self.first))
        clips = names_of(trainer.train_dataloader, self.kept.get("index"))
        listed = ", ".join(clips[:NAMED]) + (f" and {len(clips) - NAMED} more" if len(clips) > NAMED else "")
        told = [f"its clips: {listed}"] if clips else []
        if self.folder is not None:
            path = self.folder / "not_a_number" / f"batch_{seen.batch}_process_{trainer.global_rank}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = {name: value.detach().cpu() for name, value in self.kept.items()}
            torch.save({**seen._asdict(), "process": trainer.global_rank, "clips": clips, "values": values}, path)
            told.append(f"the batch is kept in {path}")
        raise UserError(self._message(seen.batch, seen.step, "; ".join(told)))

    @staticmethod
    def _message(batch: int, step: int, told: str) -> str:
        return (
            f"the loss is not a number since batch {batch} (step {step}){'; ' if told else ''}{told}. The checkpoints "
            "are from before. A smaller learning rate, --gradient_clip_val 1 or --precision 32 may help; "
            "--detect_anomaly finds the operation"
        )


def names_of(loader: Any, index: Tensor | None) -> list[str]:
    """What the clips of a batch are called: the names of their videos, or their numbers where these have none."""
    if index is None:
        return []
    name = getattr(getattr(loader, "dataset", None), "name", None)
    return [name(each) if callable(name) else str(each) for each in index.flatten().tolist()]
