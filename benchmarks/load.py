"""How long and how much memory does loading a released-size transformer take, and converting it?

    python benchmarks/load.py            # writes benchmarks/results/load.json, a table in docs/released.md

The file is made with random weights at the published size (24 x 1024, 16 heads, 16384 codes, window 1024, VQGAN with 32
channels and `--downsample 4 8 8`), in the published layout with everything that belongs to it: attention masks, the
VQGAN with critics and perceptual weights, Adam's state. Every measurement runs in a fresh process, the file in the page
cache; the median of the repeats counts. "plain" reads with `torch.load` and copies into a newly made model.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS, HEADS, WIDTH, CODES, WINDOW = 24, 16, 1024, 16384, 1024
PERCEPTUAL = 14_716_166 + 6  # numbers of VGG16's convolutions, the heads and the scaling, as a released file holds them


def make(folder: Path, optimizer: bool) -> None:
    """Write gpt.ckpt and vqgan.ckpt."""
    import torch

    from tats.gpt.config import GPTConfig
    from tats.gpt.model import GPT
    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.discriminator import Discriminator
    from tats.vqgan.model import VQGAN

    torch.manual_seed(0)
    clip = {"resolution": 128, "sequence_length": 16, "sample_every_n_frames": 1}
    vqgan = VQGAN(VQGANConfig(n_codes=CODES, n_hiddens=32, downsample=(4, 8, 8), norm_type="batch", **clip))
    inside = dict(vqgan.state_dict())
    for name, dims in (("image_discriminator", 2), ("video_discriminator", 3)):
        critic = Discriminator(dims, 3, 64, 3).state_dict()
        inside.update({f"{name}.{key}": value for key, value in critic.items()})
    inside["perceptual_model.net.everything"] = torch.randn(PERCEPTUAL)
    args = argparse.Namespace(**clip, n_codes=CODES, n_hiddens=32, embedding_dim=256, downsample=[4, 8, 8])
    torch.save({"state_dict": OrderedDict(inside), "hyper_parameters": {"args": args}}, folder / "vqgan.ckpt")
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": WINDOW}
    gpt = GPT(GPTConfig(**sizes, n_codes=CODES, unconditional=True))
    state = {f"transformer.{name}": value for name, value in gpt.state_dict().items()}
    for layer in range(LAYERS):
        state[f"transformer.blocks.{layer}.attn.mask"] = torch.ones(1, 1, WINDOW, WINDOW).tril()
    state.update({f"first_stage_model.{name}": value for name, value in inside.items()})
    args = argparse.Namespace(**clip, **sizes, unconditional=True, class_cond_dim=None, n_unmasked=0)
    content = {"state_dict": OrderedDict(state), "hyper_parameters": {"args": args, "cond_stage_key": "label"}}
    if optimizer:
        content["optimizer_states"] = [
            {"state": {i: {"exp_avg": p.clone(), "exp_avg_sq": p.clone()} for i, p in enumerate(gpt.parameters())}}
        ]
    torch.save(content, folder / "gpt.ckpt")


def plain(folder: Path) -> None:
    """The usual way: everything is read, then copied into a model that was initialised for nothing."""
    import torch

    from tats.gpt.config import GPTConfig
    from tats.gpt.model import GPT

    content = torch.load(folder / "gpt.ckpt", map_location="cpu", weights_only=False)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": WINDOW}
    gpt = GPT(GPTConfig(**sizes, n_codes=CODES, unconditional=True))
    own = {
        name.removeprefix("transformer."): value
        for name, value in content["state_dict"].items()
        if name.startswith("transformer.") and not name.endswith("mask")
    }
    gpt.load_state_dict(own, strict=True)


def load_transformer(folder: Path) -> None:
    """The transformer alone."""
    import tats

    tats.load_transformer(folder / "gpt.ckpt", folder / "vqgan.ckpt")


def load_pair(folder: Path) -> None:
    """The transformer, and the VQGAN inside its file."""
    import tats

    tats.load_pair(folder / "gpt.ckpt", folder / "vqgan.ckpt")


def convert(folder: Path) -> None:
    """`tats convert`."""
    from tats.convert import main

    words = [str(folder / "gpt.ckpt"), str(folder / "gpt"), "--vqgan_ckpt", str(folder / "vqgan.ckpt"), "--overwrite"]
    main(words)


def load_converted(folder: Path) -> None:
    """The transformer from the folder that `tats convert` made."""
    import tats

    tats.load_transformer(folder / "gpt")


STEPS = {
    plain: "`torch.load`, copied into a new model",
    load_transformer: "`tats.load_transformer`",
    load_pair: "`tats.load_pair`: the VQGAN inside the file too",
    convert: "`tats convert`",
    load_converted: "`tats.load_transformer` of the converted folder",
}


def run_step(name: str, folder: Path) -> None:
    """In a fresh process: import, do it, print seconds and the largest memory."""
    import torch

    torch.set_num_threads(1)
    import tats.checkpoint  # noqa: F401  the imports are not what is measured

    start, busy = time.perf_counter(), time.process_time()
    {step.__name__: step for step in STEPS}[name](folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("RESULT " + json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_rss": peak}))


def measure(name: str, folder: Path, repeats: int) -> dict:
    """Median seconds, and peaks: resident (pages of the mapped file included), and what no file backs."""
    runs = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        anonymous = 0
        while child.poll() is None:
            anonymous = max(anonymous, anonymous_bytes(child.pid))
            time.sleep(0.01)
        output = child.stdout.read() if child.stdout else ""
        if child.returncode:
            raise SystemExit(f"{name} failed:\n{output}")
        line = next(line for line in output.splitlines() if line.startswith("RESULT "))
        runs.append({**json.loads(line[7:]), "peak_anonymous": anonymous, "said": output.splitlines()})
    middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    print(f"{name:18}{middle['seconds']:8.2f} s   resident {middle['peak_rss'] / 1e6:8,.0f} MB   "
          f"anonymous {middle['peak_anonymous'] / 1e6:8,.0f} MB", flush=True)  # fmt: skip
    return {
        "seconds": round(statistics.median(run["seconds"] for run in runs), 3),
        "cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in runs), 3),
        "peak_rss_mb": round(middle["peak_rss"] / 1e6),
        "peak_anonymous_mb": round(middle["peak_anonymous"] / 1e6),
        "said": [line for line in middle["said"] if " MB" in line and str(folder) not in line],
    }


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that no file backs (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def main() -> None:
    """Make the files, measure every step, write the result."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no_optimizer", action="store_true", help="a file without Adam's state")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "make":
        make(args.folder, not args.no_optimizer)
        return
    if args.step:
        run_step(args.step, args.folder)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        flags = ["--no_optimizer"] if args.no_optimizer else []
        command = [sys.executable, __file__, "--step", "make", "--folder", str(folder), *flags]
        subprocess.run(command, check=True)
        size = (folder / "gpt.ckpt").stat().st_size
        print(f"gpt.ckpt {size / 1e6:,.0f} MB")
        steps = {}
        for step, what in STEPS.items():
            steps[step.__name__] = {"what": what, **measure(step.__name__, folder, args.repeats)}
        converted = sum(path.stat().st_size for path in (folder / "gpt").rglob("*") if path.is_file())
    from benchmarks.tables import store

    store(
        "load",
        ["what", "seconds", "of processor time", "peak memory, resident (MB)", "of it not backed by a file (MB)"],
        [
            [step[key] for key in ("what", "seconds", "cpu_seconds", "peak_rss_mb", "peak_anonymous_mb")]
            for step in steps.values()
        ],
        command="python benchmarks/load.py",
        note=f"The file has {size / 1e6:,.0f} MB ({'without' if args.no_optimizer else 'with'} the optimizer's state), "
        f"the converted folder {converted / 1e6:,.0f} MB; one thread, the file in the page cache, median of "
        f"{args.repeats} runs.",
        details={"steps": steps, "file_mb": round(size / 1e6), "converted_mb": round(converted / 1e6)},
    )


if __name__ == "__main__":
    main()
