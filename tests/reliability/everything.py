"""Everything that docs/reliability.md promises, proved and counted.

    make reliability                # an hour on two cores
    make reliability MINUTES=10     # fewer kills, fewer broken files; the counts say so

Runs are killed and resumed, a full disk is met, processes are compared with one process, workers that load data are
killed, and with the time that is left the readers of every outside format are fed with broken files. Counts go to
benchmarks/results, from which the tables of the page are made. Exits with 1 where a promise was broken.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

FULL = 20  # kills of each kind of run when there is an hour
LEAST_FUZZ = 60  # seconds for broken files, however long the rest has taken
TESTS = {  # promise -> files of tests, and what of them
    "one, two and three processes are compared": (["tests/test_processes.py", "tests/vqgan/test_processes.py",
                                                   "tests/metrics/test_processes.py", "tests/test_sharded.py",
                                                   "tests/test_shared_work.py"], ""),
    "workers that load clips are killed": (["tests/data/test_killed_workers.py"], ""),
    "files that would run code when loaded": (["tests/test_pickles.py"], ""),
    "hostile and broken files, kind by kind": (["tests/test_hostile.py", "tests/test_properties.py"], ""),
}  # fmt: skip


@dataclass
class Counted:
    """What became of one promise: how often it was tried, how often it was broken."""

    promise: str
    command: str
    tried: str
    broken: int
    minutes: float


def said_by(command: list[str]) -> tuple[str, int, float]:
    """What a command prints (also shown), its exit code and its minutes."""
    print(f"== {' '.join(command)}", flush=True)
    begin, lines = time.monotonic(), []
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), process.returncode, (time.monotonic() - begin) / 60


def kills(promise: str, script: str, count: int) -> Counted:
    """Run a script that kills runs and compares how they end."""
    command = [f"tests/reliability/{script}", "--kills", str(count)]
    text, code, minutes = said_by(command)
    killed = len(re.findall(r": (?:killed|stopped)\b", text))
    broken = sum(1 for line in text.splitlines() if "differs" in line)
    tried = f"{killed} kills, {len(re.findall(r'equal$', text, re.MULTILINE))} ends compared"
    return Counted(promise, f"python {' '.join(command)}", tried, max(broken, int(code != 0)), minutes)


def full_disk() -> Counted | None:
    """Run the script that fills disks, where there is one that can."""
    if not (ROOT / "tests" / "reliability" / "full_disk.py").exists():
        return None
    command = ["tests/reliability/full_disk.py"]
    text, code, minutes = said_by(command)
    tried = f"{len(text.strip().splitlines())} runs"
    return Counted(
        "a disk that is full leaves the old checkpoints", f"python {command[0]}", tried, int(code != 0), minutes
    )


def tests(promise: str, files: list[str], words: str) -> Counted:
    """Run tests; each is one try."""
    there = [file for file in files if (ROOT / file).exists()]
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        more = ["-k", words] if words else []
        _, code, minutes = said_by(["-m", "pytest", *there, *more, f"--junitxml={report}"])
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
        run, bad = int(suite.get("tests", "0")), int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    command = f"python -m pytest {' '.join([*there, *more])}"
    return Counted(promise, command, f"{run - int(suite.get('skipped', '0'))} tests", max(bad, int(code != 0)), minutes)


def main() -> int:
    """All of it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="for everything together, about")
    args = parser.parse_args()
    begin, count = time.monotonic(), max(2, min(FULL, round(FULL * args.minutes / 60)))
    found = [
        kills("sampling that is killed ends with the same files", "killed_samplers.py", count),
        kills("training that is killed ends with the same tensors", "killed_training.py", count),
        *filter(None, [full_disk()]),
        *(tests(promise, files, words) for promise, (files, words) in TESTS.items()),
    ]
    left = max(args.minutes * 60 - (time.monotonic() - begin), LEAST_FUZZ)
    command = f"make reliability MINUTES={args.minutes:g}"
    fuzz = ["tests/fuzz/run.py", "--seconds", f"{left:.0f}", "--store", command]
    text, code, minutes = said_by(fuzz)
    summary = re.search(r"^(\d+) inputs, (\d+) bugs$", text, re.MULTILINE)
    inputs, bugs = (int(number) for number in summary.groups()) if summary else (0, 1)
    shown = f"make fuzz FUZZ_SECONDS={left:.0f}"
    found.append(
        Counted(
            "broken files end in success or a reason", shown, f"{inputs} inputs", max(bugs, int(code != 0)), minutes
        )
    )
    import tables

    rows = [[each.promise, f"`{each.command}`", each.tried, each.broken, round(each.minutes, 1)] for each in found]
    note = f"{(time.monotonic() - begin) / 60:.0f} minutes in all"
    columns = ["what is done", "command", "tried", "promises broken", "minutes"]
    tables.store("reliability", columns, rows, command=command, note=note)
    for row in rows:
        print(f"{row[0]}: {row[2]}, {row[3]} broken, {row[4]} minutes")
    return int(any(each.broken for each in found))


if __name__ == "__main__":
    sys.exit(main())
