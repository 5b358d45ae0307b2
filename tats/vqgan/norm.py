"""Batch normalisation over the batches of all processes, for CPU and GPU alike."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tats.vqgan.draws import processes


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation whose mean and variance are those of the whole batch. Same names in the state dict.

    torch's own refuses CPU tensors. With one process, and in evaluation mode, it is plain batch normalisation.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input must be [B, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or processes()[1] == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self.forward_together(input.float() if input.dtype != torch.double else input).to(input.dtype)

    def forward_together(self, x: Tensor) -> Tensor:
        """x [B, C, ...] of this process -> the same, normalised by what all processes see"""
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        here = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.double)
        # sums per channel, then the count; in float64, so that they do not depend on how the batch is shared out
        first = _SumOverProcesses.apply(torch.cat([x.sum(axes, dtype=torch.double), here]))
        mean, count = first[:-1] / first[-1], first[-1].detach()
        deviation = x - mean.to(x.dtype).view(shape)  # squares of deviations: sums of plain squares would cancel
        variance = _SumOverProcesses.apply(deviation.square().sum(axes, dtype=torch.double)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                unbiased = variance * count / (count - 1)
                self.running_var.lerp_(unbiased.to(self.running_var), momentum)
        y = deviation * (variance + self.eps).rsqrt().to(x.dtype).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Give every process the mean of all processes' running statistics, where each normalises its own batch alone.

    Without this each process would test with statistics of its own, and all of them with those of the first one after
    going on from a checkpoint, which holds nothing else. Normalisation over all processes has the same ones anyway.
    """
    size = processes()[1]
    alone = [m for m in module.modules() if isinstance(m, _BatchNorm) and not isinstance(m, SyncBatchNorm)]
    shared = [value for m in alone for value in (m.running_mean, m.running_var) if value is not None]
    if size == 1 or not shared:
        return
    mean = torch.cat(shared)  # each [C]
    dist.all_reduce(mean)
    mean /= size
    for value, part in zip(shared, mean.split([len(value) for value in shared])):
        value.copy_(part)


def synchronise(module: nn.Module) -> nn.Module:
    """Replace every batch normalisation inside `module` by the synchronised one, in place, keeping its parameters."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncBatchNorm):
            twin = SyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
            twin.weight, twin.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(twin, buffer, getattr(child, buffer))
            twin.train(child.training)
            setattr(module, name, twin)
        else:
            synchronise(child)
    return module
