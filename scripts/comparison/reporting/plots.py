"""Plots as SVG that takes its colours from the page around it, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from shared.metrics import Reliability

from ..scores.intervals import Interval

_WIDTH, _HEIGHT = 440, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 30, 46
_STRIP = (400, 90)
_SQUARE, _SQUARE_LEFT, _SQUARE_TOP = 180, 30, 24
# Of a letter, of a line of text; good enough to keep labels apart.
_LETTER_PX, _LINE_PX = 6.3, 15
_POINT_PX = 6  # half of a point's side
_Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A method in a plot: where, and how sure."""

    name: str
    x: float
    y: Interval
    is_baseline: bool = False


def scatter(points: Sequence[Point], x_title: str, y_title: str, description: str) -> str:
    """A plot of scores in per cent against minutes; its horizontal axis is logarithmic from a minute on, and begins at 0.

    Args:
        points: those without a number are left out.
        x_title: of the horizontal axis.
        y_title: of the vertical one.
        description: for those who do not see it.

    Returns:
        an ``<svg>`` element; its parts carry the classes ``axis``, ``grid``, ``point``, ``whisker`` and ``name``.
    """
    points = [point for point in points if not math.isnan(point.x) and not math.isnan(point.y.mean)]
    parts = [f"<title>{escape(description)}</title>"]
    if not points:
        parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">no numbers</text>')
        return _svg(parts, description)
    low, high = _y_range(points)
    largest = max(1.0, *(point.x for point in points))
    ticks = [0.0, *(10.0**power for power in range(math.ceil(math.log10(largest)) + 1))]
    end = math.log10(1 + ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log10(1 + x) / end
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _TOP + (high - 100 * y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    step = 20 if high - low > 50 else 10 if high - low > 20 else 5
    for value in range(low, high + 1, step):
        y = place(0, value / 100)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    bottom = _HEIGHT - _BOTTOM
    for tick in ticks:
        x = place(tick, 0)[0]
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text class="axis" x="2" y="11">{escape(y_title)}</text>')
    places = [place(point.x, point.y.mean) for point in points]
    for point, (x, y) in zip(points, places, strict=True):
        kind = " baseline" if point.is_baseline else ""
        if not math.isnan(point.y.low):
            (_, lowest), (_, highest) = place(point.x, point.y.low), place(point.x, point.y.high)
            parts.append(f'<line class="whisker{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{lowest:.1f}" y2="{highest:.1f}"/>')
        tip = f"{point.name}: {100 * point.y.mean:.1f} % at {point.x:.1f} min"
        parts.append(f'<circle class="point{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(tip)}</title></circle>')
    for point, (x, y, anchor) in zip(points, label_places(places, [point.name for point in points]), strict=True):
        kind = " baseline" if point.is_baseline else ""
        parts.append(f'<text class="name{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(point.name)}</text>')
    return _svg(parts, description)


def strip(values: Sequence[tuple[str, float, bool]], mean: float, description: str) -> str:
    """A line from 0 to 100 % with a dot a case; dots that would cover each other are piled up.

    Args:
        values: name, share of 1, and whether the case has tumour.
        mean: that a stroke marks; NaN for none.
        description: for those who do not see it.

    Returns:
        an ``<svg>`` element; its parts carry the classes ``axis``, ``grid``, ``whisker``, and ``point`` and ``none`` for cases
        without tumour.
    """
    left, width, radius = 8.0, _STRIP[0] - 16.0, 3.5
    places: list[tuple[float, int]] = []
    for _, value, _ in values:
        x = left + value * width
        taken = {level for other, level in places if abs(other - x) < 2 * radius}
        places.append((x, next(level for level in range(len(places) + 1) if level not in taken)))
    highest = max((level for _, level in places), default=0)
    step = min(2 * radius, (_STRIP[1] - 34) / max(1, highest))
    base = _STRIP[1] - 26
    parts = [f"<title>{escape(description)}</title>"]
    parts.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{base + 5}" y2="{base + 5}"/>')
    for tick, anchor in ((0, "start"), (50, "middle"), (100, "end")):
        x = left + tick / 100 * width
        x_text = x - left + 2 if anchor == "start" else x + left - 2 if anchor == "end" else x
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{base + 5}" y2="{base + 8}"/>')
        parts.append(f'<text class="axis" x="{x_text}" y="{base + 19}" text-anchor="{anchor}">{tick}</text>')
    if not math.isnan(mean):
        x = left + mean * width
        parts.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{base + 5}"/>')
    for (name, value, has_tumour), (x, level) in zip(values, places, strict=True):
        kind = "" if has_tumour else " none"
        tip = f"{name}: {100 * value:.1f} %" + ("" if has_tumour else ", without tumour")
        y = base - level * step
        parts.append(f'<circle class="point{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(tip)}</title></circle>')
    return _svg(parts, description, _STRIP)


def reliability_plot(curve: Reliability, description: str) -> str:
    """How often there is tumour against the probability of it, both from 0 to 1; a dot is as large as its share of the pixels.

    Args:
        curve: bins without pixels are left out.
        description: for those who do not see it.

    Returns:
        an ``<svg>`` element; its parts carry the classes ``axis``, ``grid``, ``perfect``, ``curve`` and ``point``.
    """
    side, left, top = _SQUARE, _SQUARE_LEFT, _SQUARE_TOP
    parts = [f"<title>{escape(description)}</title>"]
    for tick in (0.0, 0.5, 1.0):
        x, y = left + tick * side, top + (1 - tick) * side
        parts.append(f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + side}"/>')
        parts.append(f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{top + side + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="perfect" x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}"/>')
    known = [
        (left + said * side, top + (1 - found) * side, count, said, found)
        for count, said, found in zip(curve.counts.tolist(), curve.confidence.tolist(), curve.frequency.tolist(), strict=True)
        if count
    ]
    parts.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in known)}"/>')
    total = sum(count for _, _, count, *_ in known)
    for x, y, count, said, found in known:
        radius = 1.5 + 6 * math.sqrt(count / total)
        tip = f"predicted {100 * said:.0f} %, observed {100 * found:.0f} %, {100 * count / total:.1f} % of the pixels"
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escape(tip)}</title></circle>')
    bottom = top + side + 34
    parts.append(f'<text class="axis" x="{left + side / 2}" y="{bottom}" text-anchor="middle">probability of tumour</text>')
    parts.append('<text class="axis" x="2" y="11">share that is tumour</text>')
    return _svg(parts, description, (left + side + 12, bottom + 6))


def label_places(places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[tuple[float, float, str]]:
    """Where to write each point's name: next to it, moved up or down until it covers no other name and no other point.

    Args:
        places: (x, y) of the points.
        names: their names.

    Returns:
        x, y of the base line, and ``text-anchor``, in the order of the points.
    """
    points = [(x - _POINT_PX, y - _POINT_PX, x + _POINT_PX, y + _POINT_PX) for x, y in places]
    taken: list[_Box] = []
    labels: dict[int, tuple[float, float, str]] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        boxes = _label_boxes(places[index], _LETTER_PX * len(names[index]))
        # Where all places are taken, names cover points sooner than names.
        free = (
            label
            for others in ([*taken, *points[:index], *points[index + 1 :]], taken, [])
            for label in boxes
            if not any(_overlap(label[0], other) for other in others)
        )
        box, anchor = next(free)
        taken.append(box)
        labels[index] = (box[2] if anchor == "end" else box[0], box[3] - 4, anchor)
    return [labels[index] for index in range(len(places))]


def _label_boxes(place: tuple[float, float], width: float) -> list[tuple[_Box, str]]:
    """Boxes that a name may have, the best one first, each with its ``text-anchor``."""
    x, y = place
    sides = [(x + 10, "start")] if x + 10 + width <= _WIDTH - 2 else []
    # A long name may reach over its own point, but not over the edge.
    sides += [(max(2.0, x - 10 - width), "end")] if not sides or x - 10 - width >= _LEFT else []
    tops = [y + sign * step * _LINE_PX / 2 - _LINE_PX / 2 for step in range(40) for sign in (1, -1)]
    inside = [top for top in tops if top >= _TOP - _LINE_PX and top + _LINE_PX <= _HEIGHT - _BOTTOM + 2]
    return [((left, top, left + width, top + _LINE_PX), anchor) for top in inside for left, anchor in sides]


def _y_range(points: Sequence[Point]) -> tuple[int, int]:
    """Per cent, in tens, that hold all points and whiskers."""
    ends = [100 * end for point in points for end in (point.y.mean, point.y.low, point.y.high) if not math.isnan(end)]
    low, high = 10 * math.floor(min(ends) / 10), 10 * math.ceil(max(ends) / 10)
    return (low, high) if high > low else (max(0, low - 10), min(100, low + 10))


def _overlap(box: _Box, other: _Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _svg(parts: Sequence[str], description: str, size: tuple[int, int] = (_WIDTH, _HEIGHT)) -> str:
    label = escape(description, {'"': "&quot;"})
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
