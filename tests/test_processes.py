"""Training in one, two and three processes is the same training; a run goes on in another number of them."""

import csv
from pathlib import Path

import process_parts
import pytest
import torch

pytestmark = pytest.mark.timeout(4000)  # several processes on a machine that may be busy

CLIPS = 6  # of a global batch
STEPS = 6


def losses(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def trained(root: Path, kind: str, *parts: tuple[int, int], **more) -> tuple[dict, Path]:
    """The last checkpoint of a run in `parts`: (processes, step until which they train)."""
    for size, steps in parts:
        args = (kind, str(root), CLIPS // size, steps, more, {})
        process_parts.run(size, process_parts.train, *args, folder=root / f"{size}_{steps}")
    run = root / "version_0"
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True), run


def compare(found: dict, expected: dict) -> None:
    """Weights, and of VQGANs the codebook with its averages."""
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["vqgan", "gpt"])
def test_a_run_goes_on_in_the_middle_of_an_epoch_with_batches_that_are_accumulated(tmp_path, kind):
    """From the start, only the transformer would: a codebook starts from the first batch, not from the first step."""
    alone, _ = trained(tmp_path / "1", kind, (1, STEPS))
    root = tmp_path / "2"
    trained(root, kind, (1, 3))
    args = (kind, str(root), 1, STEPS, {"accumulate_grad_batches": 3}, {})
    process_parts.run(2, process_parts.train, *args, folder=tmp_path / "accumulated")
    compare(torch.load(root / "version_0" / "checkpoints" / "last.ckpt", weights_only=True), alone)


@pytest.mark.parametrize("kind", ["vqgan", "sync", "gpt"])
def test_one_two_and_three_processes_and_changes_between_them_train_alike(tmp_path, kind):
    # critics and batch normalisation amplify rounding, so that float32 would compare noise after a few steps
    flags = {"precision": 64} if kind == "sync" else {}
    alone, run = trained(tmp_path / "1", kind, (1, STEPS), **flags)
    loss = "train/loss" if kind == "gpt" else "train/recon_loss"
    expected = losses(run, loss)
    assert len(set(expected)) == STEPS
    for parts in ([(2, STEPS)], [(3, 3), (2, 4), (1, STEPS)]):
        root = tmp_path / "-".join(f"{size}_{steps}" for size, steps in parts)
        found, run = trained(root, kind, *parts, **flags)
        assert losses(run, loss) == pytest.approx(expected, abs=1e-5)
        for name in ("train/perplexity", "train/commitment_loss", "train/codes_used", "train/discloss"):
            assert losses(run, name) == pytest.approx(losses(tmp_path / "1" / "version_0", name), abs=1e-4), name
        compare(found, alone)
