"""One self-contained HTML page: videos, curves, scores and settings of a run, nothing loaded from elsewhere.

page = Page("A run", "what it is")
page.section("Samples", "sixteen frames each")
page.grid({"red_circle": [Clip(frames, "seed 0")]})
page.write("runs/demo/index.html")
"""

import base64
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tats.flags import REQUIRED, UserError, arg, parse
from tats.media import read_frames, write_video
from tats.metrics.counts import Count
from tats.plot import Curve, draw_curves, find_metrics
from tats.report_style import FRAME, SCRIPT, STYLE

MAX_BYTES = 20_000_000  # pages beyond this are refused: they no longer open well on a phone
RUN_VIDEOS = 8  # of a training run, on its page
SHOWN_WIDTH = 144  # pixels that a small clip is enlarged to, about, by a whole factor


@dataclass(frozen=True)
class Clip:
    """A video and what is said about it. `frames`: uint8 [T, H, W, 3], array or tensor, or the path of a video file.
    `sound`: samples float [n] or [n, channels] in [-1, 1] and their rate; a button below the video turns it on. `fps`:
    frames per second, where they are not those of the page."""

    frames: Any
    caption: str = ""
    sound: tuple[Any, int] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two videos of equal shape that play in step, side by side in one picture, each with its own small heading."""

    left: Any
    right: Any
    names: tuple[str, str] = ("original", "reconstruction")
    caption: str = ""


class Page:
    """A page that is built from top to bottom, section after section, and written once.

    Every text is escaped. Videos are embedded as H.264 (yuv420p, index in front), small ones enlarged by a whole
    factor. `write` refuses a page beyond `max_bytes`.
    """

    def __init__(self, title: str, lead: str = "", *, fps: float = 8, max_bytes: int = MAX_BYTES):
        self.title, self.lead, self.fps, self.max_bytes = title, lead, fps, max_bytes
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []  # (id, title)

    def section(self, title: str, note: str = "") -> None:
        """Begin a section; what is added afterwards stands in it, and the head of the page links to it."""
        if self._sections:
            self._parts.append("</section>")
        word = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        place = f"{word}-{len(self._sections) + 1}"
        self._sections.append((place, title))
        self._parts.append(f'<section aria-labelledby="{place}">\n<h2 id="{place}">{escape(title)}</h2>')
        if note:
            self.text(note)

    def heading(self, title: str) -> None:
        """A heading inside a section."""
        self._add(f"<h3>{escape(title)}</h3>")

    def text(self, text: str) -> None:
        """Plain text; blank lines part paragraphs."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self._add(f"<p>{escape(paragraph)}</p>")

    def code(self, text: str, caption: str = "") -> None:
        """Commands or settings, as they were given."""
        self._figure(f'<pre tabindex="0">{escape(text.strip())}</pre>', caption, "wide")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """A table; the first cell of a row names the row, numbers are rounded to four digits."""
        head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in columns)
        body = []
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row)} cells, the table {len(columns)} columns: {list(row)}")
            cells = [f'<th scope="row">{escape(cell_text(row[0]))}</th>']
            cells += [_cell(cell) for cell in row[1:]]
            body.append(f"<tr>{''.join(cells)}</tr>")
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        rows_html = "\n".join(body)
        self._add(
            f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption or "table")}"><table>{title}\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows_html}\n</tbody></table></div>"
        )

    def scores(self, scores: Mapping[str, Mapping[str, Any]], caption: str = "", first: str = "score") -> None:
        """Scores of several subjects side by side: {subject: {score: Count or number or text}}.

        A `Count` shows its share, 95 % Wilson interval and counts. A score that a subject lacks shows as a dash.
        """
        names = list(dict.fromkeys(name for column in scores.values() for name in column))
        rows = [[name, *(column.get(name, "–") for column in scores.values())] for name in names]
        self.table([first, *scores], rows, caption)

    def videos(self, clips: Iterable[Clip]) -> None:
        """Videos in a row that wraps, each with its caption."""
        self._add(f'<div class="clips">{"".join(self._clip(clip) for clip in clips)}</div>')

    def pairs(self, pairs: Iterable[Pair]) -> None:
        """Pairs of videos: original | reconstruction, sample | nearest training clip."""
        figures = [self._video(side_by_side(pair.left, pair.right), pair.caption, pair.names) for pair in pairs]
        self._add(f'<div class="clips">{"".join(figures)}</div>')

    def grid(self, groups: Mapping[str, Iterable[Clip]]) -> None:
        """Videos by group, a group a row: the samples of every class."""
        for name, clips in groups.items():
            figures = "".join(self._clip(clip, about=name) for clip in clips)
            self._add(f'<div class="group"><h3>{escape(name)}</h3><div class="clips">{figures}</div></div>')

    def curves(self, curves: Mapping[str, Curve], title: str, **options: Any) -> None:
        """A diagram of curves over steps; options as of `draw_curves` (log, x_label, y_label, y_range)."""
        if any(len(curve.steps) for curve in curves.values()):
            self._figure(draw_curves(curves, title, **options), title, "curve")
        else:
            self.text(f"{title}: nothing was logged.")

    def watch(
        self, clip: Clip | None, diagrams: Mapping[str, str], frames: int, about: str = "", fps: float = 16
    ) -> None:
        """A long video beside its curves, in which a line moves with it.

        clip: None where there is no video to show. diagrams: {title: drawing of `draw_curves` over frames, made with
        `now`}. frames: of the video; a file plays at its own rate, other videos at `fps`. about: a heading.
        """
        video = "" if clip is None else self._video(clip.frames, clip.caption, about=about, fps=fps)
        drawn = "".join(
            f'<figure class="curve"><figcaption>{escape(title)}</figcaption>{drawing}</figure>'
            for title, drawing in diagrams.items()
        )
        head = f"<h3>{escape(about)}</h3>" if about else ""
        self._add(f'<div class="watch" data-frames="{frames}">{head}<div>{video}<div>{drawn}</div></div></div>')

    def write(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Raises:
            UserError: the page is larger than `max_bytes`.
        """
        data = self.html().encode()
        if len(data) > self.max_bytes:
            raise UserError(
                f"the page takes {len(data) / 1e6:.1f} MB, at most {self.max_bytes / 1e6:.0f} MB are allowed: "
                f"show fewer or shorter videos"
            )
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_bytes(data)
        partial.replace(path)
        return path

    def html(self) -> str:
        """The whole page as text."""
        links = "".join(f'<li><a href="#{place}">{escape(title)}</a></li>' for place, title in self._sections)
        menu = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(self._sections) > 1 else ""
        lead = f"<p>{escape(self.lead)}</p>" if self.lead else ""
        body = "\n".join(self._parts) + ("\n</section>" if self._sections else "")
        return FRAME.format(title=escape(self.title), style=STYLE, lead=lead, menu=menu, body=body, script=SCRIPT)

    def _add(self, html: str) -> None:
        self._parts.append(html)

    def _figure(self, inner: str, caption: str, kind: str) -> None:
        title = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._add(f'<figure class="{kind}">{title}{inner}</figure>')

    def _clip(self, clip: Clip, about: str = "") -> str:
        """One clip with its caption, and its sound where it has one."""
        return self._video(clip.frames, clip.caption, about=about, fps=clip.fps, sound=clip.sound)

    def _video(
        self,
        frames: Any,
        caption: str,
        names: tuple[str, str] | None = None,
        about: str = "",
        fps: float | None = None,
        sound: tuple[Any, int] | None = None,
    ) -> str:
        """One video with what stands above and below it."""
        data, width, height = embed(frames, self.fps if fps is None else fps, sound)
        label = ", ".join(word for word in (about, " and ".join(names or ()), caption) if word) or "video"
        heads = "".join(f"<span>{escape(name)}</span>" for name in names or ())
        above = f'<div class="heads">{heads}</div>' if heads else ""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        if sound is not None:
            below = f'<button type="button" class="listen" aria-pressed="false" hidden>Sound</button>{below}'
        return (
            f'<figure class="clip" style="width:{width}px">{above}'
            f'<video autoplay loop muted playsinline controls width="{width}" height="{height}" '
            f'aria-label="{escape(label)}" src="data:video/mp4;base64,{data}"></video>{below}</figure>'
        )


def _cell(cell: Any) -> str:
    """A cell of a table. A `Count` has its interval and counts on a line of their own, so that many columns fit."""
    if isinstance(cell, Count):
        share, _, rest = cell_text(cell).partition(" (")
        below = f" <small>({escape(rest)}</small>" if rest else ""
        return f'<td class="number">{escape(share)}{below}</td>'
    kind = ' class="number"' if isinstance(cell, (int, float)) else ""
    return f"<td{kind}>{escape(cell_text(cell))}</td>"


def cell_text(value: Any) -> str:
    """What a table shows of a value: numbers with four digits, whole numbers in groups of three, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}".replace(",", "\u202f")
    return str(value)


def side_by_side(left: Any, right: Any) -> np.ndarray:
    """Two videos uint8 [T, H, W, 3] of equal height as one, with a grey line between them; the shorter one waits."""
    a, b = pixels(left), pixels(right)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"videos side by side need the same height, got {a.shape[1]} and {b.shape[1]}")
    length = max(len(a), len(b))
    a, b = (np.concatenate([v, v[-1:].repeat(length - len(v), 0)]) for v in (a, b))
    line = np.full((length, a.shape[1], max(2, a.shape[2] // 16), 3), 128, np.uint8)
    return np.concatenate([a, line, b], axis=2)


def pixels(frames: Any) -> np.ndarray:
    """A video as a uint8 array [T, H, W, 3], from an array or a tensor."""
    array = frames.detach().cpu().numpy() if hasattr(frames, "detach") else np.asarray(frames)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not len(array):
        raise ValueError(f"frames must be uint8 [T, H, W, 3] with T >= 1, got {array.dtype} {list(array.shape)}")
    return array


def embed(frames: Any, fps: float, sound: tuple[Any, int] | None = None) -> tuple[str, int, int]:
    """A video as base64 text of an mp4, with the width and height it is shown at.

    `frames`: uint8 [T, H, W, 3], or the path of a video file. Small frames are enlarged by a whole factor before they
    are compressed, which keeps the edges of their pixels, and their colours, sharp. `sound`: of frames; a file has its
    own.
    """
    if isinstance(frames, (str, Path)):
        return _embed_file(Path(frames), fps)
    array = pixels(frames)
    factor = max(1, round(SHOWN_WIDTH / array.shape[1]))
    array = array.repeat(factor, axis=1).repeat(factor, axis=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, array, fps, sound, crf=20)
        return base64.b64encode(path.read_bytes()).decode(), array.shape[2], array.shape[1]


def _embed_file(path: Path, fps: float) -> tuple[str, int, int]:
    """A video file: as it is, with its sound, when every browser plays it, else compressed anew at its own rate."""
    import av

    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        width, height, rate = stream.width, stream.height, float(stream.average_rate or fps)
        plays = (file.format.name.startswith("mov"), stream.codec_context.name, stream.codec_context.pix_fmt)
    factor = max(1, round(SHOWN_WIDTH / height))
    if plays != (True, "h264", "yuv420p"):
        return embed(read_frames(path), rate)
    return base64.b64encode(path.read_bytes()).decode(), width * factor, height * factor


@dataclass(frozen=True)
class ReportConfig:
    """A page about a run: its curves and its settings, in one file that needs nothing else."""

    run: str = arg(REQUIRED, "folder of a training run (`tats report RUN` works as well)")
    out: str | None = arg(None, "the page to write; without it, report.html in the run's folder")


def run_page(folder: Path) -> Page:
    """The page of a run: a diagram for every logged value, train and test together; what `tats over_time` has measured
    there, beside the videos; the latest videos that training wrote; its settings.

    Raises:
        UserError: the folder is missing, or holds neither curves nor settings.
    """
    from tats import over_time, report_time

    if not folder.is_dir():
        raise UserError(f"--run {folder} is not a folder: give the folder that a training run wrote")
    curves, settings = find_metrics(folder), sorted(folder.rglob("*.yaml"))
    measured = sorted(folder.rglob(over_time.FILE))
    if not (curves or settings or measured):
        raise UserError(
            f"--run {folder} holds no metrics.csv and no settings and no {over_time.FILE}: "
            f"give the folder that a run wrote"
        )
    page = Page(f"Run {folder.resolve().name}", f"Made from what was written below {folder}.")
    if curves:
        page.section("Curves")
    for title, group in grouped(curves).items():
        page.curves(group, title)
    for path in measured:
        page.section("Over time" if len(measured) == 1 else f"Over time: {path.parent.relative_to(folder)}")
        report_time.show_over_time(page, over_time.read(path))
    small = [path for path in folder.rglob("*.mp4") if path.stat().st_size < MAX_BYTES // (2 * RUN_VIDEOS)]
    videos = sorted(small, key=lambda path: (path.stat().st_mtime, path.name))[-RUN_VIDEOS:]
    if videos and not measured:
        page.section("Videos", "The latest that training wrote.")
        page.videos(Clip(path, str(path.relative_to(folder))) for path in reversed(videos))
    if settings:
        page.section("Settings")
    for path in settings:
        page.code(path.read_text(encoding="utf-8", errors="replace"), str(path.relative_to(folder)))
    return page


def grouped(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Curves that belong in one diagram: `train/loss`, `train/loss_epoch` and `val/loss` all go under `loss`. Diagrams
    that hold more than one curve come first. What is zero throughout, such as the losses of critics that a run does
    not have, is left out."""
    groups: dict[str, dict[str, Curve]] = {}
    for name, curve in sorted(curves.items()):
        if not any(curve.values):
            continue
        title = re.sub(r"_(step|epoch)$", "", name.rsplit("/", 1)[-1])
        title = re.sub(r"^(train|val|test)_", "", title)
        groups.setdefault(title, {})[name] = curve
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def main(argv: Sequence[str] | None = None) -> None:
    """`tats report RUN [--out FILE]`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--run")
    config = parse(ReportConfig, words, "tats report")
    folder = Path(config.run)
    print(run_page(folder).write(config.out or folder / "report.html"))
