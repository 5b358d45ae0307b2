"""The order of the channels in memory changes speed, not results."""

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
