"""The order of the channels in memory, and compiled networks, change speed and no results."""

import pytest
import torch

from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig


def test_channels_last_gives_the_same_loss_and_gradients():
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = VQGANConfig(n_hiddens=2, embedding_dim=4, n_codes=16, downsample=(2, 2, 2), norm_type="batch")
        config = VQGANTrainConfig(image_gan_weight=0, video_gan_weight=0, channels_last=channels_last)
        module = VQGANTraining(model, config)
        video = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        if channels_last:
            assert module.vqgan.encoder.conv_first.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
            video = video.contiguous(memory_format=torch.channels_last_3d)
        module.train()
        terms, _ = module.generator_loss(video, module.draws(0))
        terms.loss.backward()
        found.append((terms.loss.detach(), module.vqgan.encoder.conv_first.conv.weight.grad))
    (loss, grad), (other, other_grad) = found
    assert torch.allclose(loss, other, rtol=1e-5) and torch.allclose(grad, other_grad, atol=1e-5, rtol=1e-4)


def module_of(norm="batch", **flags):
    torch.manual_seed(0)
    model = VQGANConfig(n_hiddens=16, embedding_dim=4, n_codes=16, downsample=(1, 2, 2), norm_type=norm)
    return VQGANTraining(model, VQGANTrainConfig(disc_channels=2, disc_layers=1, **flags))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_compiled_networks_train_alike_and_leave_no_trace_in_names(monkeypatch, norm):
    compile_part = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_part(self, backend="eager"))
    found = []
    for compiled in (False, True):
        module = module_of(norm, compile=compiled).train()
        parts = [module.vqgan.encoder, module.vqgan.decoder, *module.critics]
        assert all((part._compiled_call_impl is not None) == compiled for part in parts)
        video = torch.rand(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
        module.generator_loss(video, module.draws(0))[0].loss.backward()
        found.append(
            (module.state_dict(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None})
        )
    for plain, other in zip(*found, strict=True):
        assert list(plain) == list(other)
        for name, value in plain.items():
            torch.testing.assert_close(other[name], value, msg=name)
