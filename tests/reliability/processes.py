"""One, two and three processes that train on the same batches, beside each other: how far apart they come.

    python tests/reliability/processes.py

A VQGAN with group normalisation, one with batch normalisation over all processes and both critics, and a transformer;
in float32, the second one in float64 as well. Sums over a batch that is shared out are rounded otherwise. What becomes
of that in float32 is only told for the VQGAN with critics: Adam makes a step out of every gradient, also of those that
are nothing but rounding, and a vector between two codes takes the other one. Everything else must stay within 1e-5.
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import process_parts  # noqa: E402
import torch  # noqa: E402
from records import Record  # noqa: E402

CLIPS = 6  # of a step, over all processes
STEPS = 6
BOUND = 1e-5
KINDS = {"vqgan": "VQGAN, group normalisation", "gpt": "transformer", "sync": "VQGAN, --sync_batchnorm, critics"}
TRAININGS = (("vqgan", 32), ("gpt", 32), ("sync", 64), ("sync", 32))  # what is trained, bits of its numbers
TOLD = ("sync", 32)  # not judged


@dataclass
class Trained:
    """What a training has led to: its loss in every step, and its last weights."""

    losses: list[float]
    weights: dict[str, torch.Tensor]

    def codebook(self) -> torch.Tensor:
        """The codes; of a transformer, their embeddings."""
        return next(value for name, value in self.weights.items() if name.endswith(("embeddings", "tok_emb.weight")))


def train(kind: str, bits: int, processes: int, folder: Path) -> Trained:
    """Train in so many processes, and read what they have written."""
    args = (kind, str(folder), CLIPS // processes, STEPS, {"precision": bits}, {})
    process_parts.run(processes, process_parts.train, *args, folder=folder.with_suffix(".errors"))
    run, name = folder / "version_0", "train/loss" if kind == "gpt" else "train/recon_loss"
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return Trained(losses, torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


def compare(kind: str, bits: int, alone: Trained, others: Trained, processes: int) -> list[str | int | float]:
    """A row of the table: how far apart two trainings are."""
    apart = [abs(one - other) for one, other in zip(alone.losses, others.losses, strict=True)]
    steps = next((step for step, each in enumerate(apart) if each > BOUND), STEPS)
    codes = float((alone.codebook().double() - others.codebook().double()).abs().max())
    return [KINDS[kind], f"float{bits}", processes, max(apart), steps, codes]


def main() -> int:
    """All of them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the counts into a file, as JSON")
    args = parser.parse_args()
    from benchmarks import tables

    rows, record = [], Record()
    for kind, bits in TRAININGS:
        with tempfile.TemporaryDirectory() as name:
            found = {size: train(kind, bits, size, Path(name) / str(size)) for size in (1, 2, 3)}
        for size in (2, 3):
            row = compare(kind, bits, found[1], found[size], size)
            fine = row[4] == STEPS and float(row[5]) <= BOUND
            told = "" if fine or (kind, bits) == TOLD else f"{row[0]} in {size} processes: {row[3]:.1e}, {row[5]:.1e}"
            record.add({"trainings compared": 1}, [told] if told else [])
            rows.append(row)
            print(*row, sep=" | ", flush=True)
    columns = ["trained", "numbers", "processes", "losses apart, at most", f"steps within {BOUND:g}", "codes apart"]
    note = f"{STEPS} steps with {CLIPS} clips each, beside one process; codes: vectors of the codebook, or of its ids."
    command = f"python {Path(*Path(__file__).parts[-3:])}"
    tables.store("reliability_processes", columns, rows, command=command, note=note)
    record.write(args.record)
    return int(bool(record.wrong))


if __name__ == "__main__":
    sys.exit(main())
