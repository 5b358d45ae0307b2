"""Several codes per step: what Jacobi and diagonal decoding save, and what they change.

    python benchmarks/decoding.py             # needs the models of `make demo`; writes results/decoding*.json
    python benchmarks/decoding.py --size ci   # seconds, random weights: checks only that all ways run and agree

Codes one by one (raster), Jacobi decoding of several block lengths, and diagonal waves of several lags sample the same
seeds with a trained pair. Quality: the oracle's verdicts, and bits per code of what was made under the model itself.
Time: one clip at a time in turn, one thread, processor time, medians. Jacobi must draw the codes of raster: videos of
which any code differs are counted. The second table times steps of the default model with few layers and random
weights, whose guesses mean nothing: so it says how many codes a step must yield to save time.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampling_ways import make_model
from benchmarks.tables import store
from tats import flags
from tats.demo_config import DRAWN
from tats.flags import arg

if TYPE_CHECKING:
    import torch

    from tats.gpt.model import GPT
    from tats.vqgan.model import VQGAN

WAYS: dict[str, dict[str, Any]] = {
    "raster": {},
    "jacobi": {"decode": "jacobi"},
    "jacobi, block 4": {"decode": "jacobi", "jacobi_block": 4},
    "jacobi, block 16": {"decode": "jacobi", "jacobi_block": 16},
    "diagonal": {"decode": "diagonal"},
    "diagonal, lag 1": {"decode": "diagonal", "diagonal_lag": 1},
}
JUDGED = ("raster", "jacobi", "diagonal", "diagonal, lag 1")  # blocks of another length have the codes of jacobi
BLOCKS, LAGS = (4, 8, 16, 32), (1, 2)
KNOWN = 3  # latent frames in front of the one that is timed with the default model


@dataclass(frozen=True)
class Config:
    """Compares ways to decode."""

    size: str = arg("demo", "ci: tiny random models, nothing is stored", ["ci", "demo"])
    gpt_ckpt: str = arg("runs/demo/gpt/version_0/checkpoints/last.ckpt", "checkpoint of the transformer")
    vqgan_ckpt: str = arg("runs/demo/vqgan/version_0/checkpoints/last.ckpt", "checkpoint of the VQGAN")
    n_sample: int = arg(240, "videos per way that are judged, the classes by turns")
    batch_size: int = arg(24, "of these, made at once")
    rounds: int = arg(7, "clips that are timed per way, after one that is thrown away")
    precision: str = arg("fp16", "number format of the transformer", ["fp32", "fp16", "bf16", "int8"])
    layers: int = arg(4, "layers of the default model that is timed")


def clips(gpt: "GPT", config: Config, seeds: list[int], way: str, **more: Any) -> "torch.Tensor":
    """Codes [B, t, h, w] of the clips with these seeds, the classes by turns."""
    from tats.gpt.api import sample_codes

    labels = [seed % gpt.config.n_classes for seed in seeds]
    settings = {**DRAWN, "precision": config.precision, **WAYS[way]}
    return sample_codes(gpt, label=labels, seeds=seeds, **settings, **more)


def bits(gpt: "GPT", codes: "torch.Tensor", seeds: list[int]) -> float:
    """Bits per code of clips [B, t, h, w] under the model in float32, which sees all codes in front of each."""
    import torch
    from torch.nn.functional import cross_entropy

    from tats.gpt.objective import predict

    labels = torch.tensor([[seed % gpt.config.n_classes] for seed in seeds])
    with torch.inference_mode():
        logits, target = predict(gpt, labels, codes)
    own = logits[..., gpt.config.code_offset :].flatten(0, 1)
    return float(cross_entropy(own, target.flatten() - gpt.config.code_offset)) / 0.6931471805599453


def quality(gpt: "GPT", vqgan: "VQGAN", config: Config) -> dict[str, dict[str, Any]]:
    """Per way: bits per code, the share of videos and codes equal to those of raster, and the oracle's verdicts."""
    import torch

    from tats.metrics.oracle import judge_many
    from tats.video import to_frames

    names = gpt.config.label_names or []
    found: dict[str, dict[str, Any]] = {
        way: {"bits": [], "same_codes": [], "same_videos": [], "verdicts": []} for way in JUDGED
    }
    for start in range(0, config.n_sample, config.batch_size):
        seeds = list(range(start, min(start + config.batch_size, config.n_sample)))
        labels = [names[seed % len(names)] for seed in seeds]
        judged: list[tuple[torch.Tensor, Any]] = []  # equal codes are judged once
        for way, facts in found.items():
            codes = clips(gpt, config, seeds, way)
            equal = [verdicts for other, verdicts in judged if torch.equal(other, codes)]
            if not equal:
                with torch.inference_mode():
                    equal = [judge_many(to_frames(vqgan.decode(codes)).numpy(), labels)]
                judged.append((codes, equal[0]))
            same = (codes == judged[0][0]).flatten(1).double()  # [B, t*h*w]
            facts["bits"].append(bits(gpt, codes, seeds))
            facts["same_codes"].append(float(same.mean()))
            facts["same_videos"].append(float(same.amin(1).mean()))
            facts["verdicts"] += equal[0]
    for facts in found.values():
        for name in ("bits", "same_codes", "same_videos"):
            facts[name] = statistics.fmean(facts[name])
    return found


def speed(gpt: "GPT", config: Config) -> dict[str, dict[str, Any]]:
    """Per way: median seconds of a clip, of clips made one by one in turn, and steps of the model per clip."""
    from tats.gpt.steps import Steps

    times: dict[str, list[float]] = {way: [] for way in WAYS}
    steps = {way: Steps() for way in WAYS}
    for number in range(config.rounds + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            start = time.process_time()
            clips(gpt, config, [number], way, steps=steps[way])
            times[way].append(time.process_time() - start)
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        seconds = statistics.median(times[way][1:])
        found[way] = {"way": way, "seconds": seconds, "steps": steps[way].steps / steps[way].windows,
                      "codes_per_step": steps[way].codes_per_step, "all_seconds": times[way][1:]}  # fmt: skip
    for facts in found.values():
        facts["times_faster"] = found["raster"]["seconds"] / facts["seconds"]
    return found


def demo(config: Config) -> list[dict[str, Any]]:
    """The trained pair: every way with its speed, and what it makes."""
    from tats import checkpoint
    from tats.metrics.oracle import summary

    gpt, vqgan = checkpoint.load_pair(config.gpt_ckpt, config.vqgan_ckpt)
    timed, made = speed(gpt, config), quality(gpt, vqgan, config)
    for facts in made.values():
        scores = summary(facts.pop("verdicts"))
        facts["cells"] = {name: str(count) for name, count in scores.items()}
        facts["scores"] = {name: [count.hits, count.total] for name, count in scores.items()}
    return [{**timed[way], **made.get(way, {})} for way in WAYS]


def default_steps(config: Config) -> Iterator[dict[str, Any]]:
    """Steps of the default model with few layers behind three known latent frames: milliseconds by codes per step."""
    import torch

    from tats.gpt.draw import Draw
    from tats.gpt.engine import Engine

    gpt = make_model("ci" if config.size == "ci" else "default", 2 if config.size == "ci" else config.layers)
    frame, width = gpt.config.latent_shape[1] * gpt.config.latent_shape[2], gpt.config.latent_shape[2]
    draw, known, rows = Draw(2048, 0.92), gpt.config.n_cond + KNOWN * frame, frame // width
    codes = torch.randint(3, 500, (1, max(BLOCKS)))
    passes: dict[str, tuple[int, torch.Tensor | None]] = {"raster": (1, None)}
    passes |= {f"jacobi, block {count}": (count, None) for count in BLOCKS if count < frame}
    steps = {f"diagonal, lag {lag}": width + (rows - 1) * lag for lag in LAGS}
    for lag in LAGS:
        at_once = min(-(-width // lag), rows)  # rows of the frame that are under way in the middle of it
        passes[f"diagonal, lag {lag}"] = at_once, torch.ones(at_once, at_once, dtype=torch.bool).tril()
    for precision in ("fp32", "fp16", "int8"):
        engine = Engine(gpt, 1, precision=precision)
        engine(codes.new_zeros(1, known).random_(3, 500), engine.order[:known])
        times: dict[str, list[float]] = {way: [] for way in passes}
        for _ in range(config.rounds + 1):
            for way, (count, mask) in passes.items():
                engine.rewind([known])
                start = time.process_time()
                shown = engine(codes[:, :count], engine.order[known : known + count], row=None, mask=mask)
                draw(shown[0], torch.rand(count, dtype=torch.float64))
                times[way].append(time.process_time() - start)
        one = statistics.median(times["raster"][1:])
        for way in list(passes)[1:]:
            seconds, waves = statistics.median(times[way][1:]), steps.get(way)
            faster = frame * one / (waves * seconds) if waves else None
            yield {"precision": precision, "way": way, "steps": waves, "step": seconds, "raster_step": one,
                   "times_faster": faster, "needed": None if waves else seconds / one}  # fmt: skip


def keep(config: Config, ways: list[dict[str, Any]], steps: list[dict[str, Any]]) -> None:
    """Write both tables."""
    import os

    load = f"load of the machine {os.getloadavg()[0]:.1f} at the end"
    columns = ["way", "steps per clip", "codes per step", "s per clip", "times faster", "same videos", "bits per code",
               "object right", "video valid"]  # fmt: skip
    rows = []
    for facts in ways:
        row = [facts[name] for name in ("way", "steps", "codes_per_step", "seconds", "times_faster")]
        judged = facts.get("cells")
        row += [f"{facts['same_videos']:.1%}", facts["bits"]] if judged else [None, None]
        rows.append([*row, *((judged[name] if judged else None) for name in ("right_object", "valid"))])
    note = (
        f"The demo's transformer in {config.precision}, codes drawn as in `make demo`; blocks of 8 codes "
        "and a lag of 2 columns where nothing else is said. Time: one clip at a time, one thread, processor time, "
        f"median of {config.rounds} in turn; {load}. Same videos: with every code as one by one. Bits per code: of "
        f"what was made, under the model in float32; {config.n_sample} videos per way with equal seeds, 95 % Wilson "
        "intervals"
    )
    store("decoding", columns, rows, command="python benchmarks/decoding.py", note=note, details={"ways": ways})
    columns = ["format", "way", "step, ms", "steps per latent frame", "times faster", "codes a step must yield"]
    rows = [[f["precision"], f["way"], 1000 * f["step"], f["steps"], f["times_faster"], f["needed"]] for f in steps]
    note = (
        f"Steps of the default model with {config.layers} of its 24 layers and random weights, one video, behind "
        f"{KNOWN} latent frames of 256 codes, with their draws; one thread, processor time, medians of {config.rounds} "
        f"in turn; {load}. Diagonal: every step is taken to be as long as one in the middle of a frame. Jacobi: from "
        "how many codes per step on it is faster than one by one"
    )
    store("decoding_default", columns, rows, command="python benchmarks/decoding.py", note=note,
          details={"steps": steps})  # fmt: skip


def check() -> None:
    """Tiny random models: Jacobi and waves as wide as a row draw the codes of raster in float64.

    Raises:
        AssertionError: they don't.
    """
    import torch

    from tats.gpt.api import sample_codes

    gpt = make_model("ci").double()
    expected = sample_codes(gpt, label=1, seeds=[0, 1], top_k=50, top_p=0.9)
    for more in ({"decode": "jacobi"}, {"decode": "diagonal", "diagonal_lag": gpt.config.latent_shape[2]}):
        if not torch.equal(sample_codes(gpt, label=1, seeds=[0, 1], top_k=50, top_p=0.9, **more), expected):
            raise AssertionError(f"{more} draws other codes than one by one")


def main() -> None:
    """Measure, print, store."""
    config = flags.parse(Config)
    import torch

    torch.set_num_threads(1)
    check()
    steps = list(default_steps(config))
    for row in steps:
        print({name: value for name, value in row.items() if value is not None}, flush=True)
    if config.size == "ci":
        return
    ways = demo(config)
    for row in ways:
        print({name: value for name, value in row.items() if name not in ("scores", "all_seconds")}, flush=True)
    keep(config, ways, steps)


if __name__ == "__main__":
    flags.run(main)
