"""A score by a protocol: both sides are described, clip by clip, and the result names everything it depends on.

result = evaluate(find("tats"), Pair(generated, real), network)
result["FVD"], result["line"], result["protocol"]["changes"]
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.metrics import quality
from tats.metrics.inception_score import inception_score
from tats.metrics.processes import ALONE, World
from tats.metrics.protocols import Protocol, mean_and_deviation
from tats.metrics.scores import compute, repeated
from tats.metrics.sides import Side, Watched
from tats.metrics.statistics import Statistics, describe_clips
from tats.metrics.statistics_cache import cached

_WEIGHTS = {"I3D, 400 logits": "i3d-plain", "I3D, 400 logits, TorchScript": "i3d-torchscript", "C3D": "c3d-ucf101",
            "Inception-v3 of 2015, pool": "inception-2015", "VideoMAE v2": "videomae-ssv2",
            "LPIPS, AlexNet": "alexnet"}  # fmt: skip
_OF_REAL = ("split", "real_clips", "n_real", "frames", "stride", "size", "resize", "levels", "by_video")


@dataclass(frozen=True)
class Pair:
    """Both sides of a score; an inception score is of the generated side alone."""

    generated: Side
    real: Side | None


@dataclass(frozen=True)
class How:
    """How a score is computed, none of which changes it: the processes that share the work, and what becomes of stored
    statistics of real clips: used and kept ("use"), made anew ("replace"), or left alone ("none")."""

    world: World = ALONE
    cache: str = "use"


def evaluate(protocol: Protocol, pair: Pair, network: Any, seed: int = 0, how: How = How()) -> dict[str, Any]:
    """The score of a protocol.

    network: a `Network`; for inception scores a `Classifier`; for pairs a `tats.perceptual.Perceptual`, or None, which
        leaves LPIPS out.
    seed: of everything random, where the protocol states none.

    Returns:
        Plain values: the scores under their own names, `protocol` (name, label, every choice, what was changed),
        counts, seeds, fingerprints, what the sides are, notes, and one line to read. Equal in all processes.

    Raises:
        UserError: too few clips, clips of several shapes or of different length, sides that do not fit the protocol.
    """
    seed = protocol.seed if protocol.seed is not None else seed
    runs = protocol.runs or 1
    run = {"frechet": _frechet, "inception": _inception, "pairs": pairs}[protocol.kind]
    result = repeated(lambda number: run(protocol, pair, network, number, how), runs, seed)
    if runs == 1:
        del result["runs"], result["deviation"]
    else:
        spread = result["deviation"]
        told = ", ".join(f"{name} {result[name]:.4g} ± {spread[name]:.2g}" for name in spread)
        result["line"] = f"{told} (mean and deviation of {runs} runs of {result['n_generated']} clips)"
    done = protocol.with_choices(
        n_generated=_fewer(protocol, result["n_generated"]),
        network=_weights_of(result.get("network"), protocol),
        pixels=pair.generated.pixels,
    )
    if done.group is not None and result["n_generated"] < done.group:
        done = replace(done, group=None)  # too few for one group: all clips made one statistic
    result["protocol"] = {"name": done.name, "label": done.label, "source": done.source, "choices": done.choices,
                          "changes": {name: list(both) for name, both in done.changes.items()}}  # fmt: skip
    result["score"] = f"{result['score'].split(', protocol')[0]}, protocol {done.label}"
    result["line"] += f"; protocol {done.label}" + (f": {done.changed_line}" if done.changes else "")
    sides = {"generated": pair.generated, "real": pair.real}
    result["sides"] = {name: side.describe() for name, side in sides.items() if side is not None}
    return result


def _weights_of(described: dict[str, Any] | None, protocol: Protocol) -> str:
    """What has judged, by the name that protocols give its weights."""
    if described is None:
        return "none"
    name = str(described["name"])
    return _WEIGHTS.get(name, "file" if protocol.network == "file" else name)


def _fewer(protocol: Protocol, found: int) -> int | None:
    """The number of generated clips (or frames) that there were, where the protocol wants more."""
    return found if protocol.n_generated is not None and found < protocol.n_generated else None


def _wanted(protocol: Protocol, side: Side) -> int:
    """Generated clips that are taken: as many as the protocol says, or as there are."""
    wanted = protocol.n_generated
    if wanted is not None and protocol.picture:
        wanted = -(-wanted // (protocol.frames or 1))
    return len(side) if wanted is None else min(len(side), wanted)


def _frechet(protocol: Protocol, pair: Pair, network: Any, seed: int, how: How) -> dict[str, Any]:
    """Frechet and kernel distance of one run, or their means over groups of clips."""
    if network is None or pair.real is None:
        raise UserError(f"the protocol {protocol.name} compares two sets of clips by the features of a network")
    if (network.unit == "frame") != protocol.picture:
        described = "single pictures" if protocol.picture else "clips"
        raise UserError(f"the protocol {protocol.name} needs a network of {described}, which this one is not")
    ours, found, prints = Watched(), [], []
    for mine, other in _groups(protocol.group, _wanted(protocol, pair.generated), len(pair.real)):
        clips = ours.watch(pair.generated.batches(seed, mine, how.world))
        made = describe_clips(clips, network, "generated", world=how.world)
        real = _real_statistics(protocol, pair.real, network, seed, other, how)
        prints.append(int(real.network["clips"], 16))
        found.append(compute(made, real, network, ddof=protocol.ddof, seed=seed))
    result = found[0] if len(found) == 1 else _over_groups(found, list(network.scores))
    return result | {"fingerprints": {"generated": ours.fingerprint(how.world), "real": Watched.joined(prints),
                                      "network": result["network"]["fingerprint"]}}  # fmt: skip


def _real_statistics(protocol: Protocol, real: Side, network: Any, seed: int, part: range, how: How) -> Statistics:
    """Statistics of real clips, with the fingerprint of these; from the disk where they lie there."""

    def make() -> Statistics:
        watched = Watched()
        made = describe_clips(watched.watch(real.batches(seed, part, how.world)), network, "real", world=how.world)
        made.network = {**made.network, "clips": watched.fingerprint(how.world)}
        return made

    key = real.key()
    if key is None or how.cache == "none":
        return make()
    choices = protocol.choices
    full = {"data": key, "choices": {name: choices[name] for name in _OF_REAL}, "network": network.describe(),
            "seed": seed, "part": [part.start, part.stop]}  # fmt: skip
    return cached(full, make, replace=how.cache == "replace", world=how.world)


def _groups(size: int | None, generated: int, real: int) -> list[tuple[range, range]]:
    """The clips of each statistic: all of both sides, or one group of each side after the other; a rest that fills no
    group is left out."""
    least = min(generated, real)
    if size is None or least < size:
        return [(range(generated), range(real))]
    parts = [range(first, first + size) for first in range(0, least - size + 1, size)]
    return [(part, part) for part in parts]


def _over_groups(found: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """One result out of those of all groups: means, deviations and counts."""
    result = dict(found[0]) | {"groups": len(found), "group_deviation": {}}
    for name in names:
        result[name], result["group_deviation"][name] = mean_and_deviation([each[name] for each in found])
    for count in ("n_generated", "n_real"):
        result[count] = sum(each[count] for each in found)
    result["notes"] = list(dict.fromkeys(note for each in found for note in each["notes"]))
    told = ", ".join(f"{name} {result[name]:.4g} ± {result['group_deviation'][name]:.2g}" for name in names)
    result["line"] = f"{told} (mean and deviation of {len(found)} groups of {found[0]['n_generated']})"
    return result


def _inception(protocol: Protocol, pair: Pair, network: Any, seed: int, how: How) -> dict[str, Any]:
    """Inception score of the generated clips; the seed that a protocol states shuffles them first."""
    if not hasattr(network, "probabilities"):
        raise UserError(f"the protocol {protocol.name} needs a classifier: tats weights get {protocol.network}")
    count, watched = _wanted(protocol, pair.generated), Watched()
    made = watched.watch(pair.generated.batches(seed, range(count), how.world))
    result = inception_score(
        made, network, count, splits=min(protocol.splits, count), shuffle=protocol.seed, world=how.world
    )
    prints = {"generated": watched.fingerprint(how.world), "network": result["network"]["fingerprint"]}
    return {"score": "inception score", **result, "n_generated": count, "notes": [], "fingerprints": prints}


def pairs(protocol: Protocol, pair: Pair, network: Any, seed: int, how: How) -> dict[str, Any]:
    """PSNR and SSIM of clips that belong together, after the context: per frame, then the mean over time, over clips,
    and over groups. Clip k of one side belongs to clip k of the other. With a `network` that compares pictures, its
    distance as well."""
    if pair.real is None:
        raise UserError(f"the protocol {protocol.name} compares each generated clip with its original")
    count, context = min(_wanted(protocol, pair.generated), len(pair.real)), protocol.context
    ours, theirs, rows = Watched(), Watched(), []
    made = ours.watch(pair.generated.batches(seed, range(count), how.world))
    real = theirs.watch(pair.real.batches(seed, range(count), how.world))
    names = ["PSNR", "SSIM", *(["LPIPS"] if network is not None else [])]
    for number, (original, other) in enumerate(_clip_by_clip(real, made)):
        _check_pair(original, other)
        a, b = original[:, context:], other[:, context:]  # uint8 [1, T, H, W, C]
        values = [quality.psnr(a, b).clamp(max=quality.CEILING), quality.ssim(a, b)]
        values += [network.distance(a, b).double()] if network is not None else []
        rows.append([how.world.index(number), *(float(each.mean()) for each in values)])
    table = how.world.gather(torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 1 + len(names)))
    table = table[table[:, 0].argsort()][:, 1:]  # [clips, scores], in the order of the clips
    size = protocol.group if protocol.group is not None and protocol.group <= len(table) else len(table)
    if not size:
        raise UserError("there are no pairs of clips to compare")
    means = torch.stack([part.mean(0) for part in table.split(size) if len(part) == size])  # [groups, scores]
    note = "LPIPS is left out: it needs --lpips_ckpt alexnet (tats weights list says where that lies)"
    result: dict[str, Any] = {"score": ", ".join(names), "n_generated": len(table), "n_real": len(table),
                              "notes": [note] if network is None else []}  # fmt: skip
    result |= {} if network is None else {"network": network.describe()}
    result |= {name: float(value) for name, value in zip(names, means.mean(0))}
    if len(means) > 1:
        result |= {"groups": len(means),
                   "group_deviation": dict(zip(names, means.std(0, correction=0).tolist()))}  # fmt: skip
    told = ", ".join(f"{name} {result[name]:.4g}" for name in names)
    of = f", {len(means)} groups of {size}" if len(means) > 1 else ""
    result["line"] = f"{told} ({len(table)} pairs{of})"
    return result | {"fingerprints": {"generated": ours.fingerprint(how.world), "real": theirs.fingerprint(how.world)}}


def _check_pair(original: Tensor, other: Tensor) -> None:
    """Both clips uint8 [1, T, H, W, C] have one shape, and pictures that SSIM's window fits into."""
    if original.shape != other.shape:
        raise UserError(f"clips of a pair differ in shape: {list(other.shape[1:])} and {list(original.shape[1:])}")
    if min(original.shape[2:4]) < quality.WINDOW:
        raise UserError(f"SSIM needs pictures of at least {quality.WINDOW}x{quality.WINDOW}, these are "
                        f"{original.shape[2]}x{original.shape[3]}: --resolution makes them larger")  # fmt: skip


def _clip_by_clip(a: Iterator[Any], b: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of clips uint8 [1, T, H, W, C] of two streams whose batches may differ in size."""

    def single(batches: Iterator[Any]) -> Iterator[Tensor]:
        for batch in batches:
            yield from batch["frames"].split(1)

    yield from zip(single(a), single(b))
