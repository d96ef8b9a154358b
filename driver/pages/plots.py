"""Plots as SVG text, for a page that needs no network: dots with intervals, steps, bars.

Colours are CSS variables of the page, so that they follow its light or dark theme; whatever comes
from records is escaped. Every mark has a tooltip (`<title>`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 880
LABEL = 310  # of names beside rows
RIGHT = 60
ROW = 22
TOP, BOTTOM = 8, 34
LONGEST = 38  # characters of a name beside a row


def short(text: str, longest: int = LONGEST) -> str:
    """A name without its middle, where it is long: kernels are told apart by both ends."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


@dataclass(frozen=True)
class Scale:
    """Positions for values from `low` to `high`; ticks are round numbers."""

    low: float
    high: float
    left: float
    right: float

    def at(self, value: float) -> float:
        """The position of a value, which is kept inside."""
        span = (self.high - self.low) or 1.0
        share = min(1.0, max(0.0, (value - self.low) / span))
        return self.left + share * (self.right - self.left)

    def ticks(self, wanted: int = 6) -> list[float]:
        """Round values, about as many as wanted."""
        span = (self.high - self.low) or 1.0
        step = _round_step(span / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough * 0.999)


@dataclass(frozen=True)
class Mark:
    """A row of a plot of dots. low, high: the ends of its line; hollow: only looked at."""

    label: str
    value: float
    low: float
    high: float
    title: str
    hollow: bool = False
    before: float | None = None


def dots(marks: Sequence[Mark], scale: Scale, unit: Callable[[float], str], axis: str) -> str:
    """A row for each mark: a dot with its interval, or, with `before`, two dots and the way."""
    bottom = TOP + ROW * len(marks)
    parts = [_grid(scale, bottom, unit)]
    if scale.low < 0 < scale.high:
        x = scale.at(0)
        parts.append(f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
    for number, mark in enumerate(marks):
        parts.append(_row(mark, TOP + ROW * (number + 0.5), scale))
    parts.append(_axis(axis, scale, bottom + 30))
    return svg(bottom + BOTTOM, axis, parts)


def _row(mark: Mark, y: float, scale: Scale) -> str:
    low, value, high = (scale.at(v) for v in (mark.low, mark.value, mark.high))
    kind = "dot hollow" if mark.hollow else "dot"
    before = ""
    if mark.before is not None:
        x = scale.at(mark.before)
        before = (
            f'<line class="way" x1="{x:.1f}" x2="{value:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot hollow" cx="{x:.1f}" cy="{y}" r="4"/>'
        )
    whisker = ""
    if mark.before is None and mark.low != mark.high:
        whisker = f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
    return (
        f"<g><title>{escape(mark.title)}</title>"
        f'<rect class="hit" x="0" y="{y - ROW / 2}" width="{WIDTH}" height="{ROW}"/>'
        f'<text class="label" x="{LABEL - 10}" y="{y + 4}">{escape(short(mark.label))}</text>'
        f'{before}{whisker}<circle class="{kind}" cx="{value:.1f}" cy="{y}" r="4.5"/></g>'
    )


def bars(rows: Sequence[tuple[str, float, str]], axis: str) -> str:
    """A bar for each (name, number, tooltip), with the number at its end."""
    scale = Scale(0.0, max((n for _, n, _ in rows), default=1.0), LABEL, WIDTH - RIGHT)
    parts = []
    for number, (label, value, title) in enumerate(rows):
        y = TOP + ROW * number
        end = scale.at(value)
        parts.append(
            f"<g><title>{escape(title)}</title>"
            f'<text class="label" x="{LABEL - 10}" y="{y + 15}">{escape(short(label))}</text>'
            f'<rect class="bar" x="{LABEL}" y="{y + 4}" width="{max(1.0, end - LABEL):.1f}"'
            f' height="{ROW - 8}" rx="2"/>'
            f'<text class="value" x="{end + 6:.1f}" y="{y + 15}">{value:g}</text></g>'
        )
    bottom = TOP + ROW * len(rows)
    return svg(bottom + 22, axis, [*parts, _axis(axis, scale, bottom + 16)])


def steps(
    points: Sequence[tuple[float, float]],
    axis: str,
    unit: Callable[[float], str],
    title: Callable[[float, float], str],
) -> str:
    """A line of steps through (x, y), which both only grow, from the origin."""
    height, left = 180, 60
    across = Scale(0.0, points[-1][0], left, WIDTH - 20)
    up = Scale(0.0, max(1.0, points[-1][1]), TOP + height, TOP)
    parts = [_grid(across, TOP + height, unit, first=0)]
    for value in up.ticks(4):
        y = up.at(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 20}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="label" x="{left - 8}" y="{y + 4}">{value:g}</text>')
    path = f"M{across.at(0):.1f} {up.at(0):.1f}"
    for x, y in points:
        path += f"H{across.at(x):.1f}V{up.at(y):.1f}"
    parts.append(f'<path class="steps" d="{path}"/>')
    if len(points) <= 400:
        for x, y in points:
            parts.append(
                f'<circle class="step" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3">'
                f"<title>{escape(title(x, y))}</title></circle>"
            )
    return svg(TOP + height + BOTTOM, axis, [*parts, _axis(axis, across, TOP + height + 30)])


def histogram(
    values: Sequence[float], limit: float, unit: Callable[[float], str], axis: str
) -> str:
    """How often values lie where, from -limit to limit; those outside count at the ends."""
    slots, height, left = 40, 120, 60
    counts = [0] * slots
    for value in values:
        place = int((value + limit) / (2 * limit) * slots)
        counts[min(slots - 1, max(0, place))] += 1
    across = Scale(-limit, limit, left, WIDTH - 20)
    up = Scale(0.0, max(counts), TOP + height, TOP)
    parts = [_grid(across, TOP + height, unit, first=0)]
    for number, count in enumerate(counts):
        low = -limit + 2 * limit * number / slots
        x, y = across.at(low), up.at(count)
        wide = (WIDTH - 20 - left) / slots - 2
        text = f"{count} between {unit(low)} and {unit(low + 2 * limit / slots)}"
        if count:
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{y:.1f}" width="{wide:.1f}"'
                f' height="{TOP + height - y:.1f}" rx="1"><title>{escape(text)}</title></rect>'
            )
    return svg(TOP + height + BOTTOM, axis, [*parts, _axis(axis, across, TOP + height + 30)])


def _grid(scale: Scale, bottom: float, unit: Callable[[float], str], first: float = TOP) -> str:
    lines = []
    for value in scale.ticks():
        x = scale.at(value)
        lines.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{first}" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 14}">{escape(unit(value))}</text>'
        )
    return "".join(lines)


def _axis(text: str, scale: Scale, y: float) -> str:
    x = (scale.left + scale.right) / 2
    return f'<text class="axis" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    """A drawing of so many units high; label: for who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
