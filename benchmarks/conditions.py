"""Conditions on the embedded dataset, after `make demo`: sentences, sounds, and classes with guidance; what is trained,
sampled and judged, and in what time.

    python benchmarks/conditions.py                  # all of it; a second call goes on where the first was stopped
    python benchmarks/conditions.py --only text      # one of the recipes: text, sound, label; several may be given
    python benchmarks/conditions.py --stored         # judges the videos that are there and stores the numbers
    python benchmarks/conditions.py --only_print     # the commands, as docs/recipes.md lists them

Writes benchmarks/results/conditions_text.json, conditions_sound.json and conditions_label.json; then fill the tables
with python benchmarks/tables.py. What the commands print goes to files in --out/logs. When the recipes have run, the
page of the demo shows their videos: call `make demo` again.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.conditions_recipe import RECIPES, ConditionsConfig, listed, stages  # noqa: E402
from benchmarks.lanes import Ledger, run_stage, tell, typed  # noqa: E402
from tats import flags  # noqa: E402
from tats.flags import UserError  # noqa: E402


def run(config: ConditionsConfig) -> Ledger:
    """Run what is missing of the recipes that are asked for."""
    out = Path(config.out)
    for flag, path in (("vqgan", config.vqgan), ("gpt", config.gpt)):
        if not Path(path).exists():
            raise UserError(f"--{flag} {path}: no such file; `make demo` trains it")
    out.mkdir(parents=True, exist_ok=True)
    ledger, steps = Ledger(out), listed(config, RECIPES)
    for recipe in config.recipes:
        for lanes in stages(config, recipe):
            run_stage(lanes, ledger, out, steps)
        tell(f"the recipe {recipe} took {sum(ledger.minutes(stages(config, recipe))):.1f} minutes")
    return ledger


def main() -> int:
    """Parse, run, judge, store."""
    config = flags.parse(ConditionsConfig)
    os.chdir(ROOT)
    if config.only_print:
        print("\n".join(typed(step) for step in listed(config, config.recipes)))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ledger = Ledger(Path(config.out)) if config.stored else run(config)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    from benchmarks.conditions_judge import judge_and_store

    judge_and_store(config, ledger)
    return 0


if __name__ == "__main__":
    flags.run(main)
