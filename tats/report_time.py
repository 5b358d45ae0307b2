"""The part of a page that shows long videos over time: curves of all videos, and each video beside its own."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tats.data.shapes import SPEEDS
from tats.plot import Curve, draw_curves
from tats.report import MAX_BYTES, Clip, Page

SHOWN = 6  # videos that are shown beside their curves
FRAMES = 4096  # of a video that has to be compressed for the page, at most
ENOUGH = 16  # windows that a share is made of, at least: with fewer videos, neighbouring windows are put together
SHARE = (0.0, 1.0)
SIDES = {"generated": "generated", "real": "real videos"}
LAW = {
    "right_object": "the right object in every frame",
    "speed_of_start": "the speed of the start",
    "legal_speed": "a speed of the data",
    "valid": "valid: object, motion, speed, turns",
}
NOTE = (
    "Windows of {length} frames; each point of a share rests on at least 16 of them, neighbouring windows are put "
    "together where there are few videos. High is not good by itself, a frozen video stays what it is: the curves of "
    "real videos are what to reach."
)


def show_over_time(page: Page, result: Mapping[str, Any], clips: Sequence[Clip | None] | None = None) -> None:
    """Diagrams of a result of `tats over_time`, generated and real videos in each, then videos beside their own curves.

    clips: what to show of the first videos; None finds them where they were measured.
    """
    page.text(NOTE.format(length=result["length"]))
    for title, curves, options in diagrams(result):
        page.curves(curves, title, **options)
    for note in result["notes"]:
        page.text(note)
    videos = result["generated"]["videos"][:SHOWN]
    for number, video in enumerate(videos):
        drawn = {title: draw_curves(curves, title, **options) for title, curves, options in own_diagrams(video, result)}
        clip = found_clip(video, result) if clips is None else clips[number] if number < len(clips) else None
        label = str(video["class"] or video["name"]).replace("_", " ")
        page.watch(clip, drawn, video["frames"] if clip is None else shown_frames(clip, video["frames"]), label)


def diagrams(result: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Curve], dict[str, Any]]]:
    """Title, curves and options of every diagram over all videos."""
    length, sides = result["length"], {name: result[name] for name in SIDES if name in result}
    by_frame = {"x_label": "frame"}
    if all(side.get("oracle") for side in sides.values()):
        for test, title in LAW.items():
            counts = {SIDES[name]: [window[test] for window in side["oracle"]] for name, side in sides.items()}
            yield f"Share of videos: {title}", shares(counts, length), by_frame | {"y_range": SHARE}
        motion = {SIDES[name]: curve_of(side["motion"], length) for name, side in sides.items()}
        yield "Share of steps that go on as they must", motion, by_frame | {"y_range": SHARE}
    for name, title in (("CCS", "Class coherence (CCS)"), ("ICS", "Inception coherence (ICS)")):
        have = {side: found[name] for side, found in sides.items() if name in found}
        if have:
            step = length if name == "CCS" else next(iter(have.values()))["every"]
            whole = ", ".join(f"{SIDES[side]} {found['share']:.3f}" for side, found in have.items())
            curves = shares({SIDES[side]: found["curve"] for side, found in have.items()}, step)
            yield f"{title}: {whole}", curves, by_frame | {"y_range": SHARE}
    distances = {side: found["frechet"] for side, found in sides.items() if "frechet" in found}
    if distances:
        name = next(iter(distances.values()))["name"]
        curves = {SIDES[side]: curve_of(found["values"], length) for side, found in distances.items()}
        yield f"{name} of each window", curves, by_frame
    colours = {SIDES[name]: lags(side["colour"]) for name, side in sides.items()}
    yield "Colour similarity over lags", colours, {"x_label": "lag in frames"}


def own_diagrams(
    video: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Curve], dict[str, Any]]]:
    """The diagrams of one generated video, with what real videos do."""
    length = result["length"]
    options: dict[str, Any] = {"x_label": "frame", "now": True}
    if "oracle" in video:
        own = video["oracle"]
        curves = {
            "steps that agree": curve_of(own["motion"], length),
            "right object": curve_of(own["right_object"], length),
        }
        if result.get("real", {}).get("motion"):
            curves["steps that agree, real videos"] = curve_of(result["real"]["motion"], length, len(own["motion"]))
        yield "Does it obey?", curves, options | {"y_range": SHARE}
        ends = [0, (len(own["speed"]) - 1) * length]
        speeds = {f"{name}, as in the data": Curve(ends, [speed, speed]) for name, speed in SPEEDS.items()}
        curves = {"this video": curve_of(own["speed"], length), **speeds}
        yield "Speed, picture sides per frame", curves, options | {"y_range": (0.0, 0.05)}
    if "classes" in video:
        same = [float(name == video["classes"][0]) for name in video["classes"]]
        yield (
            "Predicted class is that of the first window",
            {"this video": curve_of(same, length)},
            options | {"y_range": SHARE},
        )


def curve_of(values: Sequence[float | None], step: int, most: int | None = None) -> Curve:
    """Values that stand `step` frames apart, the first `most` of them; what is not known is left out."""
    known = [(number * step, float(value)) for number, value in enumerate(values[:most]) if value is not None]
    return Curve([at for at, _ in known], [value for _, value in known])


def shares(counts: Mapping[str, Sequence[Sequence[int]]], step: int) -> dict[str, Curve]:
    """Curves of shares out of [hits, of how many] that stand `step` frames apart, ENOUGH of them in every point."""
    return {name: _shares(found, step) for name, found in counts.items()}


def _shares(counts: Sequence[Sequence[int]], step: int) -> Curve:
    together = -(-ENOUGH // max(total for _, total in counts))
    parts = [counts[first : first + together] for first in range(0, len(counts), together)]
    values = [sum(hits for hits, _ in part) / sum(total for _, total in part) for part in parts]
    return Curve([number * together * step for number in range(len(parts))], values)


def lags(similarity: Mapping[Any, float]) -> Curve:
    """A curve over lags, whose names are text once they were in a JSON file."""
    pairs = sorted((int(lag), value) for lag, value in similarity.items())
    return Curve([lag for lag, _ in pairs], [value for _, value in pairs])


def found_clip(video: Mapping[str, Any], result: Mapping[str, Any]) -> Clip | None:
    """The video where it was measured, or None where it is gone: its file, or its frames, FRAMES of them at most."""
    from tats.flags import UserError
    from tats.long_videos import long_videos

    paths, file = result.get("paths", {}), video["file"]
    if file is not None and Path(file).is_file() and Path(file).stat().st_size < MAX_BYTES // (2 * SHOWN):
        return Clip(Path(file), video["name"])
    if not paths.get("generated") or not Path(paths["generated"]).exists():
        return None
    vqgan = None
    if result.get("vqgan") is not None:
        from tats.checkpoint import load_vqgan

        vqgan = load_vqgan(result["vqgan"])
    try:
        found = {each.name: each for each in long_videos(paths["generated"], vqgan)}
    except UserError:
        return None
    return Clip(first_frames(found[video["name"]].pieces()), video["name"]) if video["name"] in found else None


def first_frames(pieces: Any) -> NDArray[np.uint8]:
    """The first FRAMES frames of a video: uint8 [T, H, W, 3]."""
    from tats.metrics.windows import stream

    kept: list[NDArray[np.uint8]] = []
    for piece in stream(pieces):
        kept.append(piece.numpy())
        if sum(map(len, kept)) >= FRAMES:
            break
    return np.concatenate(kept)[:FRAMES]


def shown_frames(clip: Clip, frames: int) -> int:
    """How many frames of a video are shown: all of a file, as many as were kept of others."""
    return frames if isinstance(clip.frames, (str, Path)) else len(clip.frames)
