"""Scores of two sets of clips: Frechet and kernel distance of what a network says of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from tats.flags import UserError
from tats.metrics.features import Network
from tats.metrics.frechet import FLOOR, frechet_distance, kernel_distance, kernel_distance_of_subsets
from tats.metrics.processes import ALONE, World
from tats.metrics.statistics import KEEP, Statistics, describe_clips


def compute(
    generated: Any,
    real: Any,
    network: Network,
    *,
    ddof: int = 1,
    floor: float = FLOOR,
    prefix: str = "",
    subsets: int = 0,
    subset_size: int = 1000,
    seed: int = 0,
    world: World = ALONE,
    keep: int = KEEP,
) -> dict[str, Any]:
    """Compare two sets of clips.

    Args:
        generated, real: clips as `features.clips` takes them, gone through once; or `Statistics` of `describe_clips`.
        ddof, floor: which covariance, and which square roots, as `frechet_distance` takes them.
        prefix: stands before the names of both scores: "r" makes rFVD of reconstructions.
        subsets: 0 for the kernel distance of all kept features; else its mean over that many random subsets of
            `subset_size` features, drawn with `seed`.
        world: the processes that share the work; each gives its own part of the clips and gets the same result.
        keep: features of each side that are kept for the kernel distance.

    Returns:
        Plain values: the title in words, both distances under the network's own names (`FCD-trained`, `KCD-trained` or
        `FVD`, `KVD`), counts, the network with its fingerprint, what limits the numbers, and one line to print.

    Raises:
        UserError: too few clips, clips of several shapes, of different length on the two sides, or described by
            different networks.
    """
    theirs = _described(real, network, "real", world, keep)
    ours = _described(generated, network, "generated", world, keep)
    _check(ours, theirs, network.describe())
    frechet, kernel = (prefix + name for name in network.scores)
    values = {frechet: distance(ours, theirs, ddof, floor)}
    spread: dict[str, Any] = {}
    if subsets:
        found = kernel_distance_of_subsets(ours.features, theirs.features, subsets, subset_size, seed)
        values[kernel] = found["mean"]
        spread = {f"{kernel}_deviation": found["deviation"], "subsets": [subsets, found["size"]]}
    else:
        values[kernel] = kernel_distance(ours.features, theirs.features)
    return _result(ours, theirs, network, prefix, ddof, values) | spread


def _result(
    ours: Statistics, theirs: Statistics, network: Network, prefix: str, ddof: int, values: dict[str, float]
) -> dict[str, Any]:
    """What `compute` returns of its values."""
    described, unit = network.describe(), f"{network.unit}s"
    counts = (ours.clips, theirs.clips) if unit == "clips" else (ours.moments.count, theirs.moments.count)
    line = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    return {
        "score": prefix + network.title,
        **values,
        "n_generated": counts[0],
        "n_real": counts[1],
        "unit": network.unit,
        "clip_generated": list(ours.shape or ()),
        "clip_real": list(theirs.shape or ()),
        "covariance": {1: "unbiased (N-1)", 0: "biased (N)"}[ddof],
        "network": described,
        "notes": limits(ours, theirs, unit),
        "line": f"{line} ({counts[0]} generated against {counts[1]} real {unit}; "
        f"{described['name']} {described['fingerprint']})",
    }


def distance(ours: Statistics, theirs: Statistics, ddof: int = 1, floor: float = FLOOR) -> float:
    """The Frechet distance of two sets. From the features themselves where all were kept and they are too few for a
    covariance, which loses no digits; else from the moments."""
    weighted = any(side.moments.weight != side.moments.count for side in (ours, theirs))
    few = ours.moments.singular or theirs.moments.singular
    if few and not weighted and ours.complete and theirs.complete:
        return frechet_distance(ours.features, theirs.features, ddof, floor=floor)
    return ours.moments.distance(theirs.moments, ddof, floor=floor)


def repeated(run: Callable[[int], Mapping[str, Any]], num_runs: int, seed: int = 0) -> dict[str, Any]:
    """A score several times with other seeds: `run(seed)`, `run(seed + 1)`, ...

    Returns:
        The first result, in which every number that differs between the runs (and is no count) is replaced by its mean
        over the runs; "runs" with all results, "seeds", and "deviation" with the population deviation per name.

    Raises:
        ValueError: fewer than one run is asked for.
    """
    if num_runs < 1:
        raise ValueError(f"num_runs must be at least 1, got {num_runs}")
    seeds = [seed + k for k in range(num_runs)]
    runs = [dict(run(each)) for each in seeds]
    names = [name for name, value in runs[0].items() if isinstance(value, float)]
    means = {name: math.fsum(run[name] for run in runs) / num_runs for name in names}
    deviation = {
        name: math.sqrt(math.fsum((run[name] - means[name]) ** 2 for run in runs) / num_runs) for name in names
    }
    line = ", ".join(f"{name} {means[name]:.4g} ± {deviation[name]:.2g}" for name in names)
    found = {**runs[0], **means, "seeds": seeds, "runs": runs, "deviation": deviation}
    if num_runs > 1:
        found["line"] = f"{line} (mean and deviation of {num_runs} runs; the first: {runs[0].get('line', '')})"
    return found


def _described(side: Any, network: Network, name: str, world: World, keep: int) -> Statistics:
    return side if isinstance(side, Statistics) else describe_clips(side, network, name, world=world, keep=keep)


def _check(ours: Statistics, theirs: Statistics, described: Mapping[str, Any]) -> None:
    """Both sides were described by this network, and their clips have one length."""
    for name, side in (("generated", ours), ("real", theirs)):
        if side.network.get("fingerprint") != described["fingerprint"]:
            raise UserError(
                f"the statistics of the {name} clips come from another network ({side.network.get('name')} "
                f"{side.network.get('fingerprint')}, not {described['name']} {described['fingerprint']}): make them "
                "anew with --replace_cache"
            )
    if ours.shape and theirs.shape and ours.shape[0] != theirs.shape[0]:
        raise UserError(
            f"generated clips have {ours.shape[0]} frames, real ones {theirs.shape[0]}: a score compares equal lengths"
        )


def limits(ours: Statistics, theirs: Statistics, unit: str = "clips") -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    notes = []
    for name, side in (("generated", ours), ("real", theirs)):
        if side.moments.singular:
            notes.append(
                f"{side.moments.count} {name} {unit} are too few for a covariance of {side.moments.width} dimensions: "
                f"it is singular and the Frechet distance too large; at least {side.moments.width + 1} are needed"
            )
        if not side.complete:
            notes.append(
                f"the kernel distance takes {len(side.features)} of the {side.moments.count} {name} {unit}, chosen by "
                "hashes of their places"
            )
    if ours.shape and theirs.shape and ours.shape[1:] != theirs.shape[1:]:
        notes.append(f"pictures differ in size: {list(ours.shape[1:])} generated, {list(theirs.shape[1:])} real")
    return notes
