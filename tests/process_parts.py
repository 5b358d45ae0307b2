"""Several processes in one test: forked from a server that has imported everything, started as torchrun would."""

import multiprocessing
import os
import runpy
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import tats.sampling
import tats.tokenize
import tats.training
import tats.vqgan.train
from tats.data import code_parts
from tats.data.loader import Clips, Loader, Order
from tats.flags import UserError
from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig
from tats.metrics.processes import current
from tats.trainer_config import TrainerConfig
from tats.vqgan.config import VQGANConfig
from tats.vqgan.train import VQGANTraining
from tats.vqgan.train_config import VQGANTrainConfig

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["process_parts"])
LIMIT = 1500  # seconds, after which hanging processes are killed and the test fails
COMMON = {"enable_model_summary": False, "enable_progress_bar": False, "device": "cpu", "log_every_n_steps": 1}
COMMON |= {"limit_val_batches": 1, "num_sanity_val_steps": 0}


def free_port() -> int:
    """A port that the system has just given out."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def child(work: Any, rank: int, size: int, port: int, report: str, args: tuple[Any, ...]) -> None:
    """One process: the environment that torchrun gives it, the work, and the end of its process group."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size), GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test", OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.set_num_threads(1)
    try:
        work(*args)
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            return
        Path(report).write_text(traceback.format_exc())
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def start(size: int, work: Any, *args: Any, folder: Path) -> list[Any]:
    """`size` processes that run `work(*args)`; what goes wrong in one stands in `folder`."""
    port = free_port()
    if "TATS_STARTED" in os.environ:  # how many are compared is counted by tests/reliability/everything.py
        with Path(os.environ["TATS_STARTED"]).open("a") as file:
            file.write(f"{size}\n")
    started = []
    for rank in range(size):
        process = CONTEXT.Process(target=child, args=(work, rank, size, port, str(folder / f"error_{rank}.txt"), args))
        process.start()
        started.append(process)
    return started


def finish(started: list[Any]) -> list[int | None]:
    """Wait for processes, kill those that hang, and give their exit codes."""
    end = time.monotonic() + LIMIT
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
    for process in started:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def run(size: int, work: Any, *args: Any, folder: Path) -> None:
    """Run `work(*args)` in `size` processes, all of which must succeed."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = finish(start(size, work, *args, folder=folder))
    errors = "\n".join(path.read_text() for path in sorted(folder.glob("error_*.txt")))
    assert codes == [0] * size, f"{codes}\n{errors}"


def script(name: str, *flags: Any) -> None:
    """A script of this repository, as from its command line."""
    sys.argv = [name, *map(str, flags)]
    runpy.run_path(str(ROOT / name), run_name="__main__")


def tokens(*flags: Any) -> None:
    """`tats tokenize` in small parts."""
    code_parts.LEAST = 4
    tats.tokenize.main([str(flag) for flag in flags])


def leave_early(folder: str) -> None:
    """The second process ends while the first one waits for it."""
    dist.init_process_group("gloo")
    if current().rank:
        os._exit(3)
    try:
        current().sum(torch.ones(2))
    except UserError as error:
        (Path(folder) / "said.txt").write_text(str(error))


class Films:
    """A source of twelve small videos, or of twelve pieces of code."""

    span, starts, clips = 1, np.full(12, 3), np.ones(12, int)

    def __init__(self, codes: bool):
        self.codes = codes

    def read(self, video: int, start: int, draw: np.random.Generator) -> dict[str, Any]:
        own = np.random.default_rng([video, start])
        if self.codes:
            return {"video": torch.from_numpy(own.integers(10, size=(2, 2, 2)))}
        colour, frames = own.random((3, 1, 1, 1)), own.random((1, 4, 8, 8))
        return {"video": torch.from_numpy(0.5 * colour + 0.5 * frames - 0.5).float()}


def loader(batch_size: int, codes: bool, train: bool = True) -> Loader:
    """Batches of these."""
    return Loader(Clips(Films(codes), 3, train), Order(12, batch_size, 3, train))


def vqgan_training(accumulate: int = 1, sync: bool = False, **flags: Any) -> VQGANTraining:
    """A small VQGAN, with critics and batch normalisation everywhere if `sync`."""
    norm = {"norm_type": "batch"} if sync else {"norm_type": "group"}
    sizes = {"n_codes": 24, "embedding_dim": 8, "n_hiddens": 32, "downsample": (2, 4, 4), "resolution": 8}
    weights = {"disc_channels": 4, "disc_layers": 2, "discriminator_iter_start": 2, "gan_feat_weight": 1.0}
    weights |= {} if sync else {"image_gan_weight": 0.0, "video_gan_weight": 0.0}
    model = VQGANConfig(sequence_length=4, **norm, **sizes)
    return VQGANTraining(
        model, VQGANTrainConfig(log_images_every=0, log_videos_every=0, **weights, **flags), lr=1e-4,
        accumulate=accumulate, sync_batchnorm=sync, clip=1.0, total_updates=6,
    )  # fmt: skip


def gpt_training(**flags: Any) -> GPTTraining:
    """A small transformer."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=0, unconditional=True)
    gpt = GPT(config.fitted((2, 2, 2), 10))
    return GPTTraining(gpt, GPTTrainConfig(warmup_steps=4, pkeep=0.8, **flags), 1e-3, seed=5)


def train(kind: str, root: str, batch_size: int, steps: int, flags: dict[str, Any], more: dict[str, Any]) -> None:
    """Train as the scripts do. kind: "vqgan", "sync" (with batch normalisation and critics) or "gpt"."""
    config = TrainerConfig(default_root_dir=root, max_steps=steps, **{**COMMON, **flags})
    tats.training.begin(config)
    accumulate = config.accumulate
    codes = kind == "gpt"
    module = gpt_training(**more) if codes else vqgan_training(accumulate, kind == "sync", **more)
    cadence = tats.training.TRANSFORMER_CADENCE if codes else tats.training.VQGAN_CADENCE
    tats.training.fit(
        module, loader(batch_size, codes), loader(1, codes, train=False), config, name="x", cadence=cadence
    )
