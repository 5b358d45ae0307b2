"""Videos that go on from given ones: which frames are given, their codes, and what to say of the joint.

`open_continuation` checks what --continue_from names before anything is sampled. The given frames are encoded as a clip
of their own: the encoder looks ahead, so codes cut out of a longer clip would know of frames that come later.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tats import checkpoint
from tats.codes_file import Video
from tats.data.given import GivenCodes, GivenFrames, open_given
from tats.data.left_out import say
from tats.flags import UserError
from tats.gpt.condition import label_id
from tats.gpt.config import GPTConfig
from tats.gpt.continue_config import ContinueConfig
from tats.video import mark_given
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import encode_stream

READ = 64  # frames read at a time
NAMED = 5  # names in one line


@dataclass
class Continuation:
    """Given videos and the frames of them that are known.

    Per video that is continued, classes by turns: `which` of the source it is, its `label` (None without classes), its
    `windows` of frames in the file (of codes: of latent frames). `frames` are given of each, which fill `latents`
    latent frames of `side` rows and columns.
    """

    config: ContinueConfig
    source: GivenFrames | GivenCodes
    vqgan: VQGAN
    which: list[int]
    labels: list[int | None]
    windows: list[range]
    latents: int
    side: int
    label_names: list[str] | None
    in_pieces: bool = False  # a VQGAN with group normalisation encodes more than a training clip, with seams
    _codes: dict[int, Tensor] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Given frames, as the VQGAN sees them."""
        return self.latents * self.vqgan.config.downsample[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What the codes of a run depend on: where the given frames come from, and a digest of what lies there."""
        source = self.source
        lengths = source.lengths if isinstance(source, GivenFrames) else source.latents
        digest = hashlib.sha256(repr([(source.names[i], lengths[i], _size(source, i)) for i in self.which]).encode())
        asked = {name: getattr(self.config, name) for name in ("continue_from", "observed_frames", "observed_start")}
        return {**asked, "given_videos": digest.hexdigest()[:16]}

    def videos(self, n_sample: int, first_seed: int) -> list[Video]:
        """The videos of a run, at most `n_sample`: every given one goes on once, then every one again."""
        made = []
        for index in range(min(n_sample, len(self.which) * self.config.continuations)):
            label = self.labels[index % len(self.which)]
            name = None if label is None else self.label_names[label] if self.label_names else str(label)
            made.append(Video(index, first_seed + index, label, name))
        return made

    def known(self, videos: Sequence[Video]) -> Tensor:
        """The codes that videos begin with: int64 [B, latents, side, side]."""
        return torch.stack([self._known(video.index % len(self.which)) for video in videos])

    def mark(self, frames: Tensor, first: int) -> Tensor:
        """Frames of videos from their frame `first` on, the given ones with a thin border.  uint8 [B, n, H, W, C]"""
        return mark_given(frames, first, self.frames)

    def entry(self, video: Video) -> dict[str, Any]:
        """What the manifest says of a video: the given one, and its first and last given frame (of codes: latent
        frame)."""
        place = video.index % len(self.which)
        window = self.windows[place]
        given = {"name": self.source.names[self.which[place]], "first": window[0], "last": window[-1]}
        return {**given, "unit": "frame" if isinstance(self.source, GivenFrames) else "latent frame"}

    def class_of(self, video: Video) -> str | None:
        """The class whose folder the given video lies in."""
        return self.source.classes[self.which[video.index % len(self.which)]]

    def _known(self, place: int) -> Tensor:
        if place not in self._codes:
            which = self.which[place]
            if isinstance(self.source, GivenCodes):
                self._codes[place] = self.source.codes(which, self.latents)
            else:
                pieces = self._pieces(self.source, which, self.windows[place])
                frames = encode_stream(self.vqgan, pieces, group_norm_in_pieces=self.in_pieces)  # each [1, h, w]
                self._codes[place] = torch.cat(list(frames)).cpu()
        return self._codes[place]

    def _pieces(self, source: GivenFrames, which: int, window: range) -> Iterator[Tensor]:
        """The given frames of one video and no others, float [1, C, n, H, W]."""
        resolution = self.side * self.vqgan.config.downsample[1]
        device = next(self.vqgan.parameters()).device
        for first in range(0, len(window), READ):
            frames = source.video(which, window[first : first + READ], resolution, self.vqgan.config.image_channels)
            yield frames[None].to(device)


def open_continuation(
    config: ContinueConfig,
    gpt: GPTConfig,
    vqgan: VQGAN,
    side: int,
    total: int,
    labels: Sequence[str] | None,
    fps: float,
    in_pieces: bool = False,
) -> Continuation | None:
    """What --continue_from asks for, checked; None without it.

    side: rows and columns of the pictures of codes. total: latent frames of the videos, the given ones included.
    labels: --label. fps: --fps, of the videos that are written. in_pieces: --decode_group_norm_in_pieces.

    Raises:
        UserError: nothing readable is there, too few frames, a number of frames that fills no latent frames, codes of
            another VQGAN, or a class that can't be told.
    """
    if config.continue_from is None:
        return None
    latents = _latents(config, vqgan, total)
    source = open_given(config.continue_from, config.observed_split)
    if isinstance(source, GivenCodes):
        which, windows = _last_codes(config, source, vqgan, latents, side)
    else:
        which, windows = _windows(config, source, vqgan)
        _check_rates([source.rates[i] for i in which], vqgan.config.sample_every_n_frames, fps)
    found = _labels(config, source, which, gpt, labels)
    order = _by_turns(found if found[0] is not None else [source.classes[i] for i in which])
    made = Continuation(
        config,
        source,
        vqgan,
        [which[i] for i in order],
        [found[i] for i in order],
        [windows[i] for i in order],
        latents,
        side,
        gpt.label_names,
        in_pieces,
    )
    _describe(made)
    return made


def _latents(config: ContinueConfig, vqgan: VQGAN, total: int) -> int:
    """Latent frames that the given frames fill."""
    wanted, factor = config.observed_frames or 0, vqgan.config.downsample[0]
    latents, rest = divmod(wanted, factor)
    if rest:
        near = [str(n * factor) for n in (latents, latents + 1) if n]
        raise UserError(
            f"--observed_frames {wanted} does not fill latent frames: this VQGAN makes one of {factor} frames. "
            f"Nearest: {' or '.join(near)}"
        )
    if latents >= total:
        raise UserError(
            f"--observed_frames {wanted} fill {latents} latent frames, and the videos have {total} altogether, the "
            f"given ones included: nothing is left to make. Give at most {(total - 1) * factor} frames, or ask for "
            f"longer videos (sample_long.py makes any length)"
        )
    return latents


def _windows(config: ContinueConfig, source: GivenFrames, vqgan: VQGAN) -> tuple[list[int], list[range]]:
    """The videos that are long enough, and the frames of their files that are given."""
    wanted, every, factor = config.observed_frames or 0, vqgan.config.sample_every_n_frames, vqgan.config.downsample[0]
    start, span = config.observed_start, (wanted - 1) * every + 1
    room = [length - (start or 0) for length in source.lengths]
    which = [i for i, left in enumerate(room) if left >= span]
    if not which:
        longest = max(room)
        at = max(range(len(room)), key=room.__getitem__)
        name = source.names[at] if len(room) == 1 else f"the longest of {len(room)} videos, {source.names[at]},"
        most = max((longest - 1) // every + 1, 0) // factor * factor
        behind = f", {max(longest, 0)} of them from --observed_start {start} on" if start else ""
        counted = f", of which one in {every} counts" if every > 1 else ""
        advice = f"Take at most {most}" if most else f"That is too short for a latent frame, which takes {factor}"
        raise UserError(
            f"--observed_frames {wanted}: {name} has {source.lengths[at]} frames{behind}{counted}. {advice}"
        )
    if len(which) < len(room):
        short = [source.names[i] for i, left in enumerate(room) if left < span]
        more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
        say(f"{source.path}: {len(short)} of {len(room)} videos are too short to be continued: {', '.join(short[:NAMED])}{more}")  # fmt: skip  # noqa: E501
    first = [source.lengths[i] - span if start is None else start for i in which]
    return which, [range(at, at + span, every) for at in first]


def _last_codes(
    config: ContinueConfig, source: GivenCodes, vqgan: VQGAN, latents: int, side: int
) -> tuple[list[int], list[range]]:
    """The videos of codes that are long enough, and their last latent frames."""
    path, factor = config.continue_from, vqgan.config.downsample[0]
    if config.observed_start is not None:
        raise UserError(
            f"--continue_from {path} holds codes, whose VQGAN has looked at the frames behind them: only the last "
            f"frames can be given. Leave --observed_start out, or give the videos themselves"
        )
    if source.vqgan is not None and source.vqgan != (found := checkpoint.fingerprint(vqgan)):
        raise UserError(
            f"--continue_from {path} holds codes of another VQGAN (fingerprint {source.vqgan[:12]}, this one has "
            f"{found[:12]}): give the videos, or make the codes anew with `tats tokenize`"
        )
    if source.n_codes != vqgan.n_codes or source.side != (side, side):
        raise UserError(
            f"--continue_from {path} holds {source.n_codes} codes in pictures of {source.side[0]}x{source.side[1]}; "
            f"{vqgan.n_codes} codes in pictures of {side}x{side} are needed"
        )
    which = [i for i, there in enumerate(source.latents) if there >= latents]
    if not which:
        most = max(source.latents)
        raise UserError(
            f"--observed_frames {config.observed_frames}: the codes of {path} are clips of at most {most} latent "
            f"frames. Take at most {most * factor}"
        )
    return which, [range(source.latents[i] - latents, source.latents[i]) for i in which]


def _labels(
    config: ContinueConfig,
    source: GivenFrames | GivenCodes,
    which: Sequence[int],
    gpt: GPTConfig,
    labels: Sequence[str] | None,
) -> list[int | None]:
    """The class of each video: as --label says, or the folder it lies in; None where the transformer knows none."""
    if not gpt.n_classes:
        return [None] * len(which)
    if labels:
        if len(labels) > 1:
            raise UserError(f"with --continue_from, --label takes one class for all given videos, got {len(labels)}")
        one = label_id(gpt, labels[0])
        if not 0 <= one < gpt.n_classes:
            raise UserError(f"--label {one}: this transformer knows classes 0 to {gpt.n_classes - 1}")
        return [one] * len(which)
    names = gpt.label_names or (source.class_names if len(source.class_names) == gpt.n_classes else [])
    unknown = [i for i in which if source.classes[i] not in names]
    if unknown:
        lies = source.classes[unknown[0]]
        where = f"lies in a folder '{lies}'" if lies else "tells no class"
        known = f"knows {', '.join(names[:12])}" if names else "stores no names of its classes"
        raise UserError(
            f"--continue_from {config.continue_from}: {source.names[unknown[0]]} {where}, and this transformer "
            f"{known}. Say its class with --label"
        )
    return [names.index(source.classes[i] or "") for i in which]


def _by_turns(classes: Sequence[Any]) -> list[int]:
    """The order in which every class has its turn: the first of each, the second of each, ..."""
    groups: dict[Any, list[int]] = {}
    for place, each in enumerate(classes):
        groups.setdefault(each, []).append(place)
    return [place for turn in zip_longest(*groups.values()) for place in turn if place is not None]


def _check_rates(rates: Sequence[float | None], every: int, fps: float) -> None:
    """A line where the videos that are written play at another speed than the given ones."""
    known = sorted({round(rate / every, 3) for rate in rates if rate is not None})
    other = [rate for rate in known if abs(rate - fps) > 0.01 * rate]
    if len(known) > 1 and other:
        say(
            f"the given videos have {known[0]:g} to {known[-1]:g} frames per second, all are written with {fps:g} "
            f"(--fps): some play at another speed than before"
        )
    elif other:
        counted = f" ({other[0] * every:g}, of which one in {every} counts)" if every > 1 else ""
        say(
            f"the given videos have {other[0]:g} frames per second{counted}, they are written with {fps:g} (--fps) and "
            f"play {fps / other[0]:.2g} times as fast; --fps {other[0]:g} keeps their speed"
        )


def _describe(made: Continuation) -> None:
    """One line: what is given."""
    first, n, windows = made.windows[0], len(made.which), set(made.windows)
    unit = "frames" if isinstance(made.source, GivenFrames) else "latent frames"
    exact = f", {unit} {first[0]} to {first[-1]}" if len(windows) == 1 else ", the last ones"
    every = f", one in {first.step}" if first.step > 1 else ""
    of = f"{n} videos, of each" if n > 1 else made.source.names[made.which[0]]
    say(f"going on from {of} {made.frames} frames ({made.latents} latent{exact}{every}); what lies behind is not read")


def _size(source: GivenFrames | GivenCodes, which: int) -> int:
    """Bytes of the file of a video, as far as it has one of its own."""
    path = source.path if source.path.is_file() else Path(source.path) / source.names[which]
    return path.stat().st_size if path.is_file() else 0
