"""Tiny models by sound, scripts that run in this process, and sounds in files."""

import runpy
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gpt_parts import tiny_gpt

from tats import checkpoint
from tats.vqgan.config import VQGANConfig
from tats.vqgan.model import VQGAN

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["green_circle", "red_square", "red_circle", "red_triangle"]


def save_models(folder):
    """Into `folder`: a tiny VQGAN, a VQGAN of sounds, and transformers over windows of 16 frames, by sound, by class
    and sound, by class."""
    torch.manual_seed(0)
    common = {"embedding_dim": 4, "n_hiddens": 2, "norm_type": "batch", "sequence_length": 16}
    video = VQGANConfig(n_codes=37, downsample=(4, 8, 8), resolution=16, **common)
    sound = VQGANConfig(n_codes=11, downsample=(4, 32, 16), resolution=64, width=16, image_channels=1, **common)
    checkpoint.save(VQGAN(video).eval(), folder / "vqgan")
    sounds = VQGAN(sound).eval()
    loud = torch.linspace(0, 2, 16)[:, None, None] * torch.rand(16, 64, 16) - 1  # [T, 64, 16], from silence to noise
    found = sounds.features(loud[None, None]).flatten(2)[0].T.detach()  # [8, 4]
    sounds.codebook.embeddings[:8] = found  # so that different sounds have different codes
    checkpoint.save(sounds, folder / "stft")
    checkpoint.save(tiny_gpt((4, 2, 2), key="stft", n_cond=8, code_offset=11).float(), folder / "gpt")
    gpt = tiny_gpt((4, 2, 2), key="label+stft", conditions=(("label", 1, 4), ("stft", 8, 11))).float()
    gpt.config = replace(gpt.config, label_names=CLASSES)
    checkpoint.save(gpt, folder / "both")
    checkpoint.save(tiny_gpt((4, 2, 2)).float(), folder / "label")


def run(script, *flags):
    """A script in this process: its `main` with these flags."""
    before = sys.argv
    sys.argv = [script, *map(str, flags)]
    try:
        runpy.run_path(str(ROOT / script), run_name="called")["main"]()
    finally:
        sys.argv = before


def noise(seconds, rate=16000, pitch=200):
    """A sound that changes all the time, so that every shift shows: float32 [n]."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (pitch + 90 * time) * time) * (0.6 + 0.4 * np.sin(7 * time))).astype(np.float32)


def write_wav(path, samples, rate=16000):
    """Samples float [n] in [-1, 1] as a file of one channel; returns its path."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


def likeness(a, b):
    """Correlation of two sounds, and by how many samples the first is late."""
    n = 2 * max(len(a), len(b))
    found = np.fft.irfft(np.fft.rfft(a, n) * np.conj(np.fft.rfft(b, n)), n)
    lag = int(found.argmax())
    n_common = min(len(a), len(b))
    return np.corrcoef(a[:n_common], b[:n_common])[0, 1], lag - n if lag > n // 2 else lag
