"""Pixels: the two forms of a video, the published preprocessing, grids."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_cases import Case

from tats import video

CASE = Case("data")
CFG = CASE.json("cfg.json")


@pytest.mark.parametrize("name, key, settings", CFG["preprocess"], ids=lambda value: str(value) if value else "")
def test_preprocessing_equals_the_published_one(name, key, settings):
    CASE.check(f"preprocess/{name}", video.preprocess(CASE.inputs[key], **settings))


@pytest.mark.parametrize("name, key, settings", CFG["smap"])
def test_semantic_maps_equal_the_published_ones(name, key, settings):
    n_classes = settings["in_channels"]
    CASE.check(f"preprocess/{name}", video.preprocess_map(CASE.inputs[key], settings["resolution"], n_classes))


@pytest.mark.parametrize("name", list(CFG["grid"]))
def test_grids_equal_the_published_ones(name):
    settings = CFG["grid"][name]
    pixels = torch.from_numpy((CASE.inputs["grid_u16"][: settings["b"]] / np.float32(65535)).astype(np.float32))
    CASE.check(f"grid/{name}", video.grid(pixels, settings.get("nrow")))


@pytest.mark.parametrize("height, width", [(24, 32), (32, 24), (16, 16), (9, 41), (8, 8), (5, 7)])
@pytest.mark.parametrize("resolution", [8, 11, 16])
def test_preprocessing_is_a_full_bilinear_resize_and_a_crop_of_the_middle(height, width, resolution):
    frames = torch.randint(256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scale = resolution / min(height, width)
    size = (resolution, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), resolution)
    whole = F.interpolate(frames.permute(0, 3, 1, 2).double() / 255, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    expected = whole[:, :, top : top + resolution, left : left + resolution].transpose(0, 1) - 0.5
    assert (video.preprocess(frames, resolution) - expected).abs().max() < 1e-5


def test_frames_of_the_wanted_size_pass_untouched():
    frames = torch.randint(256, (3, 12, 12, 3), dtype=torch.uint8)
    assert torch.equal(video.preprocess(frames, 12), video.from_frames(frames))
    assert torch.equal(video.preprocess(frames, None), video.from_frames(frames))


def test_frames_come_back_within_one_level_and_batched_frames_alike():
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).repeat(2, 1, 1, 1, 3)
    inside = video.from_frames(frames)
    assert inside.shape == (2, 3, 1, 16, 16) and inside.min() == -0.5 and inside.max() == 0.5
    back = video.to_frames(inside)
    assert set((frames.int() - back.int()).unique().tolist()) <= {0, 1}
    assert torch.equal(video.to_frames(inside[0]), back[0])


def test_pixels_out_of_range_are_clamped():
    outside = torch.tensor([-3.0, 3.0]).view(1, 1, 1, 1, 2).expand(1, 3, 1, 1, 2)
    assert video.to_frames(outside)[0, 0, 0, :, 0].tolist() == [0, 255]


def test_one_channel_is_the_brightness_of_three_and_three_repeat_one():
    frames = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=torch.uint8).view(1, 2, 2, 3)
    grey = video.preprocess(frames, None, image_channels=1)
    assert torch.allclose(grey.flatten() + 0.5, torch.tensor([0.299, 0.587, 0.114, 1.0]), atol=1e-6)
    three = video.preprocess(frames[..., :1], None, image_channels=3)
    assert three.shape == (3, 1, 2, 2) and torch.equal(three[0], three[2])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="uint8"):
        video.from_frames(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"float32 \[2, 2\]"):
        video.preprocess(torch.zeros(2, 2), 8)
    with pytest.raises(ValueError, match="there are 3 classes"):
        video.preprocess_map(torch.full((1, 2, 2, 1), 3, dtype=torch.uint8), 2, 3)
