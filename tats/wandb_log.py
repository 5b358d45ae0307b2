"""The log of a training run at Weights & Biases, beside the one in the run's folder."""

import importlib.util
import secrets
from pathlib import Path

from pytorch_lightning.loggers import Logger

from tats.flags import UserError
from tats.launched import first


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
    if first():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(number + "\n", encoding="ascii")
    name = f"{folder.parent.name}/{folder.name}"
    return [WandbLogger(project=project, name=name, id=number, save_dir=folder, resume="allow")]
