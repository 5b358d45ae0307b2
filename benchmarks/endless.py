"""Memory and time of long videos: the sampling scripts with tiny random models, each length in a fresh process.

    python benchmarks/endless.py                       # 512, 4096 and 100000 frames; stores the result
    python benchmarks/endless.py --frames 512 4096     # other lengths; prints, stores nothing

Memory is the peak of the resident set minus what is resident when sampling starts (models are loaded by then).
"""

import argparse
import ctypes
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

FRAMES = [512, 4096, 100_000]
STEP = 4  # latent frames between coarse ones
FACTOR = 8  # frames of a latent frame
SCRIPTS = {
    "sample_long.py": ["--gpt_ckpt", "gpt", "--vqgan_ckpt", "vqgan", "--temporal_sample_pos", "2"],
    "sample_hierarchical.py": ["--ckpt1", "coarse", "--ckpt2", "fine", "--vqgan", "vqgan"],
}
NAMES = {"sample_long.py": "sliding window", "sample_hierarchical.py": "hierarchy"}


def save_models(folder: Path) -> None:
    """A VQGAN of 16x16 pictures and three transformers over its 2x2 codes, with random weights."""
    import torch

    from tats import checkpoint
    from tats.gpt.config import GPTConfig
    from tats.gpt.model import GPT
    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.model import VQGAN

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_codes": 64, "embedding_dim": 4, "n_hiddens": 2, "downsample": (FACTOR, 8, 8)}
    shape: dict[str, Any] = {"resolution": 16, "sequence_length": 4 * FACTOR, "norm_type": "batch"}
    checkpoint.save(VQGAN(VQGANConfig(**sizes, **shape)).eval(), folder / "vqgan")
    for name, frames, stride, anchors in (("gpt", 4, 0, 0), ("coarse", 4, STEP, 0), ("fine", STEP + 1, 0, 4)):
        config = GPTConfig(
            n_layer=1,
            n_head=1,
            n_embd=16,
            block_size=frames * 4,
            n_unmasked=anchors,
            sample_every_n_latent_frames=stride,
            unconditional=True,
            n_codes=64,
            latent_shape=(frames, 2, 2),
        )
        gpt = GPT(config).eval()
        for weights in gpt.parameters():
            torch.nn.init.normal_(weights, 0.0, 0.5)
        checkpoint.save(gpt, folder / name)


def flags_of(script: str, models: Path, save: Path, frames: int) -> list[str]:
    """The command line of a script for one video of `frames` frames (of a hierarchy: and one latent frame more)."""
    extra = FACTOR if script == "sample_hierarchical.py" else 0
    given = [str(models / word) if (models / word).exists() else word for word in SCRIPTS[script]]
    return [*given, "--frames", str(frames + extra), "--n_sample", "1", "--save", str(save), "--device", "cpu"]


def measure(script: str, models: Path, frames: int) -> dict[str, float]:
    """Run a script in a fresh process: `mib` of memory, `seconds`, `first`: seconds to the first frames in a file."""
    with tempfile.TemporaryDirectory() as save:
        command = [sys.executable, __file__, "--child", script, *flags_of(script, models, Path(save), frames)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(f"{script} has failed:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])


def child(script: str, flags: list[str]) -> None:
    """Inside the fresh process: run the script, watch what it needs from the moment sampling starts."""
    import torch

    from tats import long_run
    from tats.media import VideoWriter

    torch.set_num_threads(1)
    found: dict[str, float] = {}
    make_films, write = long_run.make_films, VideoWriter.write

    def watched(*arguments: Any) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        before, found["start"] = memory("VmRSS"), time.perf_counter()
        make_films(*arguments)
        found["seconds"] = time.perf_counter() - found["start"]
        found["mib"] = memory("VmHWM") - before

    def first(self: VideoWriter, piece: Any) -> None:
        write(self, piece)
        found.setdefault("first", time.perf_counter() - found["start"])

    long_run.make_films, VideoWriter.write = watched, first  # type: ignore[method-assign]
    sys.argv = [script, *flags]
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as leaving:
        if leaving.code:
            raise
    print(json.dumps({name: found[name] for name in ("mib", "seconds", "first")}))


def memory(name: str) -> float:
    """A line of this process's status in MiB: VmRSS is what is resident, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def main() -> None:
    """Measure all lengths, print and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=None)
    frames = parser.parse_args().frames
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        save_models(Path(folder))
        for script in SCRIPTS:
            for length in frames or FRAMES:
                found = details[f"{script} {length}"] = measure(script, Path(folder), length)
                per_thousand = found["seconds"] * 1000 / length
                rows.append([NAMES[script], length, found["mib"], per_thousand, found["first"]])
                print(*rows[-1], sep="\t", flush=True)
    if frames is None:
        from tables import store

        store(
            "endless",
            ["sampler", "frames", "peak above what is resident when sampling starts, MiB", "s per 1000 frames",
             "s to the first frames in the file"],
            rows,
            command="python benchmarks/endless.py",
            note="Tiny random models (codes of 2x2, pictures of 16x16, 8 frames to a latent frame), from command to "
            "mp4, one thread, fresh processes; wall clock",
            details={**details, "load": os.getloadavg()[0]},
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
