"""An epoch of codes is the same for any number of workers and processes, and after a stop in its middle.

Order and windows follow from (seed, epoch, index) alone: clips of different length, windows and crops drawn at random.
"""

import pytest
import torch

from tats.data.code_index import Index
from tats.data.code_writer import CodeWriter
from tats.data.config import DataConfig
from tats.data.module import VideoData

LENGTHS = (3, 9, 4, 6, 2, 7, 12, 5)


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    """Whole videos of different length, each latent frame with its own numbers; two are too short for a window."""
    folder = tmp_path_factory.mktemp("codes")
    clip = {"sample_every_n_frames": 1, "resolution": 16, "image_channels": 3, "latent_frames": 3}
    index = Index(65536, (1, 4, 4), "f", clip, ["a"], [f"v{number}" for number in range(len(LENGTHS))])
    writer = CodeWriter(folder / "train", index, shard_bytes=400)
    for video, length in enumerate(LENGTHS):
        frames = (torch.arange(16).view(4, 4) + 16 * frame + 1000 * video for frame in range(length))
        writer.add_video(frames, video, 0)
    writer.close()
    return folder


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr("tats.data.loader.processors", lambda: 4)


def epoch(codes, workers=0, world=1, epochs=(0, 1), state=None, until=None, batch_size=6):
    """Index and codes of every clip of some epochs, in the order of the global batches; and the state after `until`
    batches of each process."""
    parts, states = [], []
    for rank in range(world):
        config = DataConfig(data_path=str(codes), vtokens=True, batch_size=batch_size // world, spatial_length=3,
                            num_workers=workers, worker_start="fork" if workers else None)  # fmt: skip
        loader = VideoData(config, seed=3, crop_codes=True).train_loader(rank=rank, world=world)
        if state is not None:
            loader.load_state_dict(state)
        batches = []
        for _ in epochs:
            for batch in loader:
                batches.append(batch)
                if len(batches) == until:
                    break
            if len(batches) == until:
                break
        parts.append(batches)
        states.append(loader.state_dict())
    seen = []
    for batches in zip(*parts, strict=True):
        ids = [int(index) for batch in batches for index in batch["index"]]
        video = torch.cat([batch["video"] for batch in batches])
        boxes = torch.cat([batch["cbox"] for batch in batches])
        seen += [(at, window.tolist(), box.tolist()) for at, window, box in zip(ids, video, boxes)]
    return seen, states[0]


def test_the_epoch_has_every_clip_and_draws_other_windows_next_time(codes):
    seen, _ = epoch(codes)
    n = sum(length // 3 for length in LENGTHS)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert {at for at, _, _ in first} == set(range(n))
    before, after = ({at: window for at, window, _ in part} for part in (first, second))
    assert any(before[at] != after[at] for at in after)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_any_number_of_workers_brings_the_same_epoch(codes, workers):
    assert epoch(codes, workers) == epoch(codes)


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_shares_the_same_epoch(codes, world):
    assert epoch(codes, world=world)[0] == epoch(codes)[0]


@pytest.mark.parametrize("world, other", [(1, 1), (1, 3), (3, 2)])
def test_an_epoch_that_was_stopped_goes_on_with_the_next_clip_on_any_number_of_processes(codes, world, other):
    whole, _ = epoch(codes)
    begun, state = epoch(codes, world=world, until=2)
    rest, _ = epoch(codes, world=other, state=state)
    assert begun + rest == whole
