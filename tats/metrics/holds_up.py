"""Everything about one side of a comparison over time, generated or real videos, gathered in one pass over the frames.

    side = Side(length=16, network=network, oracle=True)
    for video in videos:
        side.add("0.mp4", "red_circle", pieces)             # pieces as tats.metrics.windows.stream takes them
    side.result()                                           # plain values

Each frame is read, or decoded, once; what is held depends on the number of windows, not on that of the frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tats.flags import UserError
from tats.metrics.coherence import LAGS, Classifier, Coherence, ColourSimilarity, image_classifier, logits_of
from tats.metrics.features import FeatureNet, Network
from tats.metrics.frechet import Moments
from tats.metrics.oracle_windows import WindowJudge, WindowScores, over_time
from tats.metrics.windows import BATCH, Cutter, stream

STILLS = 64  # pictures that an image classifier sees at once


@dataclass
class Side:
    """Some long videos, and what is known of them.

    length: frames of a window. network: makes features (Frechet distance per window); its own classes, if it knows any,
    serve for both coherences. classify, classify_still: classifiers of clips and of pictures in its place. every: of so
    many frames one is asked for its class. oracle: judge by the laws of the embedded dataset.
    """

    length: int = 16
    network: Network | None = None
    every: int = 1
    oracle: bool = False
    classify: Classifier | None = None
    classify_still: Classifier | None = None
    videos: list[dict[str, Any]] = field(default_factory=list)
    judged: list[list[WindowScores]] = field(default_factory=list)
    classes: Coherence = field(default_factory=Coherence)
    stills: Coherence = field(default_factory=Coherence)
    colours: ColourSimilarity = field(default_factory=lambda: ColourSimilarity(LAGS))
    features: list[list[Tensor]] = field(default_factory=list)  # per window, of every video [width] or [length, width]

    def __post_init__(self) -> None:
        if self.network is not None and self.network.min_frames > self.length:
            raise UserError(
                f"--length {self.length}: this network needs windows of at least {self.network.min_frames} frames"
            )
        known = isinstance(self.network, FeatureNet) and self.network.config.label_names
        if known and self.classify_still is None:
            self.classify_still = image_classifier(self.network)

    @torch.inference_mode()
    def add(self, name: str, label: str | None, pieces: Any, file: str | None = None) -> None:
        """Take in one video: its name, its class if known, its frames; `file` is kept for whoever shows it.

        Raises:
            UserError: it is shorter than a window.
        """
        judge = None
        if self.oracle and label is not None:
            colour, shape = label.split("_")
            judge = WindowJudge(colour, shape, self.length)
        clips = _Batches(Cutter(self.length), self._describe, BATCH) if self.network is not None else None
        named = None if self.classify is None else _Batches(Cutter(self.length), self.classify, BATCH)
        still = None
        if self.classify_still is not None:
            still = _Batches(Cutter(1, self.every), self.classify_still, STILLS)
        windows: list[WindowScores] = []
        frames = 0
        for piece in stream(pieces):
            frames += len(piece)
            self.colours.go_on(piece)
            for batches in filter(None, (clips, named, still)):
                batches.add(piece)
            if judge is not None:
                windows += judge.add(piece.numpy())
        self.colours.end()
        if frames < self.length:
            raise UserError(f"{name} has {frames} frames, a window {self.length}: give longer videos, or --length")
        self.videos.append({"name": name, "class": label, "frames": frames, "file": file})
        if judge is not None:
            self._keep_verdicts(windows + judge.finish())
        if still is not None:
            self.stills.add(still.finish().argmax(1).tolist())
        said = None if clips is None else clips.finish()
        for place, row in enumerate([] if said is None else said):
            if place == len(self.features):
                self.features.append([])
            self.features[place].append(row)
        logits = logits_of(self.network)
        if named is not None:
            self._keep_classes(named.finish())
        elif logits is not None and said is not None:
            self._keep_classes(logits(said))

    def _describe(self, clips: Tensor) -> Tensor:
        """[b, length, H, W, 3] -> features [b, width], or [b, length, width] of a network of single frames."""
        if self.network is None:
            raise ValueError("there is no network to describe clips")
        said = self.network.features(clips).float().cpu()
        return said if len(said) == len(clips) else said.unflatten(0, (len(clips), -1))

    def _keep_verdicts(self, windows: list[WindowScores]) -> None:
        self.judged.append(windows)
        names = ("right_object", "motion", "speed", "speed_of_start", "legal_speed", "valid")
        self.videos[-1]["oracle"] = {name: [getattr(window, name) for window in windows] for name in names}

    def _keep_classes(self, said: Tensor) -> None:
        classes = said.argmax(1).tolist()
        self.classes.add(classes)
        self.videos[-1]["classes"] = classes

    def result(self) -> dict[str, Any]:
        """Plain values: videos (with their own curves), oracle ({test: [hits, of how many]} per window), motion (share
        of steps that agree, per window), CCS and ICS (share and curve), colour ({lag: similarity}). What could not be
        measured is absent."""
        found: dict[str, Any] = {"videos": self.videos, "colour": self.colours.curve}
        if self.oracle:
            windows = over_time(self.judged)
            found["oracle"] = [{name: [each.hits, each.total] for name, each in one.items()} for one in windows]
            found["motion"] = [
                sum(video[place].motion for video in self.judged if place < len(video))
                / sum(place < len(video) for video in self.judged)
                for place in range(len(windows))
            ]
        for name, coherence in (("CCS", self.classes), ("ICS", self.stills)):
            if coherence.seen:
                curve = [[each.hits, each.total] for each in coherence.curve]
                found[name] = {"share": coherence.count.share, "curve": curve}
        if self.stills.seen:
            found["ICS"]["every"] = self.every
        return found


def frechet_curves(generated: Side, real: Side, network: Network) -> tuple[dict[str, list[float]], list[str]]:
    """The Frechet distance of window w of all videos to windows of real ones, for both sides: FVD over time with I3D.

    The windows compared with are all those of the second half of the real videos; the first half makes the real curve.
    Both curves are made from equally many videos, since the distance of few is too large.

    Returns:
        {"generated": a value per window, "real": likewise}, and what a reader must know; no curves for too few videos.
    """
    half = len(real.videos) // 2
    count = min(half, len(generated.videos))
    if count < 2:
        return {}, ["a Frechet distance per window needs at least 2 generated and 4 real videos"]
    reference = Moments()
    for rows in real.features:
        reference.add(_joined(rows[half:]))
    curves: dict[str, list[float]] = {}
    for name, side in (("generated", generated), ("real", real)):
        curves[name] = []
        for rows in side.features:
            if len(rows) < len(side.videos):
                break  # not all videos are that long
            moments = Moments()
            moments.add(_joined(rows[:count]))
            curves[name].append(moments.distance(reference))
    notes = [f"{network.scores[0]} per window: {count} videos on each side, against {reference.count} real windows"]
    if count * (1 if network.unit == "clip" else real.length) <= reference.width:
        notes.append(
            f"{count} videos are too few for a covariance of {reference.width} dimensions: the Frechet distances are "
            "too large, alike on both sides; compare the curves, not the numbers"
        )
    return curves, notes


def _joined(rows: list[Tensor]) -> Tensor:
    """Features of one window of some videos as [n, width]."""
    return torch.stack(rows).flatten(0, -2)


class _Batches:
    """Windows of one video, handed on a few at a time; what comes back is kept."""

    def __init__(self, cutter: Cutter, use: Callable[[Tensor], Tensor], batch: int):
        self.cutter, self.use, self.batch = cutter, use, batch
        self.waiting: list[Tensor] = []
        self.said: list[Tensor] = []

    def add(self, frames: Tensor) -> None:
        for clip in self.cutter.add(frames):
            self.waiting.append(clip)
            if len(self.waiting) == self.batch:
                self._send()

    def finish(self) -> Tensor:
        if self.waiting:
            self._send()
        return torch.cat(self.said)

    def _send(self) -> None:
        self.said.append(self.use(torch.stack(self.waiting)).float().cpu())
        self.waiting = []
