"""Small folders of code shards that tests share."""

import torch

from tats.data.code_index import Index
from tats.data.code_writer import CodeWriter
from tats.data.config import DataConfig

CLIP = {"sequence_length": 4, "sample_every_n_frames": 1, "resolution": 8, "image_channels": 3, "window_stride": 2}


def write(folder, codes, n_codes=50, shard_bytes=100, vqgan="abcdef", split="train"):
    """Clips of codes, cut from videos 0, 1, 2 in turn, with as many classes."""
    index = Index(n_codes, tuple(codes.shape[1:]), vqgan, CLIP, ["x", "y", "z"], ["v0", "v1", "v2"])
    writer = CodeWriter(folder / split, index, shard_bytes)
    places = range(len(codes))
    for place in range(0, len(codes), 4):  # in batches
        part = places[place : place + 4]
        writer.add(codes[place : place + 4], [i % 3 for i in part], [2 * i for i in part], [i % 3 for i in part])
    writer.close()
    return folder


def random_codes(n=11, n_codes=50, shape=(2, 3, 3)):
    return torch.randint(n_codes, (n, *shape), generator=torch.Generator().manual_seed(0))


def config_of(folder, **settings):
    return DataConfig(**{"data_path": str(folder), "vtokens": True, "batch_size": 4, "num_workers": 0, **settings})
