"""The log of a training run at Weights & Biases, beside the one in the run's folder."""

import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tats.flags import UserError


def wandb_loggers(project: str | None, folder: Path) -> list[Logger]:
    """The logger that sends numbers to a project, none without one. The run there is called as the run's folder; a
    resumed run goes on with it. Its number is kept in `wandb.txt`.

    Raises:
        UserError: the package is not installed.
    """
    if project is None:
        return []
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            "--wandb needs the package wandb, which is not installed: pip install 'tats-video[wandb]'; without it the "
            "log is in metrics.csv and in TensorBoard's events"
        )
    from pytorch_lightning.loggers import WandbLogger

    path = folder / "wandb.txt"
    number = path.read_text(encoding="ascii").strip() if path.exists() else secrets.token_hex(4)

    class Numbered(WandbLogger):
        """Writes its number down with the first line of the log: before, the folder is not there in all processes."""

        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            if not path.exists():
                path.write_text(number + "\n", encoding="ascii")
            super().log_metrics(metrics, step)

    name = f"{folder.parent.name}/{folder.name}"
    return [Numbered(project=project, name=name, id=number, save_dir=folder, resume="allow")]
