"""What number formats change: codes of a trained transformer against float32, and what the oracle says of its videos.

    python benchmarks/precision.py                  # needs the models of `make demo`; writes results/precision.json
    python benchmarks/precision.py --n_sample 24    # a look: prints, stores nothing

Every format samples the same seeds. The divergence is measured along the codes that float32 drew, code by code behind
the format's own keys and values: mean over all codes of KL(float32, format), in nats, and the share of codes at which
both have the same likeliest code. Videos are compared in pairs of equal seeds: how many were valid in float32 alone,
how many in the format alone.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sampling_ways import CACHE8, ENGINES
from benchmarks.tables import store
from tats import flags
from tats.demo_config import DRAWN
from tats.flags import arg

if TYPE_CHECKING:
    import torch

    from tats.gpt.model import GPT


@dataclass(frozen=True)
class Config:
    """Compares number formats on a trained pair."""

    gpt_ckpt: str = arg("runs/demo/gpt/version_0/checkpoints/last.ckpt", "checkpoint of the transformer")
    vqgan_ckpt: str = arg("runs/demo/vqgan/version_0/checkpoints/last.ckpt", "checkpoint of the VQGAN")
    n_sample: int = arg(240, "videos per format, the classes by turns")
    batch_size: int = arg(60, "videos made at once")


def caching(way: str) -> "mock._patch[Any]":
    """Inside, engines in 8 bits hold keys and values in 8 bits or in float32, as the way says, not as it is faster."""
    return mock.patch("tats.gpt.engine.eight_is_faster", lambda *asked: way == CACHE8)


def along(gpt: "GPT", labels: "torch.Tensor", codes: "torch.Tensor", way: str) -> "torch.Tensor":
    """Log-probabilities of every code of videos [B, t, h, w] given those in front of it: [B, t*h*w, n_codes]."""
    import torch

    from tats.gpt.engine import prepared

    engine = prepared(gpt, len(codes), precision=way.split(",")[0])
    tokens = torch.cat([labels[:, None], codes.flatten(1) + gpt.config.code_offset], 1)[:, :-1]
    engine.reset()
    rows = [engine(tokens[:, at : at + 1], engine.order[at : at + 1]) for at in range(tokens.shape[1])]
    return torch.stack(rows, 1).log_softmax(-1)


def judged(vqgan: Any, codes: "torch.Tensor", names: list[str]) -> list[Any]:
    """The oracle's verdicts on videos of codes [B, t, h, w] against their classes."""
    import torch

    from tats.metrics.oracle import judge_many
    from tats.video import to_frames

    with torch.inference_mode():
        return judge_many(to_frames(vqgan.decode(codes)).numpy(), names)


def measure(config: Config) -> dict[str, dict[str, Any]]:
    """Divergence from float32 and the verdicts, per format."""
    import torch

    from tats import checkpoint
    from tats.gpt.api import sample_codes
    from tats.metrics.oracle import summary

    gpt, vqgan = checkpoint.load_pair(config.gpt_ckpt, config.vqgan_ckpt)
    names = gpt.config.label_names or []
    found: dict[str, dict[str, Any]] = {way: {"kl": [], "same": [], "equal": [], "verdicts": []} for way in ENGINES}
    for start in range(0, config.n_sample, config.batch_size):
        seeds = list(range(start, min(start + config.batch_size, config.n_sample)))
        labels = torch.tensor([seed % len(names) for seed in seeds])
        settings = {"label": labels.tolist(), "seeds": seeds, **DRAWN}
        first = sample_codes(gpt, **settings)
        truth = along(gpt, labels, first, "fp32").double()
        for way, facts in found.items():
            with caching(way):
                codes = first if way == "fp32" else sample_codes(gpt, **settings, precision=way.split(",")[0])
                other = truth if way == "fp32" else along(gpt, labels, first, way).double()
            facts["kl"].append(float((truth.exp() * (truth - other)).sum(-1).mean()))
            facts["same"].append(float((truth.argmax(-1) == other.argmax(-1)).double().mean()))
            facts["equal"].append(float((codes == first).double().mean()))
            facts["verdicts"] += judged(vqgan, codes, [names[label] for label in labels])
    valid = [verdict.valid for verdict in found["fp32"]["verdicts"]]
    for facts in found.values():
        pairs = [(before, verdict.valid) for before, verdict in zip(valid, facts["verdicts"], strict=True)]
        facts["lost"], facts["won"] = pairs.count((True, False)), pairs.count((False, True))
        facts["scores"] = summary(facts.pop("verdicts"))
        for name in ("kl", "same", "equal"):
            facts[name] = sum(facts[name]) / len(facts[name])
    return found


def table(found: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what documents show."""
    columns = [
        "format", "KL per code, nats", "same likeliest code", "same codes drawn", "object right", "video valid",
        "valid here alone", "in fp32 alone",
    ]  # fmt: skip
    rows = [
        [
            precision,
            f"{max(facts['kl'], 0.0):.2g}",
            f"{facts['same']:.2%}",
            f"{facts['equal']:.1%}",
            str(facts["scores"]["right_object"]),
            str(facts["scores"]["valid"]),
            str(facts["won"]),
            str(facts["lost"]),
        ]
        for precision, facts in found.items()
    ]
    return columns, rows


def main() -> None:
    """Measure, print, store."""
    config = flags.parse(Config)
    import torch

    torch.set_num_threads(1)
    found = measure(config)
    columns, rows = table(found)
    for row in rows:
        print(*row, sep="  ")
    if config != Config():
        return  # a look, or other models than the demo's
    note = (
        f"The demo's transformer, {config.n_sample} videos per format with equal seeds, drawn as in "
        f"`make demo`; shares with 95 % Wilson intervals. A single code drawn otherwise changes all that follow it: "
        "where the last two columns are alike, a format makes other videos, not worse ones"
    )
    details = {
        precision: {**facts, "scores": {name: [c.hits, c.total] for name, c in facts["scores"].items()}}
        for precision, facts in found.items()
    }
    store("precision", columns, rows, command="python benchmarks/precision.py", note=note, details=details)


if __name__ == "__main__":
    flags.run(main)
