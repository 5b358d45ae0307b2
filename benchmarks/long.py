"""Long videos of the embedded dataset, after `make demo`: what is trained, sampled and judged, and in what time.

    python benchmarks/long.py                # all of it; a second call goes on where the first was stopped
    python benchmarks/long.py --stored       # judges the videos that are there and stores the numbers
    python benchmarks/long.py --only_print   # the commands, as docs/recipes.md lists them

Writes benchmarks/results/long.json, long_times.json and long_ends.json; then fill the tables with python
benchmarks/tables.py. Two commands run side by side with half of the processor cores each: two small models learn more
in the same time than one after the other. What they print goes to files in --out/logs.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.lanes import Ledger, run_stage, tell, typed  # noqa: E402
from benchmarks.long_recipe import LongConfig, listed, stages  # noqa: E402
from tats import flags  # noqa: E402
from tats.flags import UserError  # noqa: E402


def run(config: LongConfig) -> Ledger:
    """Run what is missing."""
    out = Path(config.out)
    for flag, path in (("vqgan", config.vqgan), ("gpt", config.gpt)):
        if not Path(path).exists():
            raise UserError(f"--{flag} {path}: no such file; `make demo` trains it")
    out.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out)
    for lanes in stages(config):
        run_stage(lanes, ledger, out, listed(config))
    took = ledger.minutes(stages(config))
    tell(f"trained and sampled in {sum(took[:-1]):.1f} minutes, and in {took[-1]:.1f} more for the comparison")
    return ledger


def main() -> int:
    """Parse, run, judge, store."""
    config = flags.parse(LongConfig)
    os.chdir(ROOT)
    if config.only_print:
        print("\n".join(typed(step) for step in listed(config)))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ledger = Ledger(Path(config.out)) if config.stored else run(config)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    from benchmarks.long_judge import judge_and_store

    judge_and_store(config, ledger)
    return 0


if __name__ == "__main__":
    flags.run(main)
