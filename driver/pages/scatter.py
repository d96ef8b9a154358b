"""Points in a plane, and lines through them, as SVG text; see `plots.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .plots import TOP, WIDTH, Scale, svg

Unit = Callable[[float], str]
LEFT, SIDE, BELOW = 78, 24, 44
HEIGHT = 270
NAME = 20  # for the name of the upright axis, above its values


@dataclass(frozen=True)
class ScatterPoint:
    """kind: a class of the style sheet: "dot", "dot hollow" or "dot chosen". label: beside it."""

    x: float
    y: float
    title: str
    kind: str = "dot"
    label: str = ""


@dataclass(frozen=True)
class ScatterAxis:
    """low, high: its ends. unit: how a value is written."""

    name: str
    low: float
    high: float
    unit: Unit


def axis_of(name: str, values: Sequence[float], unit: Unit) -> ScatterAxis:
    """An axis with room around all values, from 0 where none is below."""
    low, high = min([0.0, *values]), max([*values, 0.0])
    room = 0.08 * ((high - low) or 1.0)
    return ScatterAxis(name, low - (room if low < 0 else 0.0), high + room, unit)


def scatter(
    points: Sequence[ScatterPoint],
    across: ScatterAxis,
    up: ScatterAxis,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    limit: tuple[float, str] | None = None,
) -> str:
    """The drawing. lines: through (x, y). limit: a level that is not to be passed, and its name."""
    bottom = TOP + HEIGHT
    x = Scale(across.low, across.high, LEFT, WIDTH - SIDE)
    y = Scale(up.low, up.high, bottom, TOP + NAME)
    parts = [_grid(x, y, across, up, bottom)]
    for line in lines:
        places = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in line)
        parts.append(f'<polyline class="steps" points="{places}"/>')
    if limit is not None:
        level = y.at(limit[0])
        parts.append(
            f'<line class="limit" x1="{LEFT}" x2="{WIDTH - SIDE}" y1="{level:.1f}"'
            f' y2="{level:.1f}"/><text class="value" x="{LEFT + 6}" y="{level - 5:.1f}">'
            f"{escape(limit[1])}</text>"
        )
    order = {"dot hollow": 0, "dot": 1, "dot chosen": 2}
    for point in sorted(points, key=lambda own: order.get(own.kind, 1)):
        parts.append(_mark(point, x.at(point.x), y.at(point.y)))
    middle = (LEFT + WIDTH - SIDE) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{bottom + 36}">{escape(across.name)}</text>')
    return svg(bottom + BELOW, f"{up.name} against {across.name}", parts)


def _mark(point: ScatterPoint, x: float, y: float) -> str:
    side = 'text-anchor="end" ' if x > WIDTH * 0.7 else ""
    shift = -9 if side else 9
    label = f'<text {side}x="{x + shift:.1f}" y="{y - 7:.1f}">{escape(point.label)}</text>'
    return (
        f"<g><title>{escape(point.title)}</title>"
        f'<circle class="{point.kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        f"{label if point.label else ''}</g>"
    )


def _grid(x: Scale, y: Scale, across: ScatterAxis, up: ScatterAxis, bottom: float) -> str:
    parts = [f'<text class="value" x="4" y="{TOP + 10}">{escape(up.name)}</text>']
    for value in x.ticks():
        at = x.at(value)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP + NAME}" y2="{bottom}"/>'
            f'<text class="tick" x="{at:.1f}" y="{bottom + 16}">{escape(across.unit(value))}</text>'
        )
    for value in y.ticks(5):
        at = y.at(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - SIDE}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="label" x="{LEFT - 8}" y="{at + 4:.1f}">{escape(up.unit(value))}</text>'
        )
    return "".join(parts)


def split_bars(
    rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]], unit: Unit, axis: str
) -> str:
    """A bar for each (name, ((class, length), ...), tooltip), of parts one behind the other."""
    row, left, right = 26, 310, 90
    most = max((sum(size for _, size in parts) for _, parts, _ in rows), default=1.0)
    scale = Scale(0.0, most or 1.0, left, WIDTH - right)
    drawn = []
    for number, (label, parts, title) in enumerate(rows):
        top, at, total = TOP + row * number, float(left), 0.0
        cells = []
        for kind, size in parts:
            total += size
            end = scale.at(total)
            cells.append(
                f'<rect class="{kind}" x="{at:.1f}" y="{top + 4}" width="{max(0.0, end - at):.1f}"'
                f' height="{row - 9}"/>'
            )
            at = end
        drawn.append(
            f"<g><title>{escape(title)}</title>"
            f'<text class="label" x="{left - 10}" y="{top + 17}">{escape(label)}</text>'
            f'{"".join(cells)}<text class="value" x="{at + 6:.1f}" y="{top + 17}">'
            f"{escape(unit(total))}</text></g>"
        )
    return svg(TOP + row * len(rows) + 6, axis, drawn)
