"""A score by a protocol: both sides are described, clip by clip, and the result names everything it depends on.

result = evaluate(find("tats"), generated, real, network, "i3d-plain", seed=0)
result["FVD"], result["line"], result["protocol"]["changes"]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tats.flags import UserError
from tats.metrics.features import Network
from tats.metrics.processes import ALONE, World
from tats.metrics.protocols import Protocol, mean_and_deviation
from tats.metrics.quality import Quality
from tats.metrics.scores import compute, repeated
from tats.metrics.sides import Side, Watched
from tats.metrics.statistics import describe_clips


@dataclass(frozen=True)
class Pair:
    """Both sides of a score; generated alone for an inception score."""

    generated: Side
    real: Side | None


def evaluate(
    protocol: Protocol,
    pair: Pair,
    network: Network | None,
    network_name: str,
    *,
    seed: int = 0,
    world: World = ALONE,
) -> dict[str, Any]:
    """The score of a protocol.

    network_name: the name of the network's weights as protocols give it; `file` for any other.

    Returns:
        Plain values: the scores under their own names, `protocol` (name, label, every choice, what was changed),
        counts, seeds, fingerprints, what the sides are, notes, and one line to read. Equal in all processes of `world`.

    Raises:
        UserError: too few clips, clips of several shapes or of different length, sides that do not fit the protocol.
    """
    seed = protocol.seed if protocol.seed is not None else seed
    runs = protocol.runs or 1
    run = {"frechet": _frechet, "inception": _inception, "pairs": _pairs}[protocol.kind]
    result = repeated(lambda number: run(protocol, pair, network, number, world), runs, seed)
    if runs == 1:
        del result["runs"], result["deviation"]
    done = protocol.with_choices(
        n_generated=_fewer(protocol, result["n_generated"]), network=network_name, pixels=pair.generated.pixels
    )
    if runs > 1:
        result["line"] = ", ".join(
            f"{name} {result[name]:.4g} ± {result['deviation'][name]:.2g}" for name in result["deviation"]
        ) + f" (mean and deviation of {runs} runs)"  # fmt: skip
    result["protocol"] = {"name": done.name, "label": done.label, "source": done.source, "choices": done.choices,
                          "changes": {name: list(both) for name, both in done.changes.items()}}  # fmt: skip
    result["score"] = f"{result['score']}, protocol {done.label}"
    changed = f"; {done.changed_line}" if done.changes else ""
    result["line"] = f"{done.label}: {result['line']}{changed}"
    sides = {"generated": pair.generated, "real": pair.real}
    result["sides"] = {name: side.describe() for name, side in sides.items() if side is not None}
    return result


def _fewer(protocol: Protocol, found: int) -> int | None:
    """The number of generated clips (or frames) that there were, where the protocol wants more."""
    return found if protocol.n_generated is not None and found < protocol.n_generated else None


def _wanted(protocol: Protocol, side: Side) -> int:
    """Generated clips that are taken: as many as the protocol says, or as there are."""
    wanted = protocol.n_generated
    if wanted is not None and protocol.picture:
        wanted = -(-wanted // (protocol.frames or 1))
    return len(side) if wanted is None else min(len(side), wanted)


def _frechet(protocol: Protocol, pair: Pair, network: Network | None, seed: int, world: World) -> dict[str, Any]:
    """Frechet and kernel distance of one run, or their means over groups of clips."""
    if network is None or pair.real is None:
        raise UserError(f"the protocol {protocol.name} compares two sets of clips by the features of a network")
    ours, theirs = Watched(), Watched()
    found = []
    for mine, other in _groups(protocol.group, _wanted(protocol, pair.generated), len(pair.real)):
        sides = (
            describe_clips(ours.watch(pair.generated.batches(seed, mine, world)), network, "generated", world=world),
            describe_clips(theirs.watch(pair.real.batches(seed, other, world)), network, "real", world=world),
        )
        found.append(compute(*sides, network, ddof=protocol.ddof, seed=seed))
    result = dict(found[0])
    if len(found) > 1:
        result = _over_groups(found, list(network.scores))
    result["fingerprints"] = {
        "generated": ours.fingerprint(world),
        "real": theirs.fingerprint(world),
        "network": result["network"]["fingerprint"],
    }
    return result


def _groups(size: int | None, generated: int, real: int) -> list[tuple[range, range]]:
    """The clips of each statistic: all of both sides, or one group of each side after the other; a rest that fills no
    group is left out."""
    if size is None or min(generated, real) < 2 * size:
        cut = size if size is not None and min(generated, real) >= size else None
        return [(range(cut or generated), range(cut or real))]
    parts = [range(first, first + size) for first in range(0, min(generated, real) - size + 1, size)]
    return [(part, part) for part in parts]


def _over_groups(found: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """One result out of those of all groups: means, deviations and counts."""
    result = dict(found[0])
    result["groups"] = len(found)
    result["group_deviation"] = {}
    for name in names:
        result[name], result["group_deviation"][name] = mean_and_deviation([each[name] for each in found])
    for count in ("n_generated", "n_real"):
        result[count] = sum(each[count] for each in found)
    told = ", ".join(f"{name} {result[name]:.4g} ± {result['group_deviation'][name]:.2g}" for name in names)
    result["line"] = f"{told} (mean and deviation of {len(found)} groups of {found[0]['n_generated']})"
    return result


def _inception(protocol: Protocol, pair: Pair, network: Network | None, seed: int, world: World) -> dict[str, Any]:
    """Inception score of the generated clips."""
    raise UserError(f"the protocol {protocol.name} needs a classifier")


def _pairs(protocol: Protocol, pair: Pair, network: Network | None, seed: int, world: World) -> dict[str, Any]:
    """PSNR, SSIM of clips that belong together, after the context; clip k of one side with clip k of the other."""
    if pair.real is None:
        raise UserError(f"the protocol {protocol.name} compares each generated clip with its original")
    count = min(_wanted(protocol, pair.generated), len(pair.real))
    ours, theirs, found = Watched(), Watched(), []
    for part, _ in _groups(protocol.group, count, count):
        quality = Quality()
        made = ours.watch(pair.generated.batches(seed, part, world))
        originals = theirs.watch(pair.real.batches(seed, part, world))
        for original, other in _clip_by_clip(originals, made):
            quality.add(original[:, protocol.context :], other[:, protocol.context :])
        found.append(quality.scores())
    names = ["psnr", "ssim"]
    result: dict[str, Any] = {"score": "PSNR, SSIM", "n_generated": count, "n_real": count, "notes": []}
    for name in names:
        result[name.upper()], _ = mean_and_deviation([float(each[name]) for each in found])
    result["line"] = f"PSNR {result['PSNR']:.4g} dB, SSIM {result['SSIM']:.4g} ({count} pairs)"
    result["fingerprints"] = {"generated": ours.fingerprint(world), "real": theirs.fingerprint(world)}
    return result


def _clip_by_clip(a: Iterator[Any], b: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs of clips uint8 [1, T, H, W, C] of two streams whose batches may differ in size."""

    def single(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield from batch["frames"].split(1)

    yield from zip(single(a), single(b))
