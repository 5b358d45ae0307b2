"""`tats evaluate`: score videos by a protocol, compare two sets of clips, tell how well a transformer foresees codes of
videos, or train a feature network.

tats evaluate --protocol tats --generated runs/samples --data_path data/ucf101 --i3d_ckpt i3d_pretrained_400.pt
tats evaluate runs/samples data/real --features_ckpt runs/features.pt
tats evaluate --train_features --data_path data/shapes --features_ckpt runs/features.pt
tats evaluate --nll --nll_shuffled --gpt_ckpt G.ckpt --vqgan_ckpt V.ckpt --vtokens --data_path data/shapes_codes
"""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats.evaluate_flags import EvaluateConfig
from tats.flags import UserError, parse

if TYPE_CHECKING:
    from tats.evaluate_sides import Opened
    from tats.metrics.features import FeatureNet

TEST_CLIPS = 480  # clips of the test split that a new network is asked for, spread evenly over the split


def train_features(config: EvaluateConfig) -> "FeatureNet":
    """Train the feature network on the train split, judge it on the test split, and write it.

    Raises:
        UserError: the data is missing or its clips are too short.
    """
    from tqdm import tqdm

    from tats.data.module import VideoData
    from tats.metrics.features import save
    from tats.metrics.train_features import gather, train

    if config.data.vtokens:
        raise UserError("--train_features learns from pixels: leave --vtokens out and give the videos")
    settings = config.data.data()
    data = VideoData(settings, seed=config.seed)
    wanted = min(config.feature_clips, 32 * config.feature_steps)
    batches = -(-wanted // settings.batch_size)
    shown = tqdm(_epochs(data, wanted), "clips for the feature network", batches, unit="batch", mininterval=0.5)
    frames, labels = gather(shown, wanted)
    shown.close()
    test = gather(spread_evenly(data.test_loader(), TEST_CLIPS))
    with tqdm(total=config.feature_steps, desc="feature network", unit="step", mininterval=0.5) as bar:

        def progress(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()

        network = train(
            frames,
            labels,
            data.label_names,
            test=test,
            steps=config.feature_steps,
            seed=config.seed,
            device=device_of(config.draw.device),
            progress=progress,
        )
    save(network, config.path)
    return network


def _epochs(data: Any, wanted: int) -> Iterator[dict[str, Any]]:
    """Batches of as many epochs as `wanted` clips need; every epoch cuts other windows, so at most four are taken."""
    loader = data.train_loader()
    for _ in range(min(4, -(-wanted // max(1, len(loader.dataset))))):
        yield from loader


def spread_evenly(loader: Any, wanted: int) -> Iterator[dict[str, Any]]:
    """Batches of clips spread evenly over the whole split, whose files are sorted by class."""
    from tats.data.loader import Failure, collate

    total = len(loader.dataset)
    count = min(total, wanted)
    places = [k * total // count for k in range(count)]
    for start in range(0, count, 32):
        batch = collate([loader.dataset[0, place] for place in places[start : start + 32]])
        if isinstance(batch, Failure):
            raise UserError(batch.message)
        yield batch


def score(config: EvaluateConfig) -> dict[str, Any] | None:
    """The score that the flags ask for, as `tats.metrics.evaluation.evaluate` gives it, with versions and fingerprints
    of checkpoints; None in processes that only helped."""
    from tats.evaluate_sides import open_all
    from tats.metrics.evaluation import evaluate, pairs
    from tats.output import versions
    from tats.perceptual import open_perceptual

    protocol = config.recipe()
    opened = open_all(config, protocol)
    result = evaluate(protocol, opened.pair, opened.network, config.seed, opened.how)
    if config.reconstruct and protocol.kind == "frechet":
        lpips = open_perceptual(config.lpips_ckpt, device_of(config.draw.device)) if config.lpips_ckpt else None
        result = reconstruction_scores(result, pairs(protocol, opened.pair, lpips, config.seed, opened.how), opened)
    result["fingerprints"] = {**result["fingerprints"], **opened.checkpoints}
    paths = {
        "generated": config.generated or config.gpt_ckpt or config.vqgan_ckpt,
        "real": config.real or config.data.data_path,
    }
    return {**result, **paths, "versions": versions()} if opened.how.world.rank == 0 else None


def reconstruction_scores(result: dict[str, Any], compared: dict[str, Any], opened: "Opened") -> dict[str, Any]:
    """A score of reconstructions under its own names (rFVD), with how close they are and which codes they use."""
    from tats.metrics.sides import Reconstructions

    made = opened.pair.generated
    usage = made.usage.scores(opened.how.world) if isinstance(made, Reconstructions) else {}
    names = opened.network.scores if opened.network is not None else ()
    own = {f"r{name}" if name in names else name: value for name, value in result.items()}
    scores = {name: compared[name] for name in compared["score"].split(", ")}
    told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    line = (
        f"r{result['line'].replace(', K', ', rK', 1)}; {told}; {usage['codes_used']} of {usage['n_codes']} codes used"
    )
    return {**own, **scores, **usage, "line": line}


def device_of(name: str | None) -> str:
    """The device asked for, or a GPU if there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def write_json(result: dict[str, Any], path: str | Path) -> None:
    """Write a result, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _files(words: Sequence[str], at: int) -> list[str]:
    """The words from place `at` up to the next flag."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), words[at:]))


def main(argv: Sequence[str] | None = None) -> None:
    """`tats evaluate --train_features ...` or `tats evaluate GENERATED REAL ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    paths = _files(words, 0)
    rest = words[len(paths) :]
    if not paths and "--protocol" in words:  # `tats evaluate --protocol NAME GENERATED REAL`
        at = words.index("--protocol") + 2
        paths = _files(words, at)
        rest = words[:at] + words[at + len(paths) :]
    if len(paths) > 2:
        raise UserError(f"tats evaluate compares two sets of clips, got {len(paths)}: {', '.join(paths)}")
    named = [word for pair in zip(("--generated", "--real"), paths) for word in pair]
    config = parse(EvaluateConfig, named + rest, "tats evaluate")
    if config.likelihood.nll:
        from tats.likelihood import nll

        judged = nll(config)
        if judged is not None:
            _tell(judged, config.out)
        return
    if config.train_features:
        described = train_features(config).describe()
        line = f"feature network {described['fingerprint']} at {config.path}: "
        if described["accuracy"] is not None:
            line += f"{100 * described['accuracy']:.1f} % of test clips by class, "
        print(f"{line}{100 * described['play_accuracy']:.1f} % by way of playing")
        result = described
    if config.generated or config.gpt_ckpt or config.reconstruct or not config.train_features:
        found = score(config)
        if found is None:
            return
        _tell(found, config.out)
    elif config.out is not None:
        write_json(result, config.out)


def _tell(result: dict[str, Any], out: str | None) -> None:
    """Print a result in a line, with its notes, and write it where --out says."""
    print(result["line"])
    for note in result["notes"]:
        print(f"note: {note}")
    if out is not None:
        write_json(result, out)
