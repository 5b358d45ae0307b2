"""A moving average of the weights while they train: kept beside them, tested and sampled with in their place."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from tats.callbacks import complete, step_of
from tats.flags import UserError

KEY = "ema"  # of a checkpoint: {"decay": float, "state_dict": names as in the model's own -> averages}


def averaged(module: LightningModule) -> dict[str, Tensor]:
    """What has an average: the weights of the model that is stored, and the statistics of its batch normalisation.

    Neither critics, which nobody uses afterwards, nor the codebook, whose vectors are moving averages already and may
    begin anew elsewhere at any step.
    """
    models = {name: model for name, model in module.named_children() if name in ("vqgan", "gpt")}
    models = models or dict(module.named_children())
    named: dict[str, Tensor] = {}
    for prefix, model in models.items():
        tensors: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
        named |= {f"{prefix}.{name}": value for name, value in tensors if "codebook." not in name}
    stored = module.state_dict()
    return {name: value for name, value in named.items() if name in stored and value.is_floating_point()}


def local(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, unless the model is sharded."""
    return value.to_local() if isinstance(value, DTensor) else value


class Ema(Callback):
    """Moves averages towards the weights after every step: average = d * average + (1 - d) * weights, where d is
    `decay`, but at most (1 + n) / (10 + n) after n steps, so that the start is forgotten soon.

    Tests see the averages, and so does everything inside `with ema.swapped(module)`. Checkpoints hold both: the weights
    where they always are, to go on from, and the averages under `ema`, which `tats.load_*` takes.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.shadow: dict[str, Tensor] = {}  # name -> average, or the weights themselves while they are swapped
        self.inside = False  # the module holds the averages, `shadow` the weights
        self.moved_at = -1  # last step that was averaged

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(pl_module)  # again: a checkpoint of a sharded model is read in between

    def _begin(self, module: LightningModule) -> None:
        """Averages begin as the weights, unless a checkpoint brought them."""
        for name, value in averaged(module).items():
            own = self.shadow.get(name)
            if own is not None and own.shape != value.shape:
                raise UserError(f"the average of {name} is {tuple(own.shape)}, the model's {tuple(value.shape)}")
            self.shadow[name] = value.detach().clone() if own is None else own.to(value.device, value.dtype)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = step_of(trainer)
        if step == self.moved_at or not complete(trainer):
            return
        self.moved_at = step
        decay = min(self.decay, (1 + step) / (10 + step))
        values = averaged(pl_module)
        here = [local(self.shadow[name]) for name in values]
        torch._foreach_lerp_(here, [local(value) for value in values.values()], 1 - decay)

    @torch.no_grad()
    def swap(self, module: LightningModule) -> None:
        """Averages and weights change places."""
        for name, value in averaged(module).items():
            here, other = local(value), local(self.shadow[name])
            before = here.clone()
            here.copy_(other)
            other.copy_(before)
        self.inside = not self.inside

    @contextmanager
    def swapped(self, module: LightningModule) -> Iterator[None]:
        """The module holds the averages inside."""
        self.swap(module)
        try:
            yield
        finally:
            self.swap(module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.shadow and not self.inside:
            self.swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.inside:
            self.swap(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the averages; a run that is stopped in the middle of a test stores each in its own place, too."""
        state = checkpoint["state_dict"]
        average = dict(self.shadow)
        if self.inside:
            average = {name: state[name] for name in self.shadow}
            checkpoint["state_dict"] = {**state, **self.shadow}
        checkpoint[KEY] = {"decay": self.decay, "state_dict": average}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.shadow = dict(checkpoint.get(KEY, {}).get("state_dict", {}))


@contextmanager
def averages(trainer: Trainer) -> Iterator[None]:
    """The module holds its averages inside, if the run keeps any."""
    ema = next((each for each in trainer.callbacks if isinstance(each, Ema)), None)  # type: ignore[attr-defined]
    with contextlib.nullcontext() if ema is None else ema.swapped(trainer.lightning_module):
        yield
