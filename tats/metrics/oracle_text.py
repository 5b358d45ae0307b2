"""Does a video of the embedded world show what its sentence says?

    said = read_caption("a fast red circle moving up and to the left")
    shown = as_said(judge(frames), said)                   # the video is judged without being told what was asked
    print(said_counts([shown])["direction"])               # 87.5 % (82.7-91.1 %), 210 of 240

*Colour* and *shape*: seen in more than half of the frames. *Speed*: the legal speed that is nearest to the fitted one,
as a ratio. *Direction*: the eighth of a turn in which the first step of the fitted path goes. The path of a video in
which nothing could be followed has neither.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from tats.data.shapes import COLOURS, DIRECTIONS, SHAPES, SPEEDS
from tats.metrics.counts import Count
from tats.metrics.oracle import Judgement

_WORDS = (SPEEDS, COLOURS, SHAPES, sorted(DIRECTIONS, key=len, reverse=True))  # "down" stands in longer ones
_CAPTION = re.compile("a ({}) ({}) ({}) moving ({})".format(*("|".join(words) for words in _WORDS)))


@dataclass(frozen=True)
class Said:
    """What a sentence says, in the words of the embedded world."""

    speed: str
    colour: str
    shape: str
    direction: str


@dataclass(frozen=True)
class AsSaid:
    """What of it a video shows."""

    speed: bool
    colour: bool
    shape: bool
    direction: bool

    @property
    def everything(self) -> bool:
        """All four."""
        return all(astuple(self))


def read_caption(caption: str) -> Said:
    """A sentence as `Truth.caption` writes it.

    Raises:
        ValueError: it is none.
    """
    found = _CAPTION.fullmatch(caption.strip())
    if found is None:
        raise ValueError(f"a caption reads 'a fast red circle moving up and to the left', say; got {caption!r}")
    return Said(*found.groups())


def as_said(judgement: Judgement, said: Said) -> AsSaid:
    """Hold a video against a sentence."""
    looks, velocity = judgement.looks, judgement.velocity
    colour = float((looks.colour == list(COLOURS).index(said.colour)).mean()) > 0.5
    shape = float((looks.shape == SHAPES.index(said.shape)).mean()) > 0.5
    if not math.isfinite(sum(velocity)):
        return AsSaid(False, colour, shape, False)
    return AsSaid(speed_of(velocity) == said.speed, colour, shape, direction_of(velocity) == said.direction)


def speed_of(velocity: tuple[float, float]) -> str:
    """The name of the legal speed that is nearest as a ratio; velocity in picture sides per frame."""
    size = max(math.hypot(*velocity), 1e-9)
    return min(SPEEDS, key=lambda name: abs(math.log(size / SPEEDS[name])))


def direction_of(velocity: tuple[float, float]) -> str:
    """The name of the eighth of a turn, as captions call it."""
    return DIRECTIONS[round(4 * math.atan2(velocity[1], velocity[0]) / math.pi) % 8]


def said_counts(shown: Iterable[AsSaid]) -> dict[str, Count]:
    """How many videos show what was said: of each kind, and `everything` at once."""
    videos = list(shown)
    names = (*(each.name for each in fields(AsSaid)), "everything")
    return {name: Count(sum(getattr(one, name) for one in videos), len(videos)) for name in names}
