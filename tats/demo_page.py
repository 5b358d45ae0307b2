"""The last step of the demo: what came out is judged, measured and shown on one page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tats import checkpoint
from tats.data.config import DataConfig
from tats.data.module import VideoData
from tats.demo_conditions import show_conditions
from tats.demo_config import CHECKPOINT, EVALUATED, FEATURES, FRAMES, RESOLUTION, DemoConfig
from tats.demo_features import judge_features, judge_pixels, show_features
from tats.demo_long import judge_long, last_windows, show_long
from tats.evaluate import spread_evenly
from tats.metrics import features
from tats.metrics.counts import Count
from tats.metrics.nearest import Nearest, nearest_clips
from tats.metrics.oracle import Judgement, judge_many, summary
from tats.metrics.quality import squared_error
from tats.metrics.spread import spread
from tats.plot import find_metrics
from tats.report import Clip, Page, Pair, grouped
from tats.video import to_frames

SHOWN = {
    "right_object": "right object in every frame",
    "motion": "motion: at least 9 of 10 steps agree",
    "turns_at_walls": "turns at walls, and only there",
    "keeps_speed": "keeps its speed",
    "legal_speed": "a speed of the data",
    "valid": "valid: all of it",
}
PAIRS = 12  # samples shown beside their nearest training clip, reconstructions beside originals


@dataclass(frozen=True)
class Found:
    """What the judge saw: clips uint8 [N, T, H, W, 3], their classes, and everything counted."""

    real: NDArray[np.uint8]
    reconstructed: NDArray[np.uint8]
    sampled: NDArray[np.uint8]
    twins: NDArray[np.uint8]  # [PAIRS, ...] the nearest training clip of the first samples, as its codes decode
    real_names: list[str]
    sampled_names: list[str]
    nearest: Nearest
    numbers: dict[str, Any]
    long: dict[str, Any]  # what `tats over_time` says of the long videos
    long_clips: list[Clip | None]


@torch.inference_mode()
def judge_demo(config: DemoConfig) -> Found:
    """Decode test clips and samples, judge both, and find the training clips that are nearest to the samples."""
    out = Path(config.out)
    vqgan = checkpoint.load_vqgan(f"{out}/vqgan{CHECKPOINT}")
    clips = DataConfig(
        data_path=f"{out}/data", resolution=RESOLUTION, sequence_length=FRAMES, batch_size=40, num_workers=0
    )
    data = VideoData(clips, seed=0)
    names = data.label_names
    real, again, labels, codes = [], [], [], []
    for batch in data.test_loader():
        coded = vqgan.encode(batch["video"])
        real.append(to_frames(batch["video"]))
        again.append(to_frames(vqgan.decode(coded)))
        labels += batch["label"].tolist()
        codes.append(coded)
    evenly = slice(None, None, max(len(labels) // EVALUATED, 1))  # clips come class by class: all classes are judged
    originals, reconstructed = torch.cat(real)[evenly][:EVALUATED], torch.cat(again)[evenly][:EVALUATED]
    with np.load(out / "samples" / "codes.npz", allow_pickle=False) as file:
        sampled_codes, sampled_labels = torch.from_numpy(file["codes"]).long(), file["labels"].tolist()
    sampled = torch.cat([to_frames(vqgan.decode(part)) for part in sampled_codes.split(40)])
    training = VideoData(DataConfig(data_path=f"{out}/codes", vtokens=True, num_workers=0), seed=0)
    known = torch.cat([batch["video"] for batch in training.train_loader()])
    nearest = nearest_clips(sampled_codes, known)
    twins = to_frames(vqgan.decode(known[torch.from_numpy(nearest.index[:PAIRS])]))
    real_names = [names[label] for label in labels][evenly][:EVALUATED]
    sampled_names = [names[label] for label in sampled_labels]
    judged = {
        "test clips": judge_many(originals.numpy(), real_names),
        "reconstructions": judge_many(reconstructed.numpy(), real_names),
        "samples": judge_many(sampled.numpy(), sampled_names),
    }
    drawn = json.loads((out / "data" / "train" / "truth.json").read_text(encoding="utf-8")).values()
    truth = [(each["start"], each["velocity"]) for each in drawn]
    sets = {
        "samples": sampled,
        "reconstructions": reconstructed,
        "training clips": spread_evenly(data.train_loader(), len(originals)),
    }
    long, long_clips = judge_long(out / "long", vqgan)
    per_clip = -10 * squared_error(originals, reconstructed).mean(1).log10()  # [N] dB
    numbers = {
        "scores": {who: {name: counted(summary(found)[name]) for name in SHOWN} for who, found in judged.items()},
        "classes": per_class(judged["samples"], sampled_names, names),
        "spread": spread({who: judged[who] for who in ("samples", "test clips")}, truth),
        "psnr_db": round(float(per_clip.mean()), 2),
        "ssim": judge_pixels(originals, reconstructed),
        "features": judge_features(features.load(out / FEATURES), originals, sets),
        "codes_used": int(torch.cat(codes).unique().numel()),
        "n_codes": vqgan.n_codes,
        "weights": weights_of(out),
        "nearest": nearest.scores(),
        "training_clips": len(known),
        "long": last_windows(long),
    }
    arrays = (originals.numpy(), reconstructed.numpy(), sampled.numpy(), twins.numpy())
    return Found(*arrays, real_names, sampled_names, nearest, numbers, long, long_clips)


def counted(count: Count) -> list[int]:
    """[hits, of how many], as it stands in the JSON file."""
    return [count.hits, count.total]


def per_class(judgements: Sequence[Judgement], names: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Right object and valid, class by class: {class: {score: [hits, of how many]}}."""
    found = {}
    for name in classes:
        part = [judgement for judgement, own in zip(judgements, names) if own == name]
        scores = summary(part)
        found[name] = {score: counted(scores[score]) for score in ("right_object", "valid")}
    return found


def weights_of(out: Path) -> dict[str, int]:
    """How many weights the two models have."""
    paths = {"vqgan": f"{out}/vqgan{CHECKPOINT}", "gpt": f"{out}/gpt{CHECKPOINT}"}
    loaded = {"vqgan": checkpoint.load_vqgan(paths["vqgan"]), "gpt": checkpoint.load_transformer(paths["gpt"])}
    return {name: sum(p.numel() for p in model.parameters()) for name, model in loaded.items()}


def write_page(config: DemoConfig, found: Found, result: dict[str, Any]) -> Path:
    """The page runs/demo/index.html; see `tats.report`."""
    out = Path(config.out)
    machine, weights, minutes = result["machine"], result["weights"], result["total_seconds"] / 60
    page = Page(
        "Videos from a model trained here",
        f"Everything on this page was made by one command in {minutes:.0f} minutes on {machine['cores']} cores "
        f"({machine['processor']}): a VQGAN that turns clips into codes "
        f"({weights['vqgan'] / 1e6:.2f} million weights), a transformer that writes codes "
        f"({weights['gpt'] / 1e6:.2f} million weights), and clips that no one drew.",
        fps=8,
    )
    show_scores(page, result)
    show_samples(page, found)
    show_long(page, found.long, found.long_clips)
    show_conditions(page, out.with_name("conditions"))
    show_data(page, config, found)
    show_training(page, out)
    show_making(page, config, result)
    return page.write(out / "index.html")


def show_scores(page: Page, numbers: dict[str, Any]) -> None:
    """Scores of samples, reconstructions and real clips side by side, and class by class."""
    page.section(
        "Scores",
        "The world of these clips is known exactly: one object on black moves straight on with one of two speeds and "
        "is reflected by the walls. So a judge can tell from pixels alone whether a clip obeys. Every share stands "
        "with its 95 % Wilson interval and its counts.",
    )
    page.scores(
        {
            who: {label: Count(*scores[name]) for name, label in SHOWN.items()}
            for who, scores in numbers["scores"].items()
        },
        "What the judge says of the samples, and of test clips and their reconstructions beside them",
    )
    page.scores(
        {
            "right object": {name: Count(*row["right_object"]) for name, row in numbers["classes"].items()},
            "valid": {name: Count(*row["valid"]) for name, row in numbers["classes"].items()},
        },
        "Samples, class by class",
        first="class",
    )
    show_features(page, numbers)
    rows = [[name, row.get("samples", "–"), row.get("test clips", "–")] for name, row in numbers["spread"].items()]
    page.table(
        ["first", "samples", "test clips"],
        rows,
        "Spread: total variation distance to the training data (0: the same shares); the test clips' own distance says "
        "what chance does",
    )


def show_samples(page: Page, found: Found) -> None:
    """Samples of every class, and the nearest training clips."""
    page.section("Samples", "Made from nothing but the name of a class. The first of each class, none picked.")
    groups: dict[str, list[Clip]] = {}
    for frames, name in zip(found.sampled, found.sampled_names):
        groups.setdefault(name.replace("_", " "), []).append(Clip(frames))
    page.grid({name: clips[:6] for name, clips in sorted(groups.items())})
    page.heading("Learned or copied?")
    copies = found.nearest.copies
    page.text(
        f"Beside each of twelve samples stands the training clip that shares the most codes with it. "
        f"{copies.hits} of {copies.total} samples are a training clip code by code; on average "
        f"{100 * float(found.nearest.agreement.mean()):.0f} % of the codes agree, black ground included."
    )
    page.pairs(
        Pair(sample, twin, ("sample", "nearest training clip"), f"{name.replace('_', ' ')}: {100 * share:.0f} % agree")
        for sample, twin, name, share in zip(found.sampled, found.twins, found.sampled_names, found.nearest.agreement)
    )


def show_data(page: Page, config: DemoConfig, found: Found) -> None:
    """What went in, and what the VQGAN makes of it."""
    page.section("What went in", "Test clips: real video files, with class, caption and sound.")
    captions = json.loads(Path(config.out, "data", "test", "captions.json").read_text(encoding="utf-8"))
    first = {name: found.real_names.index(name) for name in sorted(set(found.real_names))}
    words = {name: next(text for file, text in captions.items() if file.startswith(f"{name}/")) for name in first}
    page.videos(Clip(found.real[at], words[name]) for name, at in first.items())
    page.section(
        "Reconstructions",
        f"Test clips, and what comes back after they went through {found.numbers['n_codes']} codes, "
        f"{found.numbers['codes_used']} of which the test clips use: {found.numbers['psnr_db']:.1f} dB on average.",
    )
    page.pairs(
        Pair(found.real[at], found.reconstructed[at], caption=name.replace("_", " "))
        for name, at in list(first.items())[:PAIRS]
    )


def show_training(page: Page, out: Path) -> None:
    """Curves of both runs, training and test in one diagram where both exist."""
    for title, name in (("Training of the VQGAN", "vqgan"), ("Training of the transformer", "gpt")):
        page.section(title)
        for label, curves in grouped(find_metrics(out / name / "version_0")).items():
            page.curves(curves, label)


def show_making(page: Page, config: DemoConfig, result: dict[str, Any]) -> None:
    """Commands, settings, times, machine."""
    page.section("How it was made")
    page.code("\n".join(result["commands"]), "The commands, as the demo ran them")
    page.table(["step", "seconds"], [[name, value] for name, value in result["seconds"].items()], "Wall clock")
    page.table(["", "value"], [[name, str(value)] for name, value in result["machine"].items()], "Machine")
    for name in ("vqgan", "gpt"):
        settings = Path(config.out, name, "version_0", "config.yaml").read_text(encoding="utf-8")
        page.code(settings, f"Settings of the {name} run; `--config` starts it again from them")
