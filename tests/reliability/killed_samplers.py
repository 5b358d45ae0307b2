"""Long videos that are killed again and again end as if they had never been: same codes, same video files.

    python tests/reliability/killed_samplers.py                     # twenty kills of each sampler, at random moments
    python tests/reliability/killed_samplers.py --kills 3 --staged  # at the first record, in the middle, near the end

Prints a line per run, and exits with 1 where something differs. One process loads everything once and forks the runs.
"""

import argparse
import math
import os
import random
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from records import Record  # noqa: E402

FRAMES = 320
Moment = Callable[[Path], bool]  # kill the run that writes into this folder now


def start(script: str, flags: list[str], log: Path) -> int:
    """Run a script in a process of its own that writes what it says to a file; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = [script, *flags]
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        if code == 1:
            traceback.print_exc()
        os._exit(code)


def run(script: str, flags: list[str], folder: Path, moment: Moment | None = None) -> str:
    """Run a script to its end, or kill it when the moment has come; returns `ended`, `failed` or `killed`."""
    log = folder.with_suffix(".log")
    child = start(script, flags, log)
    while (status := os.waitpid(child, os.WNOHANG))[0] == 0:
        if moment is not None and moment(folder):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "killed"
        time.sleep(0.0005)
    if status[1]:
        print(log.read_text())
    return "failed" if status[1] else "ended"


def records(folder: Path) -> int:
    """Bytes of codes that are on disk."""
    return sum(path.stat().st_size for path in folder.glob("codes*") if path.exists())


def written(folder: Path) -> int:
    """Bytes of the latent frames in journals."""
    data = [path.read_bytes() for path in folder.glob("*.journal") if path.exists()]
    return sum(len(each) - each.index(b"\n") - 1 for each in data)


def staged(whole: int) -> list[Moment]:
    """At the first latent frame, in the middle of the codes, and when a batch is complete but not all of its files."""
    return [
        lambda folder: written(folder) > 0,
        lambda folder: written(folder) > whole // 3,
        lambda folder: any(folder.glob("codes_*.npz")),
    ]


def anywhere(draw: random.Random, there: int, whole: int) -> Moment:
    """Behind a random amount of the codes that are still missing, or a little later, when files are finished."""
    enough, later = min(there + draw.random() * whole / 4, whole), draw.random() * 0.05

    def moment(folder: Path) -> bool:
        if records(folder) < enough:
            return False
        time.sleep(later)
        return True

    return moment


def contents(folder: Path) -> dict[str, bytes]:
    """What a run has written, by the name of the file; left-overs included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def trial(script: str, models: Path, kills: int, stages: bool, seed: int, until: float = math.inf) -> Record:
    """Kill a run of a script again and again, but not after the time `until` of the monotonic clock unless it is the
    first time; returns how often, how many files were compared, and what was wrong."""
    from benchmarks.endless import flags_of

    record = Record()
    with tempfile.TemporaryDirectory() as name:
        whole, folder = Path(name) / "whole", Path(name) / "killed"
        more = [
            "--n_sample",
            "3",
            "--batch_size",
            "2",
            "--save_as",
            "mp4",
            *([] if stages else ["gif"]),
            "--save_arrays",
        ]
        command = lambda folder: [*flags_of(script, models, folder, FRAMES), *more]
        how = run(script, command(whole), whole)
        expected, size = contents(whole), records(whole)
        if how != "ended" or "codes.npz" not in expected:
            record.add({}, [f"{script}: the run that was left alone failed"])
            return record
        draw, done, runs = random.Random(seed), 0, 0
        while done < kills and (not done or time.monotonic() < until):
            moment = staged(size)[done % 3] if stages else anywhere(draw, records(folder), size)
            how = run(script, command(folder), folder, moment)
            print(f"{script}: {how} with {records(folder)} of {size} bytes of codes", flush=True)
            done, runs = done + (how == "killed"), runs + 1
            if how == "failed" or runs > 3 * kills:
                record.add({"kills": done}, [f"{script}: a run that goes on {how}, after {runs} runs"])
                return record
            if how == "killed" and not stages and records(folder) >= size:  # nothing is left to draw: see that it ends
                how = run(script, command(folder), folder)
            if how == "ended":
                compare(record, script, expected, contents(folder))
                folder = Path(name) / f"killed{runs}"
        how = run(script, command(folder), folder)
        record.add({"kills": done}, [] if how == "ended" else [f"{script}: the last run {how}"])
        compare(record, script, expected, contents(folder))
        return record


def compare(record: Record, script: str, expected: dict[str, bytes], found: dict[str, bytes]) -> None:
    """Count the files of two runs and note which differ."""
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    print(f"{script}: {'differs: ' + ', '.join(wrong) if wrong else f'all {len(found)} files equal'}", flush=True)
    record.add({"ends compared": 1, "files compared": len(found)}, [f"{script}: {name} differs" for name in wrong])


def main() -> int:
    """Both samplers; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=math.inf, help="nothing is killed after so many of them")
    parser.add_argument("--staged", action="store_true")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the counts into a file, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    from benchmarks.endless import SCRIPTS, save_models

    with tempfile.TemporaryDirectory() as models:
        save_models(Path(models))
        import av  # noqa: F401  # everything is loaded before the first fork
        from PIL import GifImagePlugin  # noqa: F401

        from tats import checkpoint, long_run  # noqa: F401

        found, begin = Record(), time.monotonic()
        for number, script in enumerate(SCRIPTS):
            until = begin + 60 * args.minutes * (number + 1) / len(SCRIPTS)  # each sampler gets its share
            each = trial(script, Path(models), args.kills, args.staged, args.seed, until)
            found.add(each.tried, each.wrong)
    found.write(args.record)
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
