"""Which clip comes when: the same for every number of workers and processes, and after resuming."""

import multiprocessing

import numpy as np
import pytest
import torch
from films import film_folders, write_film

from tats.data.config import DataConfig
from tats.data.loader import Clips, Loader, Order, collate
from tats.data.module import VideoData
from tats.flags import UserError


class Numbers:
    """A source without files: the clip is its video and window."""

    span = 4

    def __init__(self, lengths):
        self.starts = np.array(lengths) - self.span + 1
        self.clips = np.array(lengths) // self.span

    def read(self, video, start, draw):
        return {"video": torch.tensor([video, start]), "extra": int(draw.integers(1000))}


def loader(lengths=(4, 9, 16, 5, 7), batch_size=3, seed=1, train=True, rank=0, world=1):
    clips = Clips(Numbers(lengths), seed, train)
    return Loader(clips, Order(len(clips), batch_size, seed, train, rank, world))


def content(batches):
    return [{key: value.tolist() for key, value in batch.items()} for batch in batches]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return film_folders(tmp_path_factory.mktemp("films"), {"ape": 3, "bee": 2}, 20, codec="mpeg4")


@pytest.mark.parametrize("workers, start", [(2, "fork"), (3, "spawn")])
def test_workers_bring_the_same_clips_in_the_same_order(films, workers, start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    settings = {"data_path": str(films), "sequence_length": 6, "resolution": 8, "batch_size": 4}
    alone = VideoData(DataConfig(num_workers=0, **settings), seed=5)
    several = VideoData(DataConfig(num_workers=workers, worker_start=start, **settings), seed=5)
    ours, theirs = alone.train_loader(), several.train_loader()
    for _ in range(2):  # two epochs: the workers stay
        pairs = list(zip(ours, theirs, strict=True))
        assert len(pairs) == 4
        assert all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)
    for a, b in zip(alone.test_loader(), several.test_loader(), strict=True):
        assert torch.equal(a["video"], b["video"]) and torch.equal(a["index"], b["index"])


def test_an_epoch_sees_every_clip_and_windows_and_order_change():
    epochs = loader(lengths=(8,) * 8, batch_size=4)
    first, second = content(epochs), content(epochs)
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch["index"]) == list(range(16))
    assert [batch["index"] for batch in first] != [batch["index"] for batch in second]
    starts = [
        {i: start for batch in epoch for i, (_, start) in zip(batch["index"], batch["video"])}
        for epoch in (first, second)
    ]
    assert starts[0] != starts[1]


def test_training_reaches_every_window_and_the_last_one_too():
    clips = Clips(Numbers([6]), seed=0, train=True)
    assert {clips.window((turn, 0)) for turn in range(60)} == {(0, 0), (0, 1), (0, 2)}


def test_test_clips_are_fixed_and_stand_side_by_side():
    clips = Clips(Numbers([4, 11]), seed=0, train=False)
    assert [clips.window((0, i)) for i in range(len(clips))] == [(0, 0), (1, 0), (1, 4)]
    assert content(loader(train=False, seed=1)) == content(loader(train=False, seed=1))
    batches = content(loader(lengths=(4,) * 7, train=False))
    assert [batch["index"] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_batches_are_full_even_when_clips_are_few():
    assert [len(batch["index"]) for batch in loader(lengths=(4, 5), batch_size=8)] == [8]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(world):
    whole = content(loader(lengths=(4,) * 10, batch_size=6))
    parts = [content(loader(lengths=(4,) * 10, batch_size=6 // world, rank=rank, world=world)) for rank in range(world)]
    together = [[clip for part in parts for clip in part[i]["index"]] for i in range(len(whole))]
    assert together == [batch["index"] for batch in whole]
    tests = [content(loader(lengths=(4,) * 7, train=False, rank=rank, world=world)) for rank in range(world)]
    assert len({len(part) for part in tests}) == 1
    assert {i for part in tests for batch in part for i in batch["index"]} == set(range(7))


def test_processes_that_start_after_the_loader_share_too(monkeypatch):
    late = loader(lengths=(4,) * 10, batch_size=3, rank=None, world=None)
    assert len(late) == 4
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert len(late) == 2
    assert content(late) == content(loader(lengths=(4,) * 10, batch_size=3, rank=1, world=2))


def test_a_stopped_epoch_goes_on_where_it_stopped():
    whole = loader()
    expected = content(whole) + content(whole)
    stopped = loader()
    seen = []
    for batch in stopped:
        seen += content([batch])
        if len(seen) == 2:
            state = stopped.state_dict()
            break
    assert state == {"epoch": 0, "batch": 2}
    again = loader()
    again.load_state_dict(state)
    assert seen + content(again) + content(again) == expected


def test_the_next_epoch_begins_after_the_last_batch_and_when_it_is_set():
    whole = loader()
    epochs = [content(whole) for _ in range(3)]
    assert whole.state_dict() == {"epoch": 3, "batch": 0}
    whole.set_epoch(1)
    assert content(whole) == epochs[1]
    whole.load_state_dict({"epoch": 2, "batch": 1})
    whole.set_epoch(2)  # what Lightning does when it resumes: the place is kept
    assert content(whole) == epochs[2][1:]


def test_lightning_resumes_in_the_middle_of_an_epoch(tmp_path):
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint

    class Watch(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

        def training_step(self, batch, number):
            self.seen.append(batch["index"].tolist())
            return self.weight * 0

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(steps, resume=None):
        module = Watch()
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=steps, save_top_k=-1)
        trainer = pl.Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False,
                             callbacks=[keep], enable_model_summary=False, use_distributed_sampler=False)  # fmt: skip
        trainer.fit(module, loader(lengths=(4,) * 11), ckpt_path=resume)
        return module.seen

    whole = fit(11)
    assert fit(6) + fit(11, tmp_path / "step=6.ckpt") == whole
    assert fit(4) + fit(11, tmp_path / "step=4.ckpt") == whole  # four batches are an epoch


def test_a_file_that_breaks_later_is_one_line_that_names_it(tmp_path):
    film_folders(tmp_path, {"ape": 1}, 16, codec="mpeg4")
    settings = {"data_path": str(tmp_path), "sequence_length": 8, "resolution": 8, "batch_size": 2}
    for workers in (0, 1):
        data = VideoData(DataConfig(num_workers=workers, **settings), seed=0)
        batches = data.train_loader()
        (tmp_path / "train" / "ape" / "0.mp4").write_bytes(b"gone")
        with pytest.raises(UserError, match=r"ape/0\.mp4") as raised:
            list(batches)
        assert "\n" not in str(raised.value)
        write_film(tmp_path / "train" / "ape" / "0.mp4", "mpeg4", 16)


def test_a_batch_stacks_tensors_and_lists_texts():
    clips = [{"video": torch.zeros(2), "label": 1, "text": "a"}, {"video": torch.ones(2), "label": 0, "text": "b"}]
    batch = collate(clips)
    assert batch["video"].tolist() == [[0, 0], [1, 1]] and batch["text"] == ["a", "b"]
    assert batch["label"].dtype == torch.int64 and batch["label"].tolist() == [1, 0]
