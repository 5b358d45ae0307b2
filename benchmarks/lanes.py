"""Runs the commands of a recipe: stages one after the other, the lanes of a stage side by side, the steps of a lane in
turn. What has run to its end does not run again; what was stopped goes on with the same command.

    ledger = Ledger(out)
    for lanes in stages:
        run_stage(lanes, ledger, out, steps)
    ledger.minutes(stages)

What the commands print goes to files in out/logs.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tats.flags import UserError

ROOT = Path(__file__).resolve().parent.parent
TELL_EVERY = 20  # seconds between lines of progress


@dataclass(frozen=True)
class Step:
    """One command: its short name, what it does in words, the command as one types it, the steps whose results it
    reads. It writes the folder of its name."""

    name: str
    title: str
    text: str
    reads: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """The words of the process that runs it."""
        words = shlex.split(self.text)
        return [sys.executable, *(["-m", "tats", *words[1:]] if words[0] == "tats" else words[1:])]


Stage = list[list[Step]]
"""Lanes that run side by side."""


def typed(step: Step) -> str:
    """The command on one line."""
    return " ".join(step.text.split())


@dataclass
class Entry:
    """What is known of a step: its command, whether it is done, and what all its runs took."""

    command: str
    done: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0


class Ledger:
    """The entries of all steps, in steps.json, written whenever one begins or ends."""

    def __init__(self, folder: Path):
        self.path = folder / "steps.json"
        self.entries: dict[str, Entry] = {}
        if self.path.exists():
            try:
                stored = json.loads(self.path.read_text(encoding="utf-8"))
                self.entries = {name: Entry(**entry) for name, entry in stored.items()}
            except (ValueError, AttributeError, TypeError):
                raise UserError(f"{self.path} is damaged: remove {folder} and start over") from None

    def done(self, step: Step) -> bool:
        """Whether this very command has run to its end."""
        entry = self.entries.get(step.name)
        return entry is not None and entry.done and entry.command == typed(step)

    def begin(self, step: Step, out: Path, steps: Sequence[Step]) -> None:
        """A run of a step starts. Unless it goes on with the same command, it starts over, and so must every one of
        `steps` that reads its results."""
        entry = self.entries.get(step.name)
        if entry is not None and not entry.done and entry.command == typed(step):
            return
        stale = {step.name}
        while more := {each.name for each in steps if stale & set(each.reads)} - stale:
            stale |= more
        for name in stale:
            shutil.rmtree(out / name, ignore_errors=True)
            self.entries.pop(name, None)
        self.entries[step.name] = Entry(typed(step))
        self.write()

    def end(self, step: Step, seconds: float, cpu_seconds: float, peak_mib: float, done: bool) -> None:
        """A run of a step has ended."""
        entry = self.entries[step.name]
        entry.done = done
        entry.seconds = round(entry.seconds + seconds, 1)
        entry.cpu_seconds = round(entry.cpu_seconds + cpu_seconds, 1)
        entry.peak_mib = max(entry.peak_mib, round(peak_mib, 1))
        self.write()

    def write(self) -> None:
        """Store everything."""
        partial = self.path.with_name(self.path.name + ".part")
        entries = {name: asdict(entry) for name, entry in self.entries.items()}
        partial.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def minutes(self, stages: Sequence[Stage]) -> list[float]:
        """What each stage took: the time of the lane that took longest."""
        lanes = [[sum(self.entries[step.name].seconds for step in lane) for lane in stage] for stage in stages]
        return [max(times) / 60 for times in lanes]


class Running:
    """A step under way: a process of its own, its output in a file."""

    def __init__(self, step: Step, out: Path, threads: int):
        self.step, self.log, self.began = step, out / "logs" / f"{step.name}.log", time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.log.open("ab") as log:
            env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
            self.process = subprocess.Popen(
                step.command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT, start_new_session=True
            )  # a session of its own: Ctrl-C reaches it once, by `stop`

    def ended(self, ledger: Ledger) -> bool:
        """Whether it has ended; then its time, processor time and peak of memory are noted.

        Raises:
            UserError: it failed.
        """
        code = self._reap(ledger, os.WNOHANG)
        if code is None:
            return False
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise UserError(f"{self.step.name} ended with code {code}; the end of {self.log}:\n{self.said(800)}")
        return True

    def said(self, count: int = 100) -> str:
        """The last characters of its output; of a progress bar, the last state."""
        with self.log.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - 2000, 0))
            text = log.read().decode("utf-8", "replace")
        return re.split(r"[\r\n]+", text.strip())[-1][-count:] if count <= 100 else text.strip()[-count:]

    def stop(self, ledger: Ledger) -> None:
        """Ask it to stop as Ctrl-C does, and wait: trainings and samplers keep what they have."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        self._reap(ledger, 0)

    def _reap(self, ledger: Ledger, options: int) -> int | None:
        """Its exit code once it has ended."""
        pid, status, usage = os.wait4(self.process.pid, options)
        if not pid:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        used = usage.ru_utime + usage.ru_stime
        done = self.process.returncode == 0
        ledger.end(self.step, time.monotonic() - self.began, used, usage.ru_maxrss / 1024, done)
        return self.process.returncode


def run_stage(lanes: Stage, ledger: Ledger, out: Path, steps: Sequence[Step]) -> None:
    """Run the lanes of a stage side by side, with as many threads each as there are processor cores for it; `steps`
    are those of all stages."""
    threads = max((os.cpu_count() or 1) // len(lanes), 1)
    waiting = [list(lane) for lane in lanes]
    running: dict[int, Running] = {}
    told = time.monotonic()
    try:
        while any(waiting) or running:
            for number, lane in enumerate(waiting):
                while lane and number not in running:
                    step = lane.pop(0)
                    if ledger.done(step) and (out / step.name).exists():
                        tell(f"{step.title}: there already")
                        continue
                    tell(f"{step.title}\n    {typed(step)}")
                    ledger.begin(step, out, steps)
                    running[number] = Running(step, out, threads)
            time.sleep(0.2)
            running = {number: job for number, job in running.items() if not job.ended(ledger)}
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                for job in running.values():
                    tell(f"  {job.step.name}, {(told - job.began) / 60:.1f} min: {job.said()}")
    finally:
        for job in running.values():
            if job.process.returncode is None:
                job.stop(ledger)


def tell(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
