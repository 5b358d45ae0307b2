"""`tats best`: the best checkpoint of a training run.

tats best runs/vqgan/version_0
tats best runs/gpt/version_0 --metric score/FVD
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tats import flags
from tats.flags import REQUIRED, UserError, arg, nearest

PREFERRED = ("score/", "val/recon_loss", "val/loss")  # without --metric: the first of these that was measured
LARGER = ("psnr", "ssim", "acc")  # metrics of which more is better


@dataclass(frozen=True)
class BestConfig:
    """Prints the path of the best checkpoint of a run, and on standard error why it is the best."""

    run: str = arg(REQUIRED, "folder of the run (`tats best RUN` works as well), or one with several versions")
    metric: str | None = arg(None, "a column of metrics.csv (none: a score if there is one, else the test loss)")


def best(run: str | Path, metric: str | None = None) -> tuple[Path, str, float]:
    """The checkpoint of a run at whose step a metric is best, the metric and its value; smaller is better, but for
    accuracies, PSNR and SSIM. A checkpoint counts where the metric was measured at its very step.

    Raises:
        UserError: no such run, no such metric, or no checkpoint at a step where it was measured.
    """
    from tats.plot import find_metrics

    folder = Path(run).expanduser()
    paths = {path: _step(path) for path in sorted(folder.rglob("*.ckpt"))}
    if not paths:
        raise UserError(
            f"{run}: no checkpoints below this folder; give the folder of a run, such as runs/gpt/version_0"
        )
    curves = find_metrics(folder)
    name = metric or next((each for start in PREFERRED for each in sorted(curves) if each.startswith(start)), None)
    if name is None or name not in curves:
        known = ", ".join(sorted(curves)) or "none"
        raise UserError(f"{run}: --metric {name} was not logged{nearest(str(name), curves)} (what was: {known})")
    measured = dict(zip(curves[name].steps, curves[name].values))
    found = [(measured[at], path) for path, step in paths.items() for at in (step, step - 1) if at in measured]
    if not found:
        raise UserError(f"{run}: {name} was measured at no step of which a checkpoint is kept")
    more = any(word in name.lower() for word in LARGER)
    value, path = max(found) if more else min(found)
    return path, name, value


def _step(path: Path) -> int:
    """The step in a checkpoint's name, -2 where there is none (last.ckpt)."""
    found = re.search(r"step=(\d+)", path.name)
    return int(found[1]) if found else -2


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, look, print the path."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--run", *words]
    config = flags.parse(BestConfig, words, prog="tats best")
    path, name, value = best(config.run, config.metric)
    print(f"{name} {value:.6g}", file=sys.stderr)
    print(path)
