"""Crops and mirror images of videos, and codes of them; codes that a stopped run has begun."""

import numpy as np
import pytest
import torch
from code_parts import CLIP, random_codes
from films import film_folders

from tats.data.code_index import Index, read_index
from tats.data.code_writer import PART, SHARD_BYTES, CodeWriter
from tats.data.codes import CodeShards
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.data.tokenize import tokenize
from tats.data.variants import Variants, Varied, box, cropped
from tats.flags import UserError

DRAW = np.random.default_rng(0)


class Brightness:
    """Stands in for a VQGAN: the mean brightness of 2x4x4 blocks, as one of 32 codes."""

    n_codes = 32

    class config:
        sequence_length, sample_every_n_frames, resolution, image_channels = 8, 1, 8, 3
        downsample, latent_shape = (2, 4, 4), (4, 2, 2)

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def encode(self, video):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        means = torch.nn.functional.avg_pool3d(video.mean(1, keepdim=True), (2, 4, 4))[:, 0]
        return ((means + 0.5) * 31).round().long()

    def parameters(self):
        yield torch.zeros(1)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return film_folders(tmp_path_factory.mktemp("films"), {"ape": 2, "bee": 1}, 17, codec="mpeg4")


def config_of(path, **settings):
    return DataConfig(**{"data_path": str(path), "sequence_length": 8, "resolution": 8, "batch_size": 2,
                         "num_workers": 0, **settings})  # fmt: skip


def test_variants_are_squares_inside_the_picture_and_their_mirror_images():
    assert Variants(2, True).numbers == [0, 1, 2, 3] and Variants(3).numbers == [0, 2, 4]
    frames = np.arange(2 * 48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 48, 64, 3)
    sides = set()
    for number in range(1, 40):
        rows, columns = box(f"film {number}", 2, 48, 64)
        assert rows.stop - rows.start == columns.stop - columns.start and 36 <= rows.stop - rows.start <= 48
        assert rows.start >= 0 and rows.stop <= 48 and columns.start >= 0 and columns.stop <= 64
        sides.add(rows.stop - rows.start)
    assert len(sides) > 5
    assert np.array_equal(cropped(frames, "a", 1), frames)
    assert np.array_equal(cropped(frames, "a", 3), cropped(frames, "a", 2)) and cropped(frames, "a", 2).shape[1] <= 48


def test_every_variant_is_a_video_with_a_name_of_its_own(films):
    source = VideoData(config_of(films), seed=0).source("train")
    several = Varied(source, Variants(2, True))
    assert several.names[:4] == ["ape/0.mp4", "ape/0.mp4 (mirrored)", "ape/0.mp4 (crop 1)", "ape/0.mp4 (crop 1, mirrored)"]  # fmt: skip  # noqa: E501
    assert several.labels.tolist() == [0] * 8 + [1] * 4 and len(several.starts) == 12
    plain = source.read(0, 3, DRAW)["video"]
    assert torch.equal(several.read(0, 3, DRAW)["video"], plain)
    assert torch.equal(several.read(1, 3, DRAW)["video"], plain.flip(-1))
    assert not torch.equal(several.read(2, 3, DRAW)["video"], plain)


def test_codes_of_crops_and_mirror_images_are_those_of_more_videos(films, tmp_path):
    plain = tokenize(config_of(films), Brightness(), "f", tmp_path / "plain")
    more = tokenize(config_of(films), Brightness(), "f", tmp_path / "more", variants=Variants(1, True))
    one, two = read_index(plain / "train"), read_index(more / "train")
    assert len(two.video) == 2 * len(one.video) and two.clip["flips"] is True and "flips" not in one.clip
    assert read_index(more / "test").videos == read_index(plain / "test").videos  # variants are for training
    ours, theirs = (CodeShards(config_of(path, vtokens=True), "train") for path in (plain, more))
    mirrored = theirs.read(two.video.index(1), 0, DRAW)["video"]
    assert torch.equal(mirrored, ours.read(0, 0, DRAW)["video"].flip(-1))
    with pytest.raises(UserError, match="codes of other videos or windows"):
        tokenize(config_of(films), Brightness(), "f", more)


def test_a_stopped_run_goes_on_behind_what_it_has_saved(films, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(CodeWriter.__init__, "__defaults__", (SHARD_BYTES, 0.0))  # a shard for every batch
    whole = tokenize(config_of(films), Brightness(), "f", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tokenize(config_of(films), Brightness(fail_at=4), "f", tmp_path / "stopped")
    assert (tmp_path / "stopped" / "train" / PART).exists()
    vqgan = Brightness()
    again = tokenize(config_of(films), vqgan, "f", tmp_path / "stopped")
    assert "clips are there from before" in capsys.readouterr().err
    assert not (again / "train" / PART).exists()
    for split in ("train", "test"):
        one, two = read_index(whole / split), read_index(again / split)
        assert (one.video, one.start, one.label) == (two.video, two.start, two.label)
        read = [CodeShards(config_of(path, vtokens=True), split) for path in (whole, again)]
        batches = [source.read_many(np.arange(len(one.video)))["video"] for source in read]
        assert torch.equal(*batches)


def test_what_another_run_has_begun_is_made_anew(tmp_path):
    begun = CodeWriter(tmp_path, Index(50, (2, 3, 3), "one", dict(CLIP), ["x"], ["v"]))
    begun.add(random_codes(4), [0] * 4, range(4), [0] * 4)
    begun.save()
    assert CodeWriter(tmp_path, Index(50, (2, 3, 3), "one", dict(CLIP), ["x"], ["v"])).done == 4
    assert CodeWriter(tmp_path, Index(50, (2, 3, 3), "two", dict(CLIP), ["x"], ["v"])).done == 0
