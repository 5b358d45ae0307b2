"""What `make demo` runs: both models trained on the embedded dataset, clips sampled and judged, a page of it all.

    python -m tats.demo                    # about a quarter of an hour on 2 cores; runs/demo/index.html
    python -m tats.demo --size tiny        # at most three minutes: shows that everything works, not how well

Each step is a command that anybody can type; the page lists them. A second call reuses what is there: a step whose
command and whose predecessors have not changed is not run again, and a training that was stopped goes on.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tats import flags
from tats.demo_config import DemoConfig, Step, steps
from tats.flags import UserError

ROOT = Path(__file__).resolve().parent.parent


class Diary:
    """Which steps are done, with what command and in how many seconds; kept in steps.json after each of them."""

    def __init__(self, folder: Path):
        self.path = folder / "steps.json"
        self.entries: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                self.entries = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError:
                raise UserError(f"{self.path} is damaged: start over with --fresh (make demo FRESH=1)") from None

    def done(self, step: Step) -> bool:
        """Whether this very command has run to its end."""
        entry = self.entries.get(step.name, {})
        return bool(entry.get("done")) and entry.get("command") == step.text()

    def note(self, step: Step, seconds: float, done: bool) -> None:
        """Add the seconds of one run of a step; stopped runs of the same command count too."""
        entry = self.entries.get(step.name, {})
        before = entry.get("seconds", 0.0) if entry.get("command") == step.text() and not entry.get("done") else 0.0
        self.entries[step.name] = {"command": step.text(), "seconds": round(before + seconds, 1), "done": done}
        partial = self.path.with_name(self.path.name + ".part")
        partial.write_text(json.dumps(self.entries, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def forget(self, step: Step) -> None:
        """A step before this one has run anew: so must this one."""
        self.entries.pop(step.name, None)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of every step."""
        return {name: entry["seconds"] for name, entry in self.entries.items()}


def run_step(step: Step, number: int, total: int, diary: Diary) -> None:
    """Run one command, its progress on the terminal.

    Raises:
        UserError: it failed; its own message stands above.
        KeyboardInterrupt: it was stopped.
    """
    print(f"\n[{number}/{total}] {step.title}\n      {step.text()}", file=sys.stderr, flush=True)
    began = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    code, finished = 1, False
    try:
        code = subprocess.run(step.command(), check=False, env={**os.environ, "PYTHONPATH": path}).returncode
        finished = code == 0
    finally:
        diary.note(step, time.monotonic() - began, finished)
    if code in (130, -2):
        raise KeyboardInterrupt
    if code:
        raise UserError(f"step {number} of {total} ({step.title}) ended with code {code}: its message stands above")


def start_over(out: Path, removed: Sequence[str]) -> None:
    """Remove what earlier calls made, and nothing else."""
    for name in removed:
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the demo ran on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def run(config: DemoConfig) -> Path:
    """Run what is missing; returns the path of the page."""
    out = Path(config.out)
    listed = steps(config)
    begun = time.monotonic()
    if config.fresh:
        start_over(out, [*(step.makes for step in listed), "steps.json", "demo.json", "index.html"])
    out.mkdir(parents=True, exist_ok=True)
    diary = Diary(out)
    total, again = len(listed) + 1, False
    for number, step in enumerate(listed, 1):
        if again:
            diary.forget(step)
        if diary.done(step) and (out / step.makes).exists():
            print(f"[{number}/{total}] {step.title}: there already", file=sys.stderr)
            continue
        entry = diary.entries.get(step.name)
        if again or (entry is not None and entry["command"] != step.text()):
            start_over(out, [step.makes])  # made by another command, or from what has changed since
        run_step(step, number, total, diary)
        again = True
    from tats.demo_page import judge_demo, write_page

    print(f"\n[{total}/{total}] judge and write the page", file=sys.stderr, flush=True)
    began = time.monotonic()
    found = judge_demo(config)
    seconds = {**diary.seconds, "judge": round(time.monotonic() - began, 1)}
    result = {
        "size": config.size,
        "machine": machine(),
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
        "commands": [step.text() for step in listed],
        **found.numbers,
    }
    (out / "demo.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page = write_page(config, found, result)
    print(f"done in {(time.monotonic() - begun) / 60:.1f} minutes", file=sys.stderr)
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print where the page lies."""
    config = flags.parse(DemoConfig, argv, prog="python -m tats.demo")
    os.chdir(ROOT if not Path("train_vqgan.py").exists() and (ROOT / "train_vqgan.py").exists() else ".")
    if not Path("train_vqgan.py").exists():
        raise UserError("the demo runs the scripts of a checkout: clone the project and call `make demo` there")
    try:
        page = run(config)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(page)
    return 0


if __name__ == "__main__":
    flags.run(main)
