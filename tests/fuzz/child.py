"""One process that reads broken files, watched from outside: `python tests/fuzz/child.py SEEDS MEMORY_MB`.

Takes lines "number of the format, number of the input, 1 to count lines", answers each with a line of JSON. Whatever a
reader does to it (a crash, a hang, too much memory) happens to this process alone.
"""

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.all import FORMATS  # noqa: E402
from fuzz.format import Format  # noqa: E402

from tats.flags import UserError  # noqa: E402


def peak() -> int:
    """Megabytes that were resident at most since the last `forget_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def forget_peak() -> None:
    """Let the peak begin with what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def make(form: Format, number: int, seeds: Path, folder: Path) -> None:
    """The broken files of an input, in a new folder. They depend on the format and the number alone."""
    shutil.copytree(seeds, folder)
    form.change(folder, random.Random(f"{form.name} {number}"))


def judge(read: Callable[[], Any]) -> tuple[str, str]:
    """How a reader ended: read, refused, or a bug with its traceback."""
    try:
        read()
    except UserError as error:
        return "refused", str(error)[:300]
    except MemoryError:
        return "memory", traceback.format_exc()[-3000:]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # whatever else comes out of a reader is what is looked for
        return "traceback", traceback.format_exc()[-3000:]
    return "read", ""


def parsed(form: Format, folder: Path) -> bool:
    """Whether the first parse succeeds."""
    try:
        form.first(folder)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # libraries refuse files in their own ways
        return False
    return True


def traced(read: Callable[[], Any], files: set[str], lines: set[tuple[str, int]]) -> Callable[[], Any]:
    """The same reader; the lines of `files` that it runs through are added to `lines`."""

    def local(frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def watching() -> Any:
        sys.settrace(lambda frame, event, _: local if frame.f_code.co_filename in files else None)
        try:
            return read()
        finally:
            sys.settrace(None)

    return watching


def one(form: Format, number: int, seeds: Path, lines: set[tuple[str, int]] | None) -> dict[str, Any]:
    """Make an input, read it, say how that went."""
    with tempfile.TemporaryDirectory(prefix="tats-fuzz-") as name:
        folder = Path(name) / "input"
        how, said = judge(lambda: make(form, number, seeds, folder))
        if how != "read":  # a mistake of the fuzzer, which must not pass for one of a reader
            return {"how": "unmade", "said": said, "parsed": False, "grown": 0}
        got_in = parsed(form, folder)
        forget_peak()
        before = peak()
        read: Callable[[], Any] = lambda: form.read(folder)
        if lines is not None:
            read = traced(read, {str(ROOT / module) for module in form.modules}, lines)
        how, said = judge(read)
        return {"how": how, "said": said, "parsed": got_in, "grown": peak() - before}


def main() -> None:
    """Serve until the input ends."""
    seeds, room = Path(sys.argv[1]), int(sys.argv[2])
    import h5py  # noqa: F401  # what all need is there before memory is counted
    import torch

    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + room * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # what readers and decoders print
    os.dup2(nothing, 2)
    told: dict[int, set[tuple[str, int]]] = {}
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        place, number, trace = map(int, line.split())
        seen = told.setdefault(place, set())
        lines = set(seen) if trace else None
        answer = one(FORMATS[place], number, seeds / str(place), lines)
        new = (lines or seen) - seen
        seen |= new
        answer["lines"] = [[str(Path(file).relative_to(ROOT)), at] for file, at in sorted(new)]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
