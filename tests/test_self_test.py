"""Before a model trains in bf16, its 3D convolutions are compared with float32."""

import dataclasses

import pytest
import torch
from torch import nn

from tats import self_test

CPU = torch.device("cpu")


class Convolving(nn.Module):
    """Something with a 3D convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)


def measured(**half):
    """What `convolution` would find: float32, and bf16 with these differences from it."""
    full = self_test.Measured(torch.ones(4), 1.0, 100)
    return lambda dtype, device: dataclasses.replace(full, **half) if dtype == torch.bfloat16 else full


def test_convolutions_of_this_torch_are_right():
    half, full = (self_test.convolution(dtype, CPU) for dtype in (torch.bfloat16, torch.float32))
    away = (half.values - full.values).norm() / full.values.norm()
    assert 1e-5 < away < self_test.FAR
    frame = 2 * 32 * 16 * 16  # numbers; outputs and gradients of 4 frames, then the same clips with outputs of 2 frames
    assert len(full.values) == (4 + 4 + 2 + 4) * frame + 2 * 32 * 32 * 27
    assert min(half.seconds, full.seconds) > 0 and full.memory == 0


def test_a_convolution_that_is_wrong_in_bf16_is_named_with_its_versions(monkeypatch, capsys):
    right = torch.nn.functional.conv3d

    def wrong(x, weight, **more):
        y = right(x, weight, **more)
        return y.roll(1, -1) if x.dtype == torch.bfloat16 else y

    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    self_test.before_training(Convolving(), "bf16-mixed", "cpu")
    said = capsys.readouterr().err
    assert "warning: 3D convolutions in bf16 are wrong with torch " + torch.__version__ in said
    assert "--precision 32" in said


def test_short_clips_belong_to_the_test(monkeypatch):
    right = self_test.convolution(torch.float32, CPU)
    monkeypatch.setattr(self_test, "with_room", lambda x, kernel, padding: (x.roll(1, 2), padding))
    wrong = self_test.convolution(torch.float32, CPU)
    assert (wrong.values - right.values).norm() > self_test.FAR * right.values.norm()


@pytest.mark.parametrize(
    "half, words",
    [
        ({}, []),
        ({"values": torch.full((4,), 1.1)}, ["are wrong", "10% away"]),
        ({"values": torch.full((4,), float("nan"))}, ["are wrong"]),
        ({"seconds": 3.2}, ["take 3.2 times as long"]),
        ({"memory": 450}, ["take 4.5 times the memory"]),
        ({"seconds": 1.4, "memory": 190}, []),
    ],
)
def test_what_is_wrong_slow_or_large_gets_a_line_each(monkeypatch, half, words):
    monkeypatch.setattr(self_test, "convolution", measured(**half))
    lines = self_test.warnings_of(CPU)
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)


@pytest.mark.parametrize(
    "module, precision, accelerator",
    [(nn.Linear(1, 1), "bf16-mixed", "cpu"), (Convolving(), "32-true", "cpu"), (Convolving(), "bf16-mixed", "tpu")],
)
def test_nothing_is_tested_without_need(monkeypatch, capsys, module, precision, accelerator):
    monkeypatch.setattr(self_test, "convolution", measured(seconds=9.0))
    self_test.before_training(module, precision, accelerator)
    assert not capsys.readouterr().err


def test_versions_name_cudnn_on_gpus(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert self_test.versions(torch.device("cuda")) == f"torch {torch.__version__}, cuDNN 91002 on Some GPU"
