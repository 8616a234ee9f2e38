"""Charts as SVG in the page's own colours, legible on a phone and in the dark.

A chart is 420 units wide and as wide on the page as there is room; colours are classes (`c0`, `c1`,
…, and `axis`), which the page's style sheet defines for light and dark. Every mark has a title,
which a pointer shows.
"""

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ilm_jax.metrics.intervals import Interval

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 420, 46, 12, 12, 34
Scale = Callable[[float], float]
Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      name: in the key.
      colour: number of the class.
      points: from left to right.
      reach: (low, high) of each point; empty for none.
      dashed: instead of solid.
    """

    name: str
    colour: int
    points: Sequence[Point]
    reach: Sequence[Point] = ()
    dashed: bool = False


def lines(
    found: Sequence[Line],
    *,
    height: int,
    across: str,
    up: str,
    label: str,
    ticks: Mapping[float, str] | None = None,
) -> str:
    """Lines with intervals over one scale, and their key.

    Args:
      found: the lines.
      height: of the chart.
      across, up: what the axes say.
      label: of the whole, for who hears it.
      ticks: of the horizontal axis; None: round numbers.
    """
    xs = [x for line in found for x, _ in line.points]
    ys = [y for line in found for y in _heights(line)]
    across_scale = _scale(min(xs), max(xs), LEFT + 12, WIDTH - RIGHT - 12)
    up_scale = _scale(*_padded(ys), height - BOTTOM, TOP)
    parts = _axes(height, up_scale, _round(*_padded(ys)), across, up)
    for x, tick in (ticks or {x: f"{x:g}" for x in _round(min(xs), max(xs))}).items():
        parts.append(_text(across_scale(x), height - BOTTOM + 14, tick, "middle"))
    for line in found:
        path = " ".join(f"{across_scale(x):.1f},{up_scale(y):.1f}" for x, y in line.points)
        kind = f"line c{line.colour}{' dashed' if line.dashed else ''}"
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for number, (x, y) in enumerate(line.points):
            low, high = line.reach[number] if line.reach else (y, y)
            at = across_scale(x)
            if line.reach:
                parts.append(_stroke(line.colour, at, up_scale(low), at, up_scale(high)))
            said = f"{line.name}: {y:.3f}" + (f" [{low:.3f}, {high:.3f}]" if line.reach else "")
            parts.append(_dot(line.colour, at, up_scale(y), said, 3.2 if line.reach else 2))
    return _whole(height, parts, label) + _key((line.name, line.colour) for line in found)


@dataclasses.dataclass(frozen=True)
class Span:
    """A row of a forest plot: a difference with its interval."""

    name: str
    interval: Interval
    colour: int
    bold: bool = False


def forest(spans: Sequence[Span], *, across: str, label: str, signed: bool = True) -> str:
    """Values with intervals, one below the other, and a line at zero.

    Args:
      spans: the rows.
      across: what the axis says.
      label: of the whole, for who hears it.
      signed: they are differences, and say which way they go.
    """
    room, step = 150, 22
    height = TOP + step * len(spans) + BOTTOM
    ends = [end for span in spans for end in (span.interval.low, span.interval.high)]
    low, high = _padded([*ends, 0.0])
    scale = _scale(low, high, room, WIDTH - RIGHT)
    parts = [f'<line class="zero" x1="{scale(0):.1f}" x2="{scale(0):.1f}" y1="{TOP}"']
    parts[0] += f' y2="{height - BOTTOM}"/>'
    for tick in _round(low, high, 5):
        said = _signed(tick) if signed else f"{tick:.3g}"
        parts.append(_text(scale(tick), height - BOTTOM + 14, said, "middle"))
    parts.append(_text((room + WIDTH - RIGHT) / 2, height - 4, across, "middle"))
    for number, span in enumerate(spans):
        at, found = TOP + step * (number + 0.5), span.interval
        parts.append(_text(room - 8, at + 4, span.name, "end", "strong" if span.bold else ""))
        parts.append(_stroke(span.colour, scale(found.low), at, scale(found.high), at))
        figures = (found.mean, found.low, found.high)
        mean, low_end, high_end = (f"{x:+.3f}" if signed else f"{x:.4f}" for x in figures)
        said = f"{span.name}: {mean} [{low_end}, {high_end}]"
        parts.append(_dot(span.colour, scale(found.mean), at, said, 5 if span.bold else 3.5))
    return _whole(height, parts, label)


def scatter(
    groups: Mapping[str, Iterable[tuple[float, float, str]]], *, height: int, label: str
) -> str:
    """Points by group, (x, y, what a pointer shows) each, and their key.

    Both axes have one scale, and no numbers.
    """
    every = [point for points in groups.values() for point in points]
    ends = _padded([x for x, _, _ in every]), _padded([y for _, y, _ in every])
    room = WIDTH - 2 * RIGHT, height - 2 * TOP
    size = max((high - low) / pixels for (low, high), pixels in zip(ends, room, strict=True))
    half = [0.5 * size * pixels for pixels in room]
    middle = [0.5 * (low + high) for low, high in ends]
    across = _scale(middle[0] - half[0], middle[0] + half[0], RIGHT, WIDTH - RIGHT)
    up = _scale(middle[1] - half[1], middle[1] + half[1], height - TOP, TOP)
    parts = [
        _dot(number, across(x), up(y), said, 2.4)
        for number, points in enumerate(groups.values())
        for x, y, said in points
    ]
    key = ((name, number) for number, name in enumerate(groups))
    return _whole(height, parts, label) + _key(key)


def _heights(line: Line) -> list[float]:
    return [y for _, y in line.points] + [end for pair in line.reach for end in pair]


def _scale(first: float, last: float, at_first: float, at_last: float) -> Scale:
    span = (last - first) or 1.0
    return lambda value: at_first + (value - first) / span * (at_last - at_first)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    more = 0.05 * ((high - low) or 1.0)
    return low - more, high + more


def _round(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, at most so many."""
    if high <= low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= most)
    return [float(x) for x in np.arange(math.ceil(low / step), high / step) * step]


def _axes(height: int, up: Scale, ticks: Sequence[float], across: str, label: str) -> list[str]:
    parts = []
    for tick in ticks:
        y = f"{up(tick):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(_text(LEFT - 6, up(tick) + 4, f"{tick:.4g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 4, across, "middle"))
    middle = (TOP + height - BOTTOM) / 2
    turned = f'transform="rotate(-90 10 {middle:.0f})"'
    parts.append(
        f'<text x="10" y="{middle:.0f}" text-anchor="middle" {turned}>{_safe(label)}</text>'
    )
    return parts


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{_safe(words)}</text>'


def _stroke(colour: int, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="reach c{colour}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    )


def _dot(colour: int, x: float, y: float, said: str, radius: float) -> str:
    title = f"<title>{_safe(said)}</title>"
    return (
        f'<circle class="dot c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{title}</circle>'
    )


def _whole(height: int, parts: Iterable[str], label: str) -> str:
    opening = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(label)}">'
    return "\n".join([opening, *parts, "</svg>"])


def _key(names: Iterable[tuple[str, int]]) -> str:
    spans = (f'<span class="key c{number}">{_safe(name)}</span>' for name, number in names)
    return f'<p class="keys">{" ".join(spans)}</p>'


def _signed(value: float) -> str:
    return f"{value:+.2g}" if abs(value) > 1e-12 else "0"


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
