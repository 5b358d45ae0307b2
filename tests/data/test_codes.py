"""Code shards: what is written is read, damage and strangers are refused; `tats tokenize` without a VQGAN's weights."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from code_parts import CLIP, config_of, random_codes, write
from films import film_folders
from hypothesis import given, settings
from hypothesis import strategies as st

from tats.data.code_index import Index, read_index
from tats.data.code_writer import CodeWriter
from tats.data.codes import CodeShards
from tats.data.config import DataConfig
from tats.data.loader import Clips
from tats.data.module import VideoData
from tats.data.tokenize import tokenize, windows
from tats.flags import UserError

DRAW = np.random.default_rng(0)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), n_codes=st.sampled_from([2, 65536, 65537, 100000]), per_shard=st.integers(1, 4))
def test_what_is_written_is_read(tmp_path_factory, n, n_codes, per_shard):
    codes = random_codes(n, n_codes)
    codes[0, 0, 0, 0] = n_codes - 1
    wide = 2 if n_codes <= 65536 else 4
    folder = write(tmp_path_factory.mktemp("codes"), codes, n_codes, shard_bytes=per_shard * 18 * wide)
    source = CodeShards(config_of(folder), "train")
    assert len(source.index.shards) == -(-n // per_shard)
    for i in range(n):
        clip = source.read(i, 0, DRAW)
        assert torch.equal(clip["video"], codes[i]) and clip["label"] == i % 3
        assert clip["cbox"].tolist() == [0, 3, 0, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_codes_come_in_batches_with_their_labels(tmp_path, workers):
    codes = random_codes()
    data = VideoData(config_of(write(tmp_path, codes), num_workers=workers), seed=0)
    seen = set()
    for batch in data.train_loader():
        assert batch["video"].dtype == torch.int64 and batch["video"].shape == (4, 2, 3, 3)
        assert torch.equal(batch["video"], codes[batch["index"]])
        assert torch.equal(batch["label"], batch["index"] % 3)
        seen |= set(batch["index"].tolist())
    assert seen == set(range(11))
    assert (data.n_codes, data.latent_shape, data.fingerprint) == (50, (2, 3, 3), "abcdef")
    assert data.label_names == ["x", "y", "z"]


def test_a_source_travels_without_its_memory(tmp_path):
    source = CodeShards(config_of(write(tmp_path, random_codes())), "train")
    before = source.read(3, 0, DRAW)["video"]
    data = pickle.dumps(source)
    assert torch.equal(pickle.loads(data).read(3, 0, DRAW)["video"], before)
    assert source._maps and not pickle.loads(data)._maps


def test_codes_of_another_vqgan_are_refused(tmp_path):
    data = VideoData(config_of(write(tmp_path, random_codes())), seed=0)
    data.need_vqgan("abcdef")
    with pytest.raises(
        UserError, match=r"holds codes of another VQGAN \(fingerprint abcdef, the given one has 123456\)"
    ):
        data.need_vqgan("123456")


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no index\.json: --vtokens needs the codes that `tats tokenize` writes"):
        CodeShards(config_of(tmp_path), "train")
    write(tmp_path, random_codes())
    shard = tmp_path / "train" / "codes_00001.bin"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"codes_00001\.bin is not the file its index describes"):
        CodeShards(config_of(tmp_path), "train")
    shard.unlink()
    with pytest.raises(UserError, match=r"codes_00001\.bin is missing"):
        CodeShards(config_of(tmp_path), "train")
    index = tmp_path / "train" / "index.json"
    content = json.loads(index.read_text())
    wrongs = [({"kind": "other"}, "is not an index"), ({"more": 1}, "is damaged"), ({"label": [0]}, "is damaged"),
              ({"latent_shape": 3}, "is damaged")]  # fmt: skip
    for wrong, words in wrongs:
        index.write_text(json.dumps({**content, **wrong}))
        with pytest.raises(UserError, match=words):
            CodeShards(config_of(write_shards_again(tmp_path, index.read_text())), "train")
    index.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_index(tmp_path / "train")


def write_shards_again(folder, index):
    """The shards whole, with another index."""
    write(folder, random_codes())
    (folder / "train" / "index.json").write_text(index)
    return folder


def test_codes_that_do_not_fit_are_not_written(tmp_path):
    index = Index(50, (2, 3, 3), "abcdef", CLIP, [], [])
    writer = CodeWriter(tmp_path, index)
    with pytest.raises(ValueError, match=r"must be \[B, 2, 3, 3\]"):
        writer.add(torch.zeros(1, 2, 3, 4, dtype=torch.long), [0], [0], [0])
    with pytest.raises(ValueError, match=r"must lie in \[0, 50\), got 50 to 50"):
        writer.add(torch.full((1, 2, 3, 3), 50), [0], [0], [0])


class Brightness(torch.nn.Module):
    """Stands for a VQGAN: the code is the brightness of a block, in 16 levels."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.n_codes, self.latent_shape = 16, (2, 4, 4)
        self.config = SimpleNamespace(sequence_length=8, sample_every_n_frames=2, resolution=8, image_channels=1)

    def encode(self, video):
        blocks = torch.nn.functional.avg_pool3d(video, 2)[:, 0]  # [B, 2, 4, 4]
        return ((blocks + 0.5) * 15.999).long()


def test_tokenized_windows_are_the_encoded_clips(tmp_path, capsys):
    films = film_folders(tmp_path / "films", {"ape": 2, "bee": 1}, 19, codec="mpeg4")
    vqgan, length = Brightness(), {"sequence_length": 8, "sample_every_n_frames": 2}
    pixels = DataConfig(data_path=str(films), batch_size=4, num_workers=0, **length)
    out = tokenize(pixels, vqgan, "abc", tmp_path / "codes", stride=5)
    source = CodeShards(config_of(out), "train")
    assert source.index.start == [0, 5, 10, 11] * 3  # the last window that fits is 11
    assert [source.index.videos[i] for i in source.index.video[::4]] == ["ape/0.mp4", "ape/1.mp4", "bee/0.mp4"]
    assert source.index.label == [0] * 8 + [1] * 4 and source.label_names == ["ape", "bee"]
    cut = DataConfig(data_path=str(films), sequence_length=8, sample_every_n_frames=2, resolution=8, image_channels=1)
    clips = VideoData(cut, seed=0).source("train")
    for i in range(12):
        video, start = source.index.video[i], source.index.start[i]
        expected = vqgan.encode(clips.read(video, start, DRAW)["video"][None])[0]
        assert torch.equal(source.read(i, 0, DRAW)["video"], expected)
    assert CodeShards(config_of(out), "test").index.start == [0, 8, 11] * 3
    capsys.readouterr()
    tokenize(pixels, vqgan, "abc", out, stride=5)
    assert "are there already, 12 clips" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds codes of another VQGAN"):
        tokenize(pixels, vqgan, "other", out, stride=5)
    with pytest.raises(UserError, match="holds codes of other videos or windows"):
        tokenize(pixels, vqgan, "abc", out, stride=1)
    longer = DataConfig(data_path=str(films), batch_size=4, num_workers=0, sequence_length=12, sample_every_n_frames=2)
    tokenize(longer, vqgan, "abc", tmp_path / "longer", stride=7)
    assert "trained on clips of 4" in capsys.readouterr().err
    assert CodeShards(config_of(tmp_path / "longer"), "train").index.latent_shape == (3, 4, 4)


def test_every_window_is_listed_with_a_stride_of_one():
    source = SimpleNamespace(starts=np.array([1, 3]))
    listed = windows(source, 1)
    assert listed.video.tolist() == [0, 1, 1, 1] and listed.start.tolist() == [0, 0, 1, 2]
    assert len(Clips(listed, 0, train=True)) == 4
