"""Two processes with half a batch each do what one process does with the whole batch."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tats.vqgan.codebook import Codebook
from tats.vqgan.draws import Draws
from tats.vqgan.layers import ResBlock
from tats.vqgan.norm import SyncBatchNorm, share_statistics, synchronise


def parts() -> tuple[nn.Module, Codebook, Tensor]:
    """Layers with batch normalisation, a codebook, and a batch whose mean is far from 0."""
    torch.manual_seed(0)
    layers = nn.Sequential(ResBlock(4, "batch"), nn.Conv3d(4, 3, 1), nn.BatchNorm3d(3))
    return layers.double(), Codebook(12, 4, restart_thres=2.0).double(), 5 + torch.randn(4, 4, 2, 3, 3).double()


def work(layers: nn.Module, codebook: Codebook, x: Tensor, groups: int) -> dict[str, Tensor]:
    """Forward and backward of the layers, two moves of the codebook. `groups`: processes."""
    y = layers(x)
    y.square().mean().backward()
    start_vectors = x.clone()
    for step in range(2):
        codebook(start_vectors + step, Draws(7, step))
    grads = {f"grad {name}": p.grad for name, p in layers.named_parameters()}
    if groups > 1:
        for grad in grads.values():
            dist.all_reduce(grad)
            grad /= groups
    buffers = dict(layers.named_buffers())
    return {"y": y.detach(), **grads, **buffers, **{f"codebook {k}": v for k, v in codebook.state_dict().items()}}


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    layers, codebook, x = parts()
    results = work(synchronise(layers), codebook, x.chunk(2)[rank], groups=2)
    results |= {f"alone {name}": value for name, value in apart(x.chunk(2)[rank]).state_dict().items()}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def apart(batch: Tensor) -> nn.Module:
    """A layer with running statistics of a batch of this process alone, then the mean of those of all processes."""
    layers = nn.Sequential(nn.BatchNorm3d(4, momentum=0.5)).double()
    layers(batch)
    share_statistics(layers)
    return layers


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    whole = work(*parts(), groups=1)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, value in whole.items():
        for rank, half in enumerate(halves):
            expected = value.chunk(2)[rank] if key == "y" else value
            torch.testing.assert_close(half[key], expected, rtol=1e-9, atol=1e-11, msg=f"{key} of process {rank}")
    separate = [apart(half).state_dict() for half in parts()[2].chunk(2)]
    for key in ("0.running_mean", "0.running_var"):
        mean = (separate[0][key] + separate[1][key]) / 2
        assert not torch.allclose(separate[0][key], mean)
        assert torch.equal(halves[0][f"alone {key}"], halves[1][f"alone {key}"])
        torch.testing.assert_close(halves[0][f"alone {key}"], mean)


def test_in_one_process_it_is_plain_batch_normalisation():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm3d(3), nn.BatchNorm2d(3))
    names = set(plain.state_dict())
    x = torch.randn(2, 3, 2, 4, 4)
    expected = plain[0](x)
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    synced = synchronise(nn.Sequential(nn.BatchNorm3d(3), nn.BatchNorm2d(3)))
    assert set(synced.state_dict()) == names
    assert all(isinstance(module, SyncBatchNorm) for module in synced)
    assert torch.equal(synced[0](x), expected)
    assert all(torch.equal(state[key], value) for key, value in synced.state_dict().items())
