"""Feeds broken files to the readers of every format that comes from outside.

    make fuzz FUZZ_SECONDS=300                             # five minutes, shared out among the formats
    python tests/fuzz/run.py --seconds 60 --format mp4     # formats whose name holds a text
    python tests/fuzz/run.py --format mp4 --input 17       # one input again; --keep FOLDER leaves its files there

Each input is a valid file with something changed, known by its number. It must end in success or in a `UserError`: a
hang, a crash, another exception or memory beyond the limit is a bug, printed with the command that repeats it. Readers
run in processes of their own, which are killed when they take too long. Exits with 1 where something was found, or
where fewer than 30 % of the inputs of a format got past the first parse.
"""

import argparse
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.all import FORMATS  # noqa: E402

FINE = ("read", "refused")
WRONG = ("hang", "crash", "traceback", "memory", "unmade")
PARSED = 0.3  # share of the inputs of a format that must get past the first parse
CPU_SECONDS = 30  # of one input; they take milliseconds
WALL_SECONDS = 180  # a deadlock uses no processor; generous, since the machine may be busy
ROOM_MB = 3000  # addresses beyond what the libraries take
GROWTH_MB = 600  # resident memory that one input of some kilobytes may need
TRACED = 3  # one input in so many is run with its lines counted, which is slow


@dataclass
class Found:
    """What the inputs of one format have led to."""

    name: str
    counts: Counter = field(default_factory=Counter)
    parsed: int = 0
    grown: int = 0
    lines: set[tuple[str, int]] = field(default_factory=set)
    failures: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many were tried."""
        return sum(self.counts.values())

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """One more input."""
        how = answer["how"] if answer["grown"] <= GROWTH_MB else "memory"
        self.counts[how] += 1
        self.parsed += answer["parsed"]
        self.grown = max(self.grown, answer["grown"])
        self.lines |= {(file, line) for file, line in answer["lines"]}
        if how not in FINE:
            self.failures.append((number, how, answer["said"] or f"{answer['grown']} MB more"))


class Child:
    """The process that reads; it is started again after it had to be killed."""

    def __init__(self, seeds: Path):
        self.seeds = seeds
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready; nothing happens when it is there."""
        if self.process is not None:
            return
        command = [sys.executable, str(Path(__file__).with_name("child.py")), str(self.seeds), str(ROOM_MB)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        if self.process.stdout is None or self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the process that reads files has not started")

    def ask(self, place: int, number: int, trace: bool) -> dict[str, Any]:
        """What an input leads to."""
        self.start()
        child = self.process
        assert child is not None and child.stdin is not None and child.stdout is not None
        child.stdin.write(f"{place} {number} {int(trace)}\n".encode())
        child.stdin.flush()
        line = self._wait(child)
        if line:
            return json.loads(line)
        how = "hang" if child.poll() is None else "crash"
        self.end()
        said = f"signal {-child.returncode}" if how == "crash" else f"no end within {CPU_SECONDS} s of processor time"
        return {"how": how, "said": said, "parsed": True, "grown": 0, "lines": []}

    def _wait(self, child: subprocess.Popen[bytes]) -> bytes:
        """Its answer; nothing when it has died or takes too long."""
        assert child.stdout is not None
        begin, used = time.monotonic(), cpu_seconds(child.pid)
        while time.monotonic() - begin < WALL_SECONDS and cpu_seconds(child.pid) - used < CPU_SECONDS:
            if select.select([child.stdout], [], [], 0.5)[0]:
                line = child.stdout.readline()
                if not line:
                    child.wait()
                return line
        return b""

    def end(self) -> None:
        """Kill it, if it is there."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used."""
    try:
        parts = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(place: int, child: Child, first: int, *, inputs: int | None = None, seconds: float = 0.0) -> Found:
    """Try inputs of one format, so many or for so long (at least one)."""
    found = Found(FORMATS[place].name)
    try:
        child.start()
        begin, number = time.monotonic(), first
        while number - first < inputs if inputs is not None else time.monotonic() - begin < seconds or number == first:
            found.add(number, child.ask(place, number, (number - first) % TRACED == 0))
            number += 1
    finally:
        child.end()
    return found


def write_seeds(folder: Path, places: list[int]) -> None:
    """The valid files of each format, in a process of its own: encoders leave threads behind."""
    code = "import sys; sys.path[:0] = sys.argv[1:3]; from fuzz.run import seed; seed(sys.argv[3], sys.argv[4:])"
    words = [str(ROOT), str(ROOT / "tests"), str(folder), *map(str, places)]
    subprocess.run([sys.executable, "-c", code, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def seed(folder: str, places: list[str]) -> None:
    """The valid files of some formats; each is read, since a format whose own files are refused tests nothing."""
    for place in map(int, places):
        target = Path(folder) / str(place)
        target.mkdir(parents=True)
        FORMATS[place].seed(target)
        FORMATS[place].first(target)
        FORMATS[place].read(target)


def executable(module: str) -> set[int]:
    """The lines of the functions of a file that can run."""
    path = ROOT / module
    waiting, lines = [compile(path.read_text(encoding="utf-8"), str(path), "exec")], set()
    while waiting:
        code = waiting.pop()
        inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
        waiting += inner
        if code.co_flags & 0x2:  # inside of a function: a module's own lines run when it is imported
            lines |= {line for *_, line in code.co_lines() if line and line != code.co_firstlineno}
    return lines


def covered(found: Found) -> list[str]:
    """`file: lines of lines` for every file of the format's reader."""
    modules = next(form.modules for form in FORMATS if form.name == found.name)
    said = []
    for module in modules:
        possible = executable(module)
        said.append(f"{module} {len({n for file, n in found.lines if file == module} & possible)} of {len(possible)}")
    return said


def show(found: Found) -> list[str]:
    """What is printed of a format; the last lines are the failures."""
    ways = ", ".join(f"{found.counts[how]} {how}" for how in (*FINE, *WRONG) if found.counts[how] or how in FINE)
    share = found.parsed / found.inputs
    said = [
        f"{found.name}: {found.inputs} inputs, {share:.0%} past the first parse; {ways}; {found.grown} MB at most",
        f"    lines: {'; '.join(covered(found))}",
    ]
    if share < PARSED and found.inputs >= 50:
        said.append(f"    TOO FEW past the first parse: {share:.0%}, wanted {PARSED:.0%}")
    for number, how, text in distinct(found.failures)[:8]:
        said.append(f"    {how.upper()}: python tests/fuzz/run.py --format '{found.name}' --input {number}")
        said += [f"        {line}" for line in text.strip().splitlines()[-8:]]
    return said


def distinct(failures: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """The first failure of each kind: tracebacks that end alike are one."""
    kinds: dict[str, tuple[int, str, str]] = {}
    for number, how, text in failures:
        kinds.setdefault(" ".join([how, *text.strip().splitlines()[-3:-1]]), (number, how, text))
    return list(kinds.values())


def told(number: int, how: str, text: str) -> str:
    """A failure as it is stored: which input, and the last line of what was said, without the folders of a machine."""
    return f"input {number}, {how}: " + re.sub(r"/(?:[^\s/'\"]+/)+", "", text.strip().splitlines()[-1])


def fine(found: Found) -> bool:
    """Whether nothing was found, and enough got past the first parse."""
    return not found.failures and (found.inputs < 50 or found.parsed >= PARSED * found.inputs)


def store(results: list[Found], command: str) -> None:
    """The counts as a table of the documentation."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import tables

    columns = ["format", "inputs", "past the first parse", "read", "refused", *WRONG, "memory, MB at most"]
    rows = [
        [
            found.name,
            found.inputs,
            f"{found.parsed / found.inputs:.0%}",
            *(found.counts[how] for how in (*FINE, *WRONG)),
            found.grown,
        ]
        for found in results
    ]
    total = [sum(row[k] for row in rows) for k in (1, *range(3, 5 + len(WRONG)))]
    rows.append(
        ["all", total[0], f"{sum(f.parsed for f in results) / total[0]:.0%}", *total[1:], max(f.grown for f in results)]
    )
    note = (
        f"Time limit {CPU_SECONDS} s of processor time, memory limit {GROWTH_MB} MB beyond what the libraries take. "
        "An index or a cache that is broken is made anew, which counts as read"
    )
    details = {
        "lines": {found.name: covered(found) for found in results},
        "failures": {f.name: [told(*each) for each in f.failures] for f in results if f.failures},
    }
    tables.store("reliability_inputs", columns, rows, command=command, note=note, details=details)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="for all formats together")
    parser.add_argument("--format", default="", help="only formats whose name holds this")
    parser.add_argument("--inputs", type=int, help="so many of each format, instead of --seconds")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--input", type=int, help="only this one")
    parser.add_argument("--keep", type=Path, help="leave the files of --input in this folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--store", metavar="COMMAND", help="keep the counts for the documentation, as made by COMMAND")
    return parser.parse_args()


def main() -> int:
    """Fuzz; returns the exit code."""
    args = arguments()
    places = [place for place, form in enumerate(FORMATS) if args.format in form.name]
    if not places:
        print(f"no format holds '{args.format}': {', '.join(form.name for form in FORMATS)}", file=sys.stderr)
        return 2
    inputs, first = (1, args.input) if args.input is not None else (args.inputs, args.first)
    share = args.seconds * args.workers / len(places)
    with tempfile.TemporaryDirectory(prefix="tats-fuzz-seeds-") as name:
        write_seeds(Path(name), places)
        if args.input is not None and args.keep is not None:
            from fuzz.child import make

            make(FORMATS[places[0]], args.input, Path(name) / str(places[0]), args.keep)
        results = []
        with ThreadPoolExecutor(args.workers) as pool:
            for found in pool.map(
                lambda place: fuzz(place, Child(Path(name)), first, inputs=inputs, seconds=share), places
            ):
                print("\n".join(show(found)), flush=True)
                results.append(found)
    print(f"{sum(found.inputs for found in results)} inputs, {sum(len(f.failures) for f in results)} bugs")
    if args.store:
        store(results, args.store)
    return 0 if all(map(fine, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
