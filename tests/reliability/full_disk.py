"""A disk that fills up while a run trains on it: its checkpoints stay, and with room again the run goes on.

    python tests/reliability/full_disk.py

Mounts a small file system in memory, which not every user may do; without one it says so. Exits with 1 where a
checkpoint was lost.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from killed_training import COMMON, TRAINERS, Plan, load, newest, run, save_data, words  # noqa: E402
from records import Record  # noqa: E402

SIZE = 64 << 20  # bytes of the disk
ROOM = 96 << 10  # bytes that are left: enough for the settings and the log, not for a checkpoint


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A file system of `size` bytes in memory; None where this user may not mount one."""
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name) / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        try:
            yield disk if mounted else None
        finally:
            if mounted:  # lazily: workers of runs that have ended may still be about to end
                subprocess.run(["umount", "-l", str(disk)], check=True)


def full_disk(script: str, data: Path) -> tuple[str, list[str]]:
    """Fill a small disk while a run trains on it: the checkpoints that are there stay whole, and the run says so. With
    room again it goes on and ends. Returns what came of it, and what was wrong."""
    from tats.checkpoints import read_step

    settings = {**COMMON, **TRAINERS[script], "data_path": data, "max_steps": 4}
    with small_disk(SIZE) as disk:
        if disk is None:
            return "no disk could be mounted", []
        folder = disk  # what the runs say is written beside it
        if run([script, *words(settings)], folder, Plan())[0] != "ended":
            return "failed", ["the run on a small disk failed"]
        last, wrong = newest(folder) / "checkpoints" / "last.ckpt", []
        before, fill = last.read_bytes(), disk / "fill"
        with fill.open("wb", buffering=0) as file:
            while fill_up(file):
                pass
            file.truncate(max(0, file.tell() - ROOM))
        how = run([script, *words({**settings, "max_steps": 8})], folder, Plan())[0]
        log = folder.with_suffix(".log").read_text()
        if how != "failed" or "No space left on device; earlier checkpoints are untouched" not in log:
            wrong.append("a full disk was not named")
        if last.read_bytes() != before or any(last.parent.glob("*.partial")):
            wrong.append("a full disk touched a checkpoint")
        fill.unlink()
        if run([script, *words({**settings, "max_steps": 8})], folder, Plan())[0] != "ended" or read_step(last) != 8:
            wrong.append("a run did not go on once there was room again")
        return "filled", wrong


def fill_up(file: Any) -> bool:
    """Write a little; False when there is no room left."""
    try:
        return bool(file.write(bytes(4096)))
    except OSError:
        return False


def main() -> int:
    """Fill the disk; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the counts into a file, as JSON")
    args = parser.parse_args()
    load()
    from benchmarks import tables

    with tempfile.TemporaryDirectory() as name:
        data = save_data(Path(name))
        found = {script: full_disk(script, data[script]) for script in TRAINERS}
    for script, (outcome, wrong) in found.items():
        print(f"{script}: {outcome}{'; ' + ', '.join(wrong) if wrong else ''}")
    tables.store(
        "reliability_full_disk",
        ["trainer", "disk", "checkpoints lost, or not named"],
        [[script, outcome, len(wrong)] for script, (outcome, wrong) in found.items()],
        command=f"python {Path(*Path(__file__).parts[-3:])}",
        note=f"A file system of {SIZE >> 20} MiB in memory, filled while a run writes its checkpoints.",
        details={script: wrong for script, (_, wrong) in found.items()},
    )
    record = Record()
    for script, (outcome, wrong) in found.items():
        record.add({"disks filled": int(outcome == "filled")}, [f"{script}: {each}" for each in wrong])
    record.write(args.record)
    return int(bool(record.wrong))


if __name__ == "__main__":
    sys.exit(main())
