"""Everything that docs/reliability.md promises, proved and counted.

    make reliability                # an hour on two cores
    make reliability MINUTES=10     # fewer kills, fewer broken files; the counts say so

Runs are killed and resumed, a full disk is met, processes are compared with one process, workers that load data are
killed, and with the time that is left the readers of every outside format are fed with broken files. Every command
writes its counts into a file. They go to benchmarks/results, from which the tables of the page are made. Exits with 1
where a promise was broken, and goes on with the others nevertheless.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path("tests") / "reliability"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / HERE)]

from records import Record  # noqa: E402

FULL = 20  # kills of each kind of run when there is an hour
SHARES = {"killed_samplers.py": 0.12, "killed_training.py": 0.45}  # of the minutes, at most
LONGEST = 3000  # seconds of one test, on a machine that may be busy
LEAST_FUZZ = 60  # seconds for broken files, however long the rest has taken
TESTS = {
    "one, two and three processes train, encode, sample and judge alike": [
        "tests/test_processes.py", "tests/vqgan/test_processes.py", "tests/metrics/test_processes.py",
        "tests/test_sharded.py", "tests/test_shared_work.py",
    ],
    "workers that load clips are killed": ["tests/data/test_killed_workers.py"],
    "files that would run code when loaded": ["tests/test_pickles.py"],
    "hostile and broken files, kind by kind": ["tests/test_hostile.py", "tests/test_properties.py"],
}  # fmt: skip


@dataclass
class Proof:
    """A promise, the command that proves it, what this has counted and how many minutes it took."""

    promise: str
    command: str
    found: Record
    minutes: float

    def row(self) -> list[str | int | float]:
        """As it stands in the table."""
        tried = ", ".join(f"{count} {what}" for what, count in self.found.tried.items())
        return [self.promise, f"`{self.command}`", tried, len(self.found.wrong), round(self.minutes, 1)]


def run(words: list[str], **more: str) -> tuple[int, float]:
    """Run a command, which shows what it says; its exit code and its minutes. `more`: of its environment."""
    print(f"== {' '.join(words)}", flush=True)
    begin = time.monotonic()
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **more}
    code = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=False).returncode
    return code, (time.monotonic() - begin) / 60


def script(promise: str, name: str, *flags: str, unseen: tuple[str, ...] = ()) -> Proof:
    """Run a script of this folder. `unseen`: flags that the table does not show."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        code, minutes = run([str(HERE / name), *flags, *unseen, "--record", str(path)])
        found = Record.read(path)
    if code and not found.wrong:
        found.wrong.append(f"it ended with {code}")
    return Proof(promise, " ".join(["python", str(HERE / name), *flags]), found, minutes)


def tests(promise: str, files: list[str]) -> Proof:
    """Run tests; each is one try. Processes that are started to be compared are counted, too."""
    with tempfile.TemporaryDirectory() as folder:
        report, started = Path(folder) / "report.xml", Path(folder) / "started.txt"
        started.touch()
        patient = ["-o", f"timeout={LONGEST}", f"--junitxml={report}"]
        code, minutes = run(["-m", "pytest", *files, *patient], TATS_STARTED=str(started))
        groups = [int(line) for line in started.read_text().split()]
        cases = list(ElementTree.parse(report).getroot().iter("testcase")) if report.exists() else []
    said = [(case, {child.tag for child in case}) for case in cases]
    wrong = [f"{case.get('classname')}.{case.get('name')}" for case, tags in said if tags & {"failure", "error"}]
    found = Record({"tests": sum("skipped" not in tags for _, tags in said)}, wrong)
    if groups:
        found.add({"groups of processes": len(groups), "processes in them": sum(groups)}, [])
    if code and not wrong:
        found.wrong.append(f"pytest ended with {code}")
    return Proof(promise, f"python -m pytest {' '.join(files)}", found, minutes)


def broken_files(seconds: float, command: str) -> Proof:
    """Feed broken files to the readers for so long; the counts of each format become a table of their own."""
    import tables

    stored = tables.RESULTS / "reliability_inputs.json"
    before = stored.read_bytes() if stored.exists() else b""
    code, minutes = run(["tests/fuzz/run.py", "--seconds", f"{seconds:.0f}", "--store", command])
    found = Record()
    if not stored.exists() or stored.read_bytes() == before:
        found.wrong.append("it did not come to its end")
    else:
        result = json.loads(stored.read_text(encoding="utf-8"))
        failures = result["details"]["failures"]
        inputs = result["table"]["rows"][-1][1]
        wrong = [f"{name}: {line}" for name, lines in failures.items() for line in lines]
        found.add({"inputs": inputs, "formats": len(result["table"]["rows"]) - 1}, wrong)
        if code and not wrong:
            found.wrong.append(f"it ended with {code}")
    return Proof("broken files end in success or a reason", f"make fuzz FUZZ_SECONDS={seconds:.0f}", found, minutes)


def main() -> int:
    """All of it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="for everything together, about")
    args = parser.parse_args()
    begin, count = time.monotonic(), str(max(3, min(FULL, round(FULL * args.minutes / 60))))
    command = f"make reliability MINUTES={args.minutes:g}"
    kills = [
        ("sampling that is killed ends with the same files", "killed_samplers.py", []),
        ("training that is killed ends with the same tensors", "killed_training.py", ["--store", command]),
    ]
    proofs = []
    for promise, name, more in kills:
        unseen = ("--minutes", f"{SHARES[name] * args.minutes:.2f}", *more)
        proofs.append(script(promise, name, "--kills", count, unseen=unseen))
    proofs.append(script("a disk that is full leaves the old checkpoints", "full_disk.py"))
    proofs.append(script("one, two and three processes train on the same batches", "processes.py"))
    proofs += [tests(promise, files) for promise, files in TESTS.items()]
    proofs.append(broken_files(max(args.minutes * 60 - (time.monotonic() - begin), LEAST_FUZZ), command))
    store(proofs, command, (time.monotonic() - begin) / 60)
    for proof in proofs:
        print(*proof.row(), sep=" | ")
        for line in proof.found.wrong:
            print(f"    WRONG: {line}")
    return int(any(proof.found.wrong for proof in proofs))


def store(proofs: list[Proof], command: str, minutes: float) -> None:
    """Keep the counts for the documentation."""
    import tables

    columns = ["what is done", "command", "counted", "differences and failures", "minutes"]
    note = f"{minutes:.0f} minutes in all"
    details = {proof.promise: proof.found.wrong for proof in proofs}
    tables.store("reliability", columns, [proof.row() for proof in proofs], command=command, note=note, details=details)


if __name__ == "__main__":
    sys.exit(main())
