"""`tats over_time`: do long videos hold up? Scores window by window, with those of real videos beside them.

tats over_time runs/long --vqgan_ckpt VQGAN --real data/long             # writes runs/long/over_time.json
tats report runs/long                                                    # draws it, beside the videos
"""

import itertools
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tats.flags import REQUIRED, UserError, arg, parse

if TYPE_CHECKING:
    from tats.long_videos import LongVideo
    from tats.metrics.coherence import Classifier
    from tats.metrics.features import Network
    from tats.metrics.holds_up import Side

FILE = "over_time.json"


@dataclass(frozen=True)
class OverTimeConfig:
    """Measures long videos window by window: colours over lags; with a network that knows classes, their coherence;
    with any network and --real, its Frechet distance per window; for the embedded dataset, the oracle."""

    generated: str = arg(
        REQUIRED, "generated videos: a sampler's folder, video files, arrays (`tats over_time DIR` works)"
    )
    real: str | None = arg(None, "real long videos, likewise: their curves stand beside the others")
    vqgan_ckpt: str | None = arg(None, "decode the generated videos from the sampler's codes: exact pixels")
    features_ckpt: str | None = arg(None, "a trained feature network (tats evaluate --train_features): coherence, FCD")
    i3d_ckpt: str | None = arg(None, "I3D and these weights: coherence by Kinetics classes, FVD")
    length: int = arg(16, "frames of a window; windows follow one another")
    c3d_ckpt: str | None = arg(None, "C3D and these weights: class coherence by the classes of UCF-101")
    inception_ckpt: str | None = arg(None, "Inception and these weights: inception coherence")
    every: int = arg(1, "inception coherence asks for the class of every so-manieth frame")
    oracle: bool | None = arg(None, "judge by the laws of the embedded dataset; none: when all classes are its own")
    limit: int = arg(256, "videos of each side, at most")
    out: str | None = arg(None, f"the result; without it, {FILE} beside the generated videos")
    device: str | None = arg(None, "cpu, cuda, ...; none: a GPU when there is one")

    def __post_init__(self) -> None:
        if self.length < 4:
            raise UserError(f"--length {self.length}: a window must have at least 4 frames")
        for name in ("every", "limit"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.features_ckpt is not None and self.i3d_ckpt is not None:
            raise UserError("--features_ckpt and --i3d_ckpt are two networks: give one of them")

    @property
    def path(self) -> Path:
        """Where the result is written."""
        if self.out is not None:
            return Path(self.out)
        folder = Path(self.generated)
        return (folder if folder.is_dir() else folder.parent) / FILE


def measure(
    generated: "Sequence[LongVideo]",
    real: "Sequence[LongVideo]" = (),
    *,
    network: "Network | None" = None,
    length: int = 16,
    every: int = 1,
    oracle: bool | None = None,
    classify: "Classifier | None" = None,
    classify_still: "Classifier | None" = None,
) -> dict[str, Any]:
    """Everything that is known of long videos over time, as plain values; options as of `tats.metrics.holds_up.Side`.

    Returns:
        length: frames of a window. generated, real: what `tats.metrics.holds_up.Side.result` says of each side.
        network: which it is. notes: what a reader must know beside the numbers.

    Raises:
        UserError: the oracle is asked for videos without the names of its classes.
    """
    from tats.metrics.holds_up import Side, frechet_curves

    by_oracle = knows(generated, real) if oracle is None else oracle
    if by_oracle and not knows(generated, real):
        raise UserError("--oracle needs videos by class, named as in the embedded dataset, such as red_circle")
    sides: dict[str, Side] = {}
    for name, videos in (("generated", generated), ("real", real)):
        if videos:
            sides[name] = Side(length, network, every, by_oracle, classify, classify_still)
            watch(sides[name], videos, name)
    result: dict[str, Any] = {"length": length, "notes": []}
    result |= {name: side.result() for name, side in sides.items()}
    if network is not None:
        result["network"] = network.describe()
        if len(sides) == 2:
            curves, notes = frechet_curves(sides["generated"], sides["real"], network)
            for name, curve in curves.items():
                result[name]["frechet"] = {"name": network.scores[0], "values": curve}
            result["notes"] += notes
    return result


def knows(*sides: "Iterable[LongVideo]") -> bool:
    """Whether all videos have a class of the embedded dataset."""
    from tats.data.shapes import CLASSES

    return all(video.label in CLASSES for side in sides for video in side)


def watch(side: "Side", videos: "Sequence[LongVideo]", name: str) -> None:
    """Hand some videos to a side, with a line of progress."""
    from tqdm import tqdm

    with tqdm(videos, f"{name} videos", unit="video", mininterval=0.5) as bar:
        for video in bar:
            side.add(video.name, video.label, video.pieces(), str(video.file) if video.file is not None else None)


def line_of(result: dict[str, Any]) -> str:
    """The result in a few words: the last window, and what has one number."""
    words = []
    for side in ("generated", "real"):
        found = result.get(side)
        if found is None:
            continue
        said = [f"{len(found['videos'])} videos"]
        if found.get("oracle"):
            first = (len(found["oracle"]) - 1) * result["length"]
            last = found["oracle"][-1]
            kinds = (("right_object", "right object"), ("speed_of_start", "speed of the start"), ("valid", "valid"))
            shares = ", ".join(f"{text} {last[kind][0]} of {last[kind][1]}" for kind, text in kinds)
            said.append(f"frames {first}-{first + result['length']}: {shares}")
        for kind in ("CCS", "ICS"):
            if kind in found:
                said.append(f"{kind} {found[kind]['share']:.3f}")
        if found["colour"]:
            lag = max(found["colour"], key=int)
            said.append(f"colours {lag} frames apart {found['colour'][lag]:.3f}")
        if "frechet" in found and found["frechet"]["values"]:
            values = found["frechet"]["values"]
            said.append(f"{found['frechet']['name']} {values[0]:.4g} at first, {values[-1]:.4g} at last")
        words.append(f"{side}: {'; '.join(said)}")
    return "\n".join(words)


def finite(value: Any) -> Any:
    """Plain values for a JSON file: what is not a number stands as null."""
    if isinstance(value, dict):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(argv: Sequence[str] | None = None) -> None:
    """`tats over_time GENERATED [REAL] ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    paths = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if len(paths) > 2:
        raise UserError(f"tats over_time takes generated and real videos, got {len(paths)}: {', '.join(paths)}")
    named = [word for pair in zip(("--generated", "--real"), paths) for word in pair]
    config = parse(OverTimeConfig, named + words[len(paths) :], "tats over_time")
    from tats.checkpoint import load_vqgan
    from tats.evaluate import device_of, write_json
    from tats.long_videos import long_videos
    from tats.metrics.coherence import classifier, image_classifier
    from tats.metrics.networks import open_named, open_network

    device = device_of(config.device)
    network = None
    if config.features_ckpt is not None or config.i3d_ckpt is not None:
        network = open_network(config.features_ckpt, config.i3d_ckpt, device)
    clips = stills = None
    if config.c3d_ckpt is not None:
        clips = classifier(open_named("c3d-ucf101", config.c3d_ckpt, device))
    if config.inception_ckpt is not None:
        stills = image_classifier(open_named("inception-2015", config.inception_ckpt, device))
    vqgan = None if config.vqgan_ckpt is None else load_vqgan(config.vqgan_ckpt).to(device)
    generated = long_videos(config.generated, vqgan, config.limit)
    real = [] if config.real is None else long_videos(config.real, None, config.limit)
    result = measure(
        generated,
        real,
        network=network,
        length=config.length,
        every=config.every,
        oracle=config.oracle,
        classify=clips,
        classify_still=stills,
    )

    result |= {"paths": {"generated": config.generated, "real": config.real}, "vqgan": config.vqgan_ckpt}
    write_json(finite(result), config.path)
    print(line_of(result))
    for note in result["notes"]:
        print(f"note: {note}")
    print(config.path)


def read(path: str | Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        UserError: it is damaged.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return {**found, "generated": dict(found["generated"])}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: measure again with tats over_time") from None
