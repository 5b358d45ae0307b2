"""The demo's scores that need no oracle: by the feature network it has trained, and of reconstructions by pixels."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from tats.metrics.features import FeatureNet
from tats.metrics.quality import ssim
from tats.metrics.scores import compute
from tats.metrics.statistics import describe_clips
from tats.report import Page


def judge_features(network: FeatureNet, test: Tensor, others: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """Distances of sets of clips from the test clips, in the features of the demo's own network.

    test: uint8 [N, T, H, W, 3]. others: the sets by their names, each as `tats.metrics.features.clips` takes them.

    Returns:
        Plain values: the names of both distances, the network, and for each set its distances, the counts of both sides
        and what limits them.
    """
    real = describe_clips(test, network, "real")
    frechet, kernel = network.scores
    rows = {}
    for name, clips in others.items():
        found = compute(clips, real, network)
        kept = (frechet, kernel, "n_generated", "n_real", "notes")
        rows[name] = {key: found[key] for key in kept}
    return {"names": [frechet, kernel], "title": network.title, "network": network.describe(), "sets": rows}


def judge_pixels(test: Tensor, reconstructed: Tensor) -> float:
    """SSIM of reconstructions, the mean over all frames of clips uint8 [N, T, H, W, 3]."""
    return round(float(ssim(test, reconstructed).mean()), 4)


def show_features(page: Page, numbers: Mapping[str, Any]) -> None:
    """Two tables for the section of scores: distances in trained features, and how close reconstructions are."""
    found = numbers["features"]
    network, (frechet, kernel) = found["network"], found["names"]
    rows = [
        [name, row[frechet], row[kernel], f"{row['n_generated']} against {row['n_real']}"]
        for name, row in found["sets"].items()
    ]
    known = "" if network["accuracy"] is None else f"{100 * network['accuracy']:.0f} % of the test clips by class and "
    page.table(
        ["against the test clips", frechet, kernel, "clips"],
        rows,
        f"{frechet}: {found['title']}, in the features of a network that this demo has trained on its own classes "
        f"(network {network['fingerprint']}; it recognises {known}{100 * network['play_accuracy']:.0f} % by way of "
        f"playing); {kernel} is the kernel distance. 0 would be the same; training clips say what two real sets differ",
    )
    for note in dict.fromkeys(note for row in found["sets"].values() for note in row["notes"]):
        page.text(f"Note: {note}.")
    count = numbers["scores"]["reconstructions"]["valid"][1]
    page.table(
        ["reconstructions of test clips", "value"],
        [
            ["PSNR in dB", numbers["psnr_db"]],
            ["SSIM", numbers["ssim"]],
            ["codes used", f"{numbers['codes_used']} of {numbers['n_codes']}"],
        ],
        f"How close reconstructions come to their {count} originals: means over clips",
    )
