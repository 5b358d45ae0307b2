"""Transformers whose weights are spread over processes: the same training, checkpoints in parts, one file of them."""

import process_parts
import pytest
import torch
from test_processes import losses

from tats import checkpoint
from tats.convert import ConvertConfig, convert
from tats.ema import KEY
from tats.flags import UserError
from tats.shards import PARTS, check, rows_of, whole

pytestmark = pytest.mark.timeout(4000)  # several processes on a machine that may be busy

MORE = {"ema_decay": 0.9, "gradient_clip_val": 0.05, "accumulate_grad_batches": 2}


def trained(root, strategy, *parts, batch=1):
    """The run of a small transformer in `parts`: (processes, step until which they train)."""
    for size, steps in parts:
        args = ("gpt", str(root), 6 * batch // size, steps, {"strategy": strategy, **MORE}, {})
        process_parts.run(size, process_parts.train, *args, folder=root / f"{size}_{steps}")
    return root / "version_0"


def test_sharded_training_is_training_and_goes_on_in_another_number_of_processes(tmp_path):
    alone = trained(tmp_path / "alone", "auto", (1, 4))
    sharded = trained(tmp_path / "sharded", "fsdp", (2, 2), (3, 4))
    assert losses(sharded, "train/loss") == pytest.approx(losses(alone, "train/loss"), abs=1e-5)
    paths = [run / "checkpoints" / "last.ckpt" for run in (alone, sharded)]
    one, parts = (torch.load(path, weights_only=True) for path in paths)
    check(paths[1], parts)
    both = whole(paths[1], parts)
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(both["state_dict"][name], value, rtol=1e-5, atol=1e-6, msg=name)
        average = both[KEY]["state_dict"][name]
        torch.testing.assert_close(average, one[KEY]["state_dict"][name], rtol=1e-5, atol=1e-6, msg=name)
    assert len(parts[PARTS]) == 3
    named = {name for path in paths[1].parent.glob("*.ckpt") for name in torch.load(path, weights_only=True)[PARTS]}
    assert named == {path.name for path in paths[1].parent.glob("*.shard")}  # nothing is left over

    (folder, *_) = convert(ConvertConfig(str(paths[1]), str(tmp_path / "converted")))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    gpts = [checkpoint.load_transformer(path) for path in (folder, paths[1], paths[0])]
    for a, b, c in zip(*(gpt.parameters() for gpt in gpts), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(b, c, rtol=1e-5, atol=1e-6)

    part = paths[1].parent / parts[PARTS][1]
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged: its part step=4"):
        check(paths[1], parts)
    part.unlink()
    with pytest.raises(UserError, match=r"its part .* is missing"):
        checkpoint.load_transformer(paths[1])


def test_rows_are_cut_as_torch_cuts_them():
    for length in (1, 2, 5, 7, 12):
        for size in (1, 2, 3, 4):
            cut = [len(piece) for piece in torch.arange(length).chunk(size)]
            mine = [rows_of(length, rank, size) for rank in range(size)]
            assert [end - first for first, end in mine] == cut + [0] * (size - len(cut))
