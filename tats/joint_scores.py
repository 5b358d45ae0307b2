"""How videos of the embedded world go on from given ones: errors of its law at the joint, and apart from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from tats.codes_file import Video
from tats.continuation import Continuation
from tats.data.shapes import CLASSES
from tats.metrics.joint import KINDS, PARTS, Tiles, Watch, summary, tiles
from tats.output import Store
from tats.video import to_frames
from tats.vqgan.model import VQGAN
from tats.vqgan.stream import decode_stream

SIDE = 16  # smallest picture that the judge can see anything in


def of_the_world(classes: Sequence[str | None], vqgan: VQGAN, side: int) -> bool:
    """Whether given videos of these classes are videos of the embedded world, in pictures that can be judged.

    side: rows and columns of codes of a picture.
    """
    height, width = (side * factor for factor in vqgan.config.downsample[1:])
    seen = vqgan.config.image_channels == 3 and height == width >= SIDE
    return seen and bool(classes) and all(name in CLASSES for name in classes)


def with_joint(
    given: Continuation,
    store: Store,
    videos: Sequence[Video],
    batch_size: int,
    scores: Mapping[str, Any] | None,
    in_pieces: bool,
) -> dict[str, Any] | None:
    """The scores of a run together with those of the joint, which are said; other videos than the embedded world's have
    none. What an earlier call has found out about these very videos stays."""
    before = store.scores if store.scored == len(videos) else None
    together = {**(before or {}), **(scores or {})}
    if of_the_world([given.class_of(video) for video in videos], given.vqgan, given.side):
        if "joint" not in together:
            together["joint"] = joint_scores(store, given.vqgan, videos, given.frames, batch_size, in_pieces)
        for line in lines(together["joint"]):
            print(line)
    return together or None


def joint_scores(
    store: Store, vqgan: VQGAN, videos: Sequence[Video], given: int, batch_size: int, in_pieces: bool = False
) -> dict[str, Any]:
    """Tiles with errors in the videos of a run, by part and kind (`tats.metrics.joint`), as plain values.

    given: frames at the front that were given. Videos are decoded again, `batch_size` at a time, piece by piece.
    """
    found: list[Tiles] = []
    for start in range(0, len(videos), batch_size):
        found += _judge(store, vqgan, videos[start : start + batch_size], given, in_pieces)
    counts = summary(found)
    scores: dict[str, Any] = {"n_videos": len(found), "given_frames": given, "tile_steps": vqgan.config.downsample[0]}
    for part in PARTS:
        scores[part] = {
            kind: {**asdict(counts[part][kind]), "interval": list(counts[part][kind].interval)} for kind in KINDS
        }
    return scores


def lines(scores: dict[str, Any]) -> list[str]:
    """What `joint_scores` has found, in a line per kind of error."""
    said = [
        f"errors of the law at the joint of {scores['n_videos']} videos, in the new part, in the given one (decoded):"
    ]
    for kind, words in KINDS.items():
        shares = []
        for part in ("joint", "new", "given"):
            hits, total = scores[part][kind]["hits"], scores[part][kind]["total"]
            shares.append(f"{hits} of {total} ({100 * hits / total:.1f} %)" if total else "none told")
        said.append(f"  {words}: {', '.join(shares)}")
    return said


def _judge(store: Store, vqgan: VQGAN, videos: Sequence[Video], given: int, in_pieces: bool) -> list[Tiles]:
    """The tiles of some videos, which are decoded together."""
    device = next(vqgan.parameters()).device
    rows = zip(*(store.codes.rows[video.index].pieces() for video in videos))
    codes = (torch.from_numpy(np.stack(pieces)).long().to(device) for pieces in rows)  # each [B, n, h, w]
    watches = [Watch() for _ in videos]
    for piece in decode_stream(vqgan, codes, group_norm_in_pieces=in_pieces):
        for watch, frames in zip(watches, to_frames(piece).cpu().numpy()):
            watch.add(frames)
    return [tiles(watch.seen(), given, vqgan.config.downsample[0]) for watch in watches]
