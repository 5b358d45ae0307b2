"""Curves of a run: read from the files that training wrote, drawn as inline SVG."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 44
_POINTS = 400  # a curve is thinned to about this many points: more than the drawing has pixels to show


@dataclass(frozen=True)
class Curve:
    """One line of a diagram: `values` over `steps`, both of the same length, steps rising."""

    steps: Sequence[float]
    values: Sequence[float]


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """Curves of one metrics.csv as Lightning's CSV logger writes it: one per column, over the column `step`.

    Empty and unreadable cells are left out, and so are values that are not finite. Where a step stands twice, the later
    row counts (a resumed run writes its last steps again). Rows without a step take the number of the row.
    """
    found: dict[str, dict[float, float]] = {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        for number, row in enumerate(csv.DictReader(line.replace("\0", "") for line in file)):
            step = _number(row.get("step"))
            for name, cell in row.items():
                value = _number(cell)
                if name and name not in ("step", "epoch") and value is not None:
                    found.setdefault(name, {})[number if step is None else step] = value
    return {name: _curve(points) for name, points in found.items()}


def find_metrics(folder: str | Path) -> dict[str, Curve]:
    """Curves of all metrics.csv below `folder` as one: later versions of a resumed run overwrite and extend earlier."""
    merged: dict[str, dict[float, float]] = {}
    for path in sorted(Path(folder).rglob("metrics.csv"), key=lambda path: (path.stat().st_mtime, str(path))):
        for name, curve in read_metrics(path).items():
            merged.setdefault(name, {}).update(zip(curve.steps, curve.values))
    return {name: _curve(points) for name, points in merged.items()}


def _curve(points: Mapping[float, float]) -> Curve:
    steps = sorted(points)
    return Curve(steps, [points[step] for step in steps])


def _number(cell: object) -> float | None:
    """The finite number in a cell, or None."""
    if not isinstance(cell, str):  # a row shorter or longer than the header holds None or a list
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """A handful of round numbers in [low, high]: 1, 2 or 5 times a power of ten; powers alone on a long log axis."""
    if log:
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        factors = (1, 2, 5) if last - first <= 3 else (1,)
        stride = max(1, (last - first) // 6)
        marks = [f * 10.0**p for p in range(first, last + 1, stride) for f in factors]
        inside = [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]
        return inside if len(inside) > 1 else ticks(low, high)
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    unit = next(factor for factor in (1, 2, 5, 10) if raw <= factor * power * 1.0001) * power
    return [k * unit for k in range(math.ceil(low / unit - 1e-9), math.floor(high / unit + 1e-9) + 1)]


def label(value: float) -> str:
    """A number at an axis: short, without needless zeros."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e3:
        return f"{value / 1e3:g}k"
    if size and size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.6g}"


def draw_curves(
    curves: Mapping[str, Curve],
    title: str,
    *,
    log: bool | None = None,
    x_label: str = "step",
    y_label: str = "",
    y_range: tuple[float, float] | None = None,
    now: bool = False,
) -> str:
    """An SVG diagram of some curves, as text that stands inside an HTML page.

    `log` chooses a logarithmic value axis; None takes it when all values are positive and span more than a factor 20.
    `y_range` holds the value axis to at least that range, as for shares. With `now`, a line stands at the first step,
    for a script to move (its attributes `data-from` and `data-to` are the ends of the step axis).
    Colours come from the CSS classes `line0` ... `line5` of the page; lines differ by dashes too.
    """
    curves = {name: curve for name, curve in curves.items() if len(curve.steps)}
    if not curves:
        raise ValueError("draw_curves needs at least one curve with a point")
    values = [value for curve in curves.values() for value in curve.values]
    steps = [step for curve in curves.values() for step in curve.steps]
    positive = min(values) > 0
    fixed = () if y_range is None else y_range
    log = positive and not fixed and (log if log is not None else max(values) / min(values) > 20)
    x0, x1 = _span(min(steps), max(steps), pad=0.0)
    low, high = min(*values, *fixed, math.inf), max(*values, *fixed, -math.inf)
    y0, y1 = (low / 1.1, high * 1.1) if log else _span(low, high, pad=0.05)

    def x_at(step: float) -> float:
        return LEFT + (step - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        share = math.log(value / y0) / math.log(y1 / y0) if log else (value - y0) / (y1 - y0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    last = "; ".join(f"{name} ends at {curve.values[-1]:.4g}" for name, curve in curves.items())
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {last}")}">',
        *_axes(ticks(x0, x1), ticks(y0, y1, log), x_at, y_at),
        f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}">{escape(x_label)}</text>',
    ]
    side = f"{y_label} (log)".strip() if log else y_label
    if side:
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(f'<text class="name" transform="translate(13 {middle:.0f}) rotate(-90)">{escape(side)}</text>')
    for number, curve in enumerate(curves.values()):
        points = [(x_at(step), y_at(value)) for step, value in _thin(curve)]
        parts.append(_line(points, number))
    if now:
        ends = f'data-from="{x0:g}" data-to="{x1:g}" data-width="{WIDTH - LEFT - RIGHT}"'
        parts.append(f'<path class="now" {ends} d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}"/>')
    return "\n".join([*parts, "</svg>", _legend(curves)])


def _span(low: float, high: float, pad: float) -> tuple[float, float]:
    """A range that is not empty, widened on both sides by the share `pad`."""
    if high <= low:
        return low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    return low - pad * (high - low), high + pad * (high - low)


def _axes(x_ticks, y_ticks, x_at, y_at) -> list[str]:
    """Grid lines with their numbers, and the frame."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in y_ticks:
        y = y_at(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 7}" y="{y + 4:.1f}">{label(value)}</text>')
    for value in x_ticks:
        x = x_at(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}">{label(value)}</text>')
    return [*parts, f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>']


def _thin(curve: Curve) -> list[tuple[float, float]]:
    """The points of a curve; where there are too many, the means of runs of neighbours, first and last kept."""
    points = list(zip(curve.steps, curve.values))
    if len(points) <= 2 * _POINTS:
        return points
    cuts = [len(points) * k // _POINTS for k in range(_POINTS + 1)]
    runs = [points[a:b] for a, b in pairwise(cuts)]
    means = [(sum(s for s, _ in run) / len(run), sum(v for _, v in run) / len(run)) for run in runs]
    return [points[0], *means[1:-1], points[-1]]


def _line(points: list[tuple[float, float]], number: int) -> str:
    """One curve; a single point becomes a dot, few points get dots as well."""
    style = f"line{number % 6}"
    dots = "".join(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    drawn = f'<path class="{style}" d="M{path}"/>' if len(points) > 1 else ""
    return drawn + (dots if len(points) <= 24 else "")


def _legend(curves: Mapping[str, Curve]) -> str:
    """Names, line samples and last values below the diagram, as a list that wraps on a narrow screen."""
    items = []
    for number, (name, curve) in enumerate(curves.items()):
        sample = (
            f'<svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="line{number % 6}" d="M1 4H29"/></svg>'
        )
        items.append(f"<li>{sample}{escape(name)} <b>{curve.values[-1]:.4g}</b></li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
