"""Does a long video stay what it was? Class coherence, inception coherence, colour similarity.

*Class coherence* (CCS): share of windows, over all videos, whose predicted class equals that of the first window of
their video. *Inception coherence* (ICS): the same with an image classifier and single frames, for data without classes
(both from Ge et al., ECCV 2022, who draw them over time: the curve here). The first window counts; it always agrees.
*Colour similarity*: intersection of the RGB histograms of frames t and t + lag, averaged over t and videos (Brooks et
al., NeurIPS 2022, look at long videos this way).

All of them take videos as `tats.metrics.windows.stream` does, one after the other, in memory that does not grow with
their length. High is not good by itself: a frozen video has 1 everywhere. Compare with the curve of real videos.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tats.flags import UserError
from tats.metrics.counts import Count
from tats.metrics.features import FeatureNet
from tats.metrics.networks import C3DFeatures, I3DFeatures, I3DScript, InceptionFeatures
from tats.metrics.windows import BATCH, batches_of_windows, stream

Classifier = Callable[[Tensor], Tensor]
"""uint8 clips [B, T, H, W, 3] (of one frame for an image classifier) -> logits [B, classes], or classes int64 [B]."""

LAGS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BINS = 20  # of each colour channel
STILL = 4  # frames that a picture is shown for to a classifier of clips


@dataclass
class Coherence:
    """How many windows show the class of their video's first window; videos come one after the other."""

    same: list[int] = field(default_factory=list)  # per window, over all videos
    seen: list[int] = field(default_factory=list)

    def add(self, classes: Sequence[int]) -> None:
        """Take in the classes predicted for the windows of one video, in order."""
        for window, name in enumerate(classes):
            if window == len(self.seen):
                self.same.append(0)
                self.seen.append(0)
            self.same[window] += int(name == classes[0])
            self.seen[window] += 1

    @property
    def count(self) -> Count:
        """Over all windows of all videos, the first ones included: its `share` is the score."""
        return Count(sum(self.same), sum(self.seen))

    @property
    def curve(self) -> list[Count]:
        """Window by window, over the videos that are long enough."""
        return [Count(same, seen) for same, seen in zip(self.same, self.seen)]


@torch.inference_mode()
def predicted_classes(
    video: Any, classify: Classifier, length: int = 16, stride: int | None = None, batch: int = BATCH
) -> list[int]:
    """The class that a classifier gives to each window of one video."""
    found: list[int] = []
    for clips in batches_of_windows(video, length, stride, batch):
        said = classify(clips)
        found += (said.argmax(1) if said.ndim == 2 else said).tolist()
    return found


def class_coherence(
    videos: Iterable[Any], classify: Classifier, length: int = 16, stride: int | None = None
) -> Coherence:
    """CCS of some videos: `.count.share` is the score, `.curve` its course over time.

    classify: a video classifier, such as `classifier(network)`.
    """
    found = Coherence()
    for video in videos:
        found.add(predicted_classes(video, classify, length, stride))
    return found


def inception_coherence(videos: Iterable[Any], classify: Classifier, every: int = 1) -> Coherence:
    """ICS of some videos: of every `every`-th frame of each.

    classify: an image classifier; it is shown clips of one frame, uint8 [B, 1, H, W, 3].
    """
    return class_coherence(videos, classify, length=1, stride=every)


def logits_of(network: Any) -> Callable[[Tensor], Tensor] | None:
    """How the classes follow from the features [n, width] of a network; None where they do not."""
    if isinstance(network, FeatureNet) and network.config.label_names:
        return lambda features: network.classes(features.to(network.classes.weight.device))
    return (lambda features: features) if isinstance(network, (I3DFeatures, I3DScript)) else None


def classifier(network: Any) -> Classifier:
    """A network as a video classifier: a trained feature network, C3D (classes of UCF-101), I3D (of Kinetics-400).

    Raises:
        UserError: it knows no classes of clips.
    """
    logits = logits_of(network)
    if isinstance(network, C3DFeatures):
        return network.probabilities
    if logits is None:
        raise UserError(f"{type(network).__name__} knows no classes of clips: give one trained on data with classes")
    return lambda clips: logits(network.features(clips))


def image_classifier(network: Any) -> Classifier:
    """A network as an image classifier: Inception, or a trained feature network, which is shown each picture as a clip
    that stands still, as it has seen them in its training.

    Raises:
        UserError: it knows no classes of pictures.
    """
    if isinstance(network, InceptionFeatures):
        return network.probabilities
    if not isinstance(network, FeatureNet):
        raise UserError(f"{type(network).__name__} knows no classes of single pictures: give Inception")
    classify = classifier(network)
    return lambda clips: classify(clips[:, :1].expand(-1, STILL, -1, -1, -1))


@dataclass
class ColourSimilarity:
    """Colour similarity over lags; videos come one after the other, each streamed.

    What is held: sums, and the histograms of the last max(lags) frames.
    """

    lags: Sequence[int] = LAGS
    bins: int = BINS
    sums: dict[int, float] = field(default_factory=dict)
    pairs: dict[int, int] = field(default_factory=dict)  # of frames, per lag

    def __post_init__(self) -> None:
        if not self.lags or min(self.lags) < 0 or not 1 <= self.bins <= 256:
            raise ValueError(f"lags must be 0 or more and bins 1 to 256, got {list(self.lags)} and {self.bins}")
        self._before: deque[NDArray[np.float32]] = deque(maxlen=max(self.lags) + 1)  # the newest stands last

    def add(self, video: Any) -> None:
        """Take in all frames of one video."""
        self.end()
        for frames in stream(video):
            self.go_on(frames)
        self.end()

    def go_on(self, frames: Tensor) -> None:
        """Take in the next frames uint8 [n, H, W, 3] of a video that comes in pieces; `end` ends it."""
        for histogram in colour_histograms(frames, self.bins):
            self._before.append(histogram)
            for lag in self.lags:
                if lag < len(self._before):
                    shared = float(np.minimum(self._before[-1 - lag], histogram).sum(dtype=np.float64))
                    self.sums[lag] = self.sums.get(lag, 0.0) + shared
                    self.pairs[lag] = self.pairs.get(lag, 0) + 1

    def end(self) -> None:
        """The video at hand is complete: the next frames belong to another one."""
        self._before.clear()

    @property
    def curve(self) -> dict[int, float]:
        """{lag: mean similarity in [0, 1]}, for the lags that the videos are long enough for."""
        return {lag: self.sums[lag] / self.pairs[lag] for lag in sorted(self.pairs)}


def colour_similarity(videos: Iterable[Any], lags: Sequence[int] = LAGS, bins: int = BINS) -> dict[int, float]:
    """{lag in frames: intersection of the colour histograms of frames t and t + lag, averaged over t and videos}.

    It is 1 where the colours stay, whatever moves. Lags beyond the longest video are left out.
    """
    found = ColourSimilarity(lags, bins)
    for video in videos:
        found.add(video)
    return found.curve


def colour_histograms(frames: Any, bins: int = BINS) -> NDArray[np.float32]:
    """RGB histograms, all three channels jointly, as shares of the pixels.  uint8 [n, H, W, 3] -> [n, bins^3]"""
    pixels = np.asarray(frames).reshape(len(frames), -1, 3)  # [n, H * W, 3]
    level = (np.arange(256) * bins // 256).astype(np.int64)  # the bin of a value
    place = (level[pixels[..., 0]] * bins + level[pixels[..., 1]]) * bins + level[pixels[..., 2]]  # [n, H * W]
    counts = np.stack([np.bincount(row, minlength=bins**3) for row in place])  # [n, bins^3]
    return (counts / pixels.shape[1]).astype(np.float32)
