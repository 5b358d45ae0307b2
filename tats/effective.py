"""How much data a step sees, and how fast it learns from it: kept in checkpoints, so that a change is noticed."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from tats.callbacks import batches_per_step
from tats.launched import say
from tats.trainer_config import effective_batch

KEY = "effective"
COUNTS = ("ready", "started", "processed", "completed")  # Lightning's names of how far a batch has come


class Effective(Callback):
    """Says when a resumed run sees other batches or learns at another rate than before, and finds its place in an
    epoch that is dealt out in batches of another size.

    The same steps come from any number of processes as long as batch size * accumulated batches * processes is the
    same. The learning rate is that of the flags, not that of the checkpoint.
    """

    def __init__(self, batch_size: int | None) -> None:
        self.batch_size = batch_size  # clips per batch and process; None where the loader does not say

    def now(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """What a checkpoint keeps of it: plain numbers."""
        return {
            "batch_size": self.batch_size,
            "accumulate": batches_per_step(module),
            "processes": trainer.world_size,
            "learning_rate": getattr(module, "learning_rate", None),
        }

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.now(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        before, now = checkpoint.get(KEY), self.now(trainer, pl_module)
        if not before or not before["batch_size"] or not now["batch_size"]:
            return
        for line in changes(before, now):
            say(line)
        dealt, deals = (each["batch_size"] * each["processes"] for each in (before, now))
        if dealt != deals:
            rescale(checkpoint["loops"]["fit_loop"], dealt, deals)


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each of effective batch and learning rate that is not what it was."""
    names = ("batch_size", "accumulate", "processes")
    batches = [effective_batch(*(each[name] for name in names)) for each in (before, now)]
    lines = []
    if batches[0].split(" = ")[0] != batches[1].split(" = ")[0]:
        lines.append(f"warning: the {batches[0]} before, now it is {batches[1].removeprefix('effective batch ')}")
    rates = before["learning_rate"], now["learning_rate"]
    if None not in rates and abs(rates[0] - rates[1]) > 1e-9 * abs(rates[0]):
        lines.append(f"warning: the learning rate was {rates[0]:.3g} before, now it is {rates[1]:.3g}")
    return lines


def rescale(loop: dict[str, Any], dealt: int, deals: int) -> None:
    """Turn counts of batches of `dealt` clips into counts of batches of `deals` clips, in place: Lightning's own, and
    those of loaders that say at which batch they are."""
    progress = loop["epoch_loop.batch_progress"]
    for part in (progress["total"], progress["current"]):
        for name in COUNTS:
            part[name] = part[name] * dealt // deals
    for place in loop["state_dict"].get("combined_loader", []):
        if "batch" in place:
            place["batch"] = place["batch"] * dealt // deals
