"""A video from command to file: the sampling scripts beside the published algorithm, each run a fresh process.

    python benchmarks/clip.py                 # minutes on a quiet machine; writes benchmarks/results/clip.json
    python benchmarks/clip.py --size ci       # seconds, tiny models: prints, stores nothing

Random weights, saved once to a temporary folder, one thread. A short clip is `sample_short.py` in every --precisions
beside a process that loads the same two checkpoints with the same code, samples as published, decodes in one piece in
float32 and writes the same mp4. A long video is `sample_long.py`, which writes as it goes, beside the published
sliding window, which writes nothing before everything is sampled. That one would take minutes: some steps of its first
and of a later latent frame are timed and scaled to all of them; loading, decoding of the whole video (of random codes)
and writing are done in full. Long videos are written as mp4 and as numbered pictures: the time of the first frame is
when its picture is complete, for a short clip when the mp4 is. Nothing is timed before one step's logits agree.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampling_ways import MODELS, PRECISIONS, TOP_K, TOP_P, check, make_model, step_ways
from benchmarks.tables import store
from tats import flags
from tats.flags import arg

if TYPE_CHECKING:
    import torch

    from benchmarks.published_sampler import PublishedSampler

ROOT = Path(__file__).resolve().parent.parent
FPS = 16.0
VQGANS: dict[str, dict[str, Any]] = {  # for the transformers of benchmarks/sampling_ways.py
    "ci": {"n_codes": 512, "embedding_dim": 8, "n_hiddens": 4, "downsample": (4, 4, 4), "resolution": 16},
    "default": {"n_codes": 16384, "embedding_dim": 256, "n_hiddens": 32, "downsample": (4, 8, 8), "resolution": 128},
}

Times = dict[str, float]  # seconds of one process: wall, processor, first (wall until the first frame is in a file)


@dataclass(frozen=True)
class Config:
    """Times a short clip and a long video from command to file."""

    size: str = arg("default", "the models", [*VQGANS])
    precisions: list[str] = arg(["fp32", "fp16", "int8"], "formats of the short clip", [*PRECISIONS])
    long_precisions: list[str] = arg(["int8"], "formats of the long video", [*PRECISIONS])
    latents: int = arg(10, "latent frames of the long video")
    context: int = arg(1, "latent frames that the sliding window sees")
    steps: int = arg(8, "steps of the published window that are timed, per kind of latent frame")
    rounds: int = arg(1, "rounds, the order alternating; medians are told")
    top_k: int = arg(TOP_K, "of every process; 1: all ways in float32 make the same codes")
    published: str | None = arg(
        None, "be the published process, with the models in --folder (this program calls itself so)", ["short", "long"]
    )
    folder: str | None = arg(None, "with --published: where the models lie")
    save: str | None = arg(None, "with --published: where its video goes")


def save_models(size: str, folder: Path) -> None:
    """A transformer and a VQGAN of one size with random weights."""
    import torch

    from tats import checkpoint
    from tats.vqgan.config import VQGANConfig
    from tats.vqgan.model import VQGAN

    checkpoint.save(make_model(size), folder / "gpt")
    torch.manual_seed(0)
    checkpoint.save(VQGAN(VQGANConfig(norm_type="batch", **VQGANS[size])).eval(), folder / "vqgan")


def compare_logits(folder: Path, precisions: list[str]) -> dict[str, dict[str, float]]:
    """How far the logits of a late step lie from the published ones; raises ValueError where that is too far."""
    import torch

    from tats import checkpoint
    from tats.gpt.engine import Engine

    gpt = checkpoint.load_transformer(folder / "gpt", folder / "vqgan")
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for precision in precisions:  # one packed format at a time
            engines = {precision: Engine(gpt, 1, precision=precision)}
            errors = check(step_ways(gpt, 1, gpt.config.block_size * 960 // 1024, engines))
            found[precision] = errors[precision]
    return found


def published_process(config: Config) -> None:
    """Inside the fresh process: load, sample as published, decode at once, write; prints what is to be added."""
    import torch

    from benchmarks.published_sampler import PublishedSampler
    from tats import checkpoint
    from tats.media import VideoWriter
    from tats.video import to_frames

    folder, save = Path(config.folder or ""), Path(config.save or "")
    gpt, vqgan = checkpoint.load_pair(folder / "gpt", folder / "vqgan")
    sampler, (t, h, w), offset = PublishedSampler(gpt), gpt.config.latent_shape, gpt.config.code_offset
    added = {"wall": 0.0, "processor": 0.0}
    kinds = ["video.mp4"]
    with torch.inference_mode():
        if config.published == "short":
            cond = torch.zeros(1, 1, dtype=torch.long)  # the first class
            codes = (sampler.sample(cond, t * h * w, top_k=config.top_k, top_p=TOP_P) - offset).view(1, t, h, w)
            codes = codes.clamp(0, gpt.config.n_codes - 1)  # published draws can hit ids of the condition
        else:
            added = window_added(sampler, config)
            codes = torch.randint(gpt.config.n_codes, (1, config.latents, h, w))
            kinds.append("video")  # numbered pictures
        torch.save(codes, save / "codes.pt")
        frames = to_frames(vqgan.decode(codes))[0].numpy()
    for kind in kinds:
        with VideoWriter(save / kind, FPS) as writer:
            writer.write(frames)
    print(json.dumps(added))


def window_added(sampler: "PublishedSampler", config: Config) -> Times:
    """Seconds of the published sliding window over all latent frames, less the seconds spent here to find out."""
    import torch

    from benchmarks.published_sampler import draw

    gpt = sampler.config
    frame = gpt.latent_shape[1] * gpt.latent_shape[2]
    begun = time.perf_counter(), time.process_time()
    shown = torch.randint(gpt.code_offset, gpt.vocabulary, (1, 1 + config.context * frame))
    _, past = sampler.forward(shown, None, 0)  # thrown away: the first pass finds its ways
    started = time.perf_counter(), time.process_time()
    logits, past = sampler.forward(shown, None, 0)
    sampler.choose(logits, 1.0, config.top_k, TOP_P, draw)
    prefill = since(started)
    first = mean_step(sampler, config, past[..., :1, :], config.context * frame)
    later = mean_step(sampler, config, past, frame)
    moves = config.latents - config.context  # latent frames before which the context is shown again
    spent = since(begun)
    return {
        clock: config.context * frame * first[clock] + moves * (prefill[clock] + (frame - 1) * later[clock]) - value
        for clock, value in spent.items()
    }


def mean_step(sampler: "PublishedSampler", config: Config, past: "torch.Tensor", count: int) -> Times:
    """Mean seconds of steps spread over the `count` codes behind keys and values `past`, which came at once."""
    import torch

    from benchmarks.published_sampler import draw

    token = torch.full((1, 1), sampler.config.code_offset)
    total = {"wall": 0.0, "processor": 0.0}
    for k in range(config.steps):
        behind = k * (count - 1) // config.steps  # codes since then, each with keys and values of its own, as published
        parts = [past, *(torch.randn_like(past[..., :1, :]) for _ in range(behind))]
        started = time.perf_counter(), time.process_time()
        logits, _ = sampler.forward(token, parts, past.shape[-2] + behind)
        sampler.choose(logits, 1.0, config.top_k, TOP_P, draw)
        for clock, value in since(started).items():
            total[clock] += value / config.steps
    return total


def since(started: tuple[float, float]) -> Times:
    """Seconds by the wall's clock and the processor's since these two were read."""
    return {"wall": time.perf_counter() - started[0], "processor": time.process_time() - started[1]}


def commands(config: Config, folder: Path) -> dict[tuple[str, str], list[str]]:
    """The command line of every (video, way), but for the folder it saves to."""
    models = ["--gpt_ckpt", str(folder / "gpt"), "--vqgan_ckpt", str(folder / "vqgan")]
    common = [*models, "--n_sample", "1", "--batch_size", "1", "--device", "cpu", "--fps", str(FPS)]
    common += ["--top_k", str(config.top_k), "--top_p", str(TOP_P)]
    sliding = ["--sample_length", str(config.latents), "--temporal_sample_pos", str(config.context)]
    itself = [str(Path(__file__).resolve()), "--folder", str(folder), "--top_k", str(config.top_k)]
    window = ["--latents", str(config.latents), "--context", str(config.context), "--steps", str(config.steps)]
    found = {("short", "published"): [*itself, "--published", "short"]}
    for precision in config.precisions:
        found["short", precision] = [str(ROOT / "sample_short.py"), *common, "--precision", precision]
    found["long", "published"] = [*itself, *window, "--published", "long"]
    for precision in config.long_precisions:
        script = [str(ROOT / "sample_long.py"), *common, *sliding, "--precision", precision]
        found["long", precision] = [*script, "--save_as", "mp4", "frames"]
    return found


def measure(command: list[str], save: Path) -> Times:
    """Run a command in a fresh process of one thread, from its start to its end."""
    save.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, started, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command, "--save", str(save)], capture_output=True, text=True, check=False, env=environment
    )
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[0]} has failed:\n{done.stderr}")
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    pictures = [*save.rglob("*.mp4"), *save.rglob("00000.png")]
    first = min(path.stat().st_mtime for path in pictures) - started
    added: Times = json.loads(done.stdout.splitlines()[-1]) if "--published" in command else {}
    wait = added.get("wall", 0.0)
    return {"wall": wall + wait, "processor": processor + added.get("processor", 0.0), "first": first + wait}


def rounds(config: Config, folder: Path) -> Iterator[tuple[tuple[str, str], Times]]:
    """Every process of every round, the order alternating."""
    for number in range(config.rounds):
        for (video, way), command in list(commands(config, folder).items())[:: -1 if number % 2 else 1]:
            times = measure(command, folder / f"{video}_{way}_{number}")
            print(video, way, {clock: round(value, 2) for clock, value in times.items()}, flush=True)
            yield (video, way), times


def table(config: Config, times: dict[tuple[str, str], list[Times]]) -> list[list[Any]]:
    """A row per video and way, from medians."""
    factor, (t, _, _) = VQGANS[config.size]["downsample"][0], MODELS[config.size][-1]
    frames = {"short": t * factor, "long": config.latents * factor}
    middle = {
        key: {clock: statistics.median(one[clock] for one in found) for clock in found[0]}
        for key, found in times.items()
    }
    rows: list[list[Any]] = []
    for (video, way), one in middle.items():
        first = middle[video, "published"]
        faster = [round(first[clock] / one[clock], 2) for clock in ("wall", "processor", "first")]
        seconds = [one["wall"], one["processor"], frames[video] / one["wall"], one["first"]]
        rows.append([video, way, frames[video], *seconds, *faster])
    return rows


def keep(config: Config, rows: list[list[Any]], details: dict[str, Any]) -> None:
    """Store the result."""
    columns = ["video", "way", "frames", "command to file, s", "processor, s", "frames per second",
               "first frame in a file, s", "times faster", "by processor time", "to the first frame"]  # fmt: skip
    load, often = details["load"], "one round" if config.rounds == 1 else f"medians of {config.rounds} rounds in turn"
    note = (
        f"One video of the default model (24 layers of width 1024, 16384 codes and 101 classes; 4x16x16 codes are 16 "
        f"frames of 128x128; random weights), top-k {config.top_k}, top-p {TOP_P}; every run a fresh process of one "
        f"thread, from its start to its end, loading (files in the page cache) included; {often}. Long: a sliding "
        f"window that sees {config.context} latent frame(s), written as mp4 and numbered pictures. Its published run "
        f"is scaled: {config.steps} steps each of the first and of a later latent frame and one showing of the context "
        f"were timed; loading, decoding and writing were done in full. Where nothing else is said, seconds and ratios "
        f"are of the wall's clock; load of the machine {load[0]:.1f} before and {load[1]:.1f} after"
    )
    default = Config()
    names = ("latents", "context", "steps", "rounds", "top_k")
    changed = [(name, getattr(config, name)) for name in names if getattr(config, name) != getattr(default, name)]
    for name in ("precisions", "long_precisions"):
        if getattr(config, name) != getattr(default, name):
            changed.append((name, " ".join(getattr(config, name))))
    command = "python benchmarks/clip.py" + "".join(f" --{name} {value}" for name, value in changed)
    store("clip", columns, rows, command=command, note=note, details=details)


def run(config: Config, folder: Path) -> tuple[list[list[Any]], dict[str, Any]]:
    """Everything in one folder: the rows of the table, and what else was found."""
    before = os.getloadavg()[0]
    save_models(config.size, folder)
    errors = compare_logits(folder, list(dict.fromkeys([*config.precisions, *config.long_precisions])))
    times: dict[tuple[str, str], list[Times]] = {}
    for key, found in rounds(config, folder):
        times.setdefault(key, []).append(found)
    named = {" ".join(key): found for key, found in times.items()}
    return table(config, times), {"load": [before, os.getloadavg()[0]], "errors": errors, "runs": named}


def main() -> None:
    """Measure, print, store."""
    config = flags.parse(Config)
    import torch

    torch.set_num_threads(1)
    if config.published:
        published_process(config)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows, details = run(config, Path(folder))
    for row in rows:
        print(*(f"{value:.2f}" if isinstance(value, float) else value for value in row), sep="  ")
    if config.size != "ci":
        keep(config, rows, details)


if __name__ == "__main__":
    flags.run(main)
