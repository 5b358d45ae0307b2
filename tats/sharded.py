"""Fully sharded training: every process keeps its rows of each weight, its gradient and its optimizer's averages, and
gathers a block of the transformer only while it computes with it (torch.distributed.fsdp.fully_shard).

Lightning's own FSDP strategy is for GPUs only; this one works on CPUs with gloo as well, where it is tested.
"""

import secrets
from collections.abc import Iterable, Mapping
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from tats import shards
from tats.checkpoints import WholeFiles
from tats.flags import UserError
from tats.shards import ENDING, MARK, PARTS, Parts, is_mark, map_values, rows_of, write_part


def shard(model: nn.Module, blocks: nn.ModuleList | nn.Sequential, mesh: DeviceMesh) -> None:
    """Cut the weights of a model over the processes of a mesh, block by block; once is enough."""
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def strategy_of(module: LightningModule, callbacks: Iterable[Any]) -> "Sharded":
    """The strategy for `--strategy fsdp`.

    Raises:
        UserError: the module, or something that watches it, needs whole weights.
    """
    if not is_overridden("configure_model", module):
        raise UserError("--strategy fsdp is for transformers; take --strategy ddp for a VQGAN")
    if any(getattr(each, "needs_whole_weights", False) for each in callbacks):
        raise UserError("--score_every samples from whole weights, which --strategy fsdp does not have: leave one out")
    return Sharded()


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for it, with checkpoints of ours (`tats.shards`): rows are written by who has them, and read
    by any number of processes."""

    folder: Path | None = None  # of the latest checkpoint

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    @property
    def mesh(self) -> DeviceMesh:
        """The processes that share the weights: all of them."""
        return self.device_mesh["data_parallel"]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        if self.lightning_module is None:
            raise ValueError("there is no module yet")
        return self.lightning_module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        if self.lightning_module is not None:
            self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return getattr(optimizer, "optimizer", optimizer).state_dict()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Parts first, then the file that names them: it is there only when all of them are."""
        path, token = Path(filepath), self.broadcast(secrets.token_hex(3))
        mine: dict[str, Tensor] = {}

        def take(name: str, value: Any) -> Any:
            if not isinstance(value, DTensor):
                return value
            mine[name] = value.to_local().detach().cpu()
            return {MARK: name, "shape": list(value.shape)}

        content = map_values(checkpoint, take)
        step = checkpoint.get("step", checkpoint["global_step"])
        names = [f"step={step}-{token}-{rank}-of-{self.world_size}{ENDING}" for rank in range(self.world_size)]
        failed: OSError | None = None
        try:
            write_part(path.parent / names[self.global_rank], token, self.global_rank, self.world_size, mine)
        except OSError as error:
            failed = error
        wrong = self.reduce_boolean_decision(failed is not None, all=False)  # also waits for all parts
        if wrong and isinstance(self.checkpoint_io, WholeFiles):
            self.checkpoint_io.failed = failed or OSError(EIO, "another process can't write its part")
        if wrong:
            return
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint({**content, PARTS: names}, path)
            self.sweep(path.parent)
        self.barrier()

    def sweep(self, folder: Path) -> None:
        """Remove the parts that belong to no checkpoint any more."""
        self.folder = folder
        shards.sweep(folder, folder.glob("*.ckpt"))

    def teardown(self) -> None:
        if self.folder is not None:  # in the first process
            self.sweep(self.folder)
        super().teardown()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """A checkpoint in parts, or a whole one, with the rows of this process where the model has only these."""
        path = Path(checkpoint_path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        parts = Parts(path, content) if PARTS in content else None
        if parts is None:
            raise UserError(f"{path} was not written with --strategy fsdp; --init_from begins with its weights")

        def give(name: str, value: Any) -> Any:
            return self._rows(parts, value) if is_mark(value) else value

        return map_values(content, give)

    def _rows(self, parts: Parts, mark: dict[str, Any]) -> DTensor:
        """This process's rows of a stored tensor."""
        shape = torch.Size(mark["shape"])
        here = parts.rows(mark[MARK], mark["shape"], *rows_of(shape[0], self.global_rank, self.world_size))
        stride = torch.empty(shape, device="meta").stride()
        local = here.clone().to(self.root_device)
        return DTensor.from_local(local, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
