"""A plan as one HTML page: nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...compiler.economics.estimate import Estimate
from ...compiler.economics.serving import SEARCH_JOBS
from ..console import human_bytes, human_seconds
from ..pages import plots
from ..pages.page_parts import figure, tiles, whole_page
from ..pages.plots import LABEL, RIGHT, WIDTH, Mark, Scale
from ..pages.scatter import ScatterPoint, axis_of, scatter, split_bars
from .artifact_figures import memory_figure, roofline_figure
from .plan_table import (
    estimate_text,
    frontier_rows,
    machines_note,
    modelled_rows,
    money_text,
    rest_rows,
    seconds_text,
    verdict,
)
from .planning import PlanResult
from .points import PlanPoint

MOST_BARS = 16
CURVE_POINTS = 24
FAR = 5.0  # times as much as is drawn: a limit beyond is left out


def plan_page(result: PlanResult) -> str:
    """The page."""
    title = f"Plan: {result.request.model.stem}"
    body = (
        _promise(result), _tiles(result), _planes(result), _curve(result), _bars(result),
        _sensitivity(result), _inside(result), _tables(result), _notes(result),
    )  # fmt: skip
    return whole_page(title, "".join(body), "; ~ is what no machine has measured")


def _promise(result: PlanResult) -> str:
    request = result.request
    facts = [
        f"p99 of wait and run within {human_seconds(request.latency_p99)}",
        f"{request.load.mean:.4g} inferences/s, {request.load.peak:.4g} at the peak",
        request.load.method,
        result.machine,
    ]
    if result.metric:
        facts.insert(2, f"{result.metric} {result.exact:.4f} in fp32, a drop of {result.limit:.4g}")
    note = machines_note(result)
    facts += [note] if note else []
    return f'<p class="facts">{escape(" · ".join(facts))}</p>'


def _tiles(result: PlanResult) -> str:
    point = result.choice
    if point is None or point.cost is None:
        return f"<section><h3>{escape(verdict(result))}</h3></section>"
    cost, test = point.cost, result.test
    tested = "not measured"
    if test is not None:
        tested = f"predicted {seconds_text(test.predicted)}, at {test.rate:.4g}/s here"
    shown = [
        ("chosen", point.build.variant.name, f"{cost.replicas} x {point.offer.label}"),
        ("a million at this load", money_text(cost.at_load), f"idle {money_text(cost.idle)}"),
        ("a million, saturated", money_text(cost.saturated), f"{cost.utilisation:.0%} in use"),
        ("p99", seconds_text(cost.p99), str(point.layout)),
        ("load test: p99", "" if test is None else seconds_text(test.measured), tested),
    ]
    if point.energy is not None:
        shown.append(("energy", estimate_text(point.energy), "of an inference, at this load"))
    if point.drop is not None:
        shown.append(
            ("drop", f"{point.drop.drop:.4g}", f"{point.drop.low:.4g} to {point.drop.high:.4g}")
        )
    return f"<section>{tiles(shown)}</section>"


def _figure(title: str, note: str, drawing: str) -> str:
    return f"<section>{figure(title, note, drawing)}</section>"


def _planes(result: PlanResult) -> str:
    shown = [point for point in result.points if point.cost is not None]
    if not shown:
        return ""
    first = result.points[: result.frontier]
    currency = shown[0].cost.at_load.unit if shown[0].cost else ""

    def mark(point: PlanPoint, height: float) -> ScatterPoint:
        kind = "dot" if point in first else "dot hollow"
        if point is result.choice:
            kind = "dot chosen"
        label = point.build.variant.name if point is result.choice else ""
        return ScatterPoint(point.figures()[0], height, _title(point), kind, label)

    across = axis_of(f"{currency} at the load", [p.figures()[0] for p in shown], "{:g}".format)
    losses = [point.lost for point in shown]
    tails = [point.figures()[1] for point in shown]
    note = "Filled: nothing is better in all of cost, p99, accuracy and size. Hollow: the rest."
    limit = (result.limit, "allowed drop") if result.metric else None
    accuracy = scatter(
        [mark(point, point.lost) for point in shown], across,
        axis_of("drop", [*losses, result.limit], "{:.3g}".format), limit=limit,
    )  # fmt: skip
    promise = result.request.latency_p99
    seen = max(tails) > promise / FAR
    line = (promise, "promised p99") if seen else None
    far = "" if seen else f" The promise, {human_seconds(promise)}, is far above."
    latency = scatter(
        [mark(point, tail) for point, tail in zip(shown, tails, strict=True)], across,
        axis_of("p99", [*tails, promise] if seen else tails, human_seconds), limit=line,
    )  # fmt: skip
    return _figure("Cost and accuracy", note, accuracy) + _figure(
        "Cost and p99", note + far, latency
    )


def _title(point: PlanPoint) -> str:
    lines = [point.name, str(point.layout)]
    if point.cost is not None:
        lines.append(
            f"{money_text(point.cost.at_load)} at the load, {point.cost.replicas} machine(s), p99 "
            f"{seconds_text(point.cost.p99)}"
        )
    lines.append(f"drop {point.lost:.4g}, {human_bytes(point.build.bytes)}")
    return "\n".join([*lines, *(miss.text for miss in point.misses)])


def _curve(result: PlanResult) -> str:
    """p99 of one machine of the choice, as the load grows."""
    curve = result.curve
    if curve is None or result.choice is None or result.choice.cost is None:
        return ""
    limit, peak = result.request.latency_p99, result.request.load.peak
    rates = [curve.saturated * (n + 0.5) / CURVE_POINTS for n in range(CURVE_POINTS)]
    found = [(rate, curve.p99(rate, SEARCH_JOBS)) for rate in rates]
    line = [(rate, tail) for rate, tail in found if tail <= 1.5 * limit]
    tails = [tail for _, tail in line]
    seen = bool(tails) and max(tails) > limit / FAR
    own = peak / result.choice.cost.replicas
    here = ScatterPoint(
        own, curve.p99(own), f"{own:.4g} inferences/s on each machine", "dot chosen", "at the peak"
    )
    drawing = scatter(
        [here], axis_of("inferences/s on one machine", [curve.saturated], "{:g}".format),
        axis_of("p99", [limit, 1.5 * limit] if seen else tails, human_seconds), [line],
        (limit, "promised p99") if seen else None,
    )  # fmt: skip
    far = "" if seen else f" The promise, {human_seconds(limit)}, is far above."
    note = f"{result.choice.name}, {result.choice.layout}: calls by chance, one queue.{far}"
    return _figure("Load curve", note, drawing) if line else ""


def _bars(result: PlanResult) -> str:
    rows = []
    for point in result.points[:MOST_BARS]:
        if point.cost is None:
            continue
        whole, idle = point.cost.at_load.value, point.cost.idle.value
        title = f"{point.name}\nat work {whole - idle:.4g}, idle {idle:.4g}"
        parts = (("bar", whole - idle), ("idle", idle))
        rows.append((plots.short(point.name), parts, title))
    note = "What is paid for a million inferences at the load: for work, and (grey) for waiting."
    return _figure("Work and idle", note, split_bars(rows, "{:.4g}".format, "cost")) if rows else ""


def _sensitivity(result: PlanResult) -> str:
    marks = []
    for number, point in enumerate(result.points[: result.frontier]):
        if point.cost is None:
            continue
        cost, stable = point.cost.at_load, result.stable[number]
        moved = "its rank holds" if stable.stable else f"its rank moves: {', '.join(stable.moved)}"
        title = f"{point.name}\n{_interval(cost)}\n{moved}"
        high = cost.high if cost.high < 20 * cost.value else cost.value
        marks.append(Mark(point.name, cost.value, cost.low, high, title, not stable.stable))
    if not marks:
        return ""
    scale = Scale(0.0, 1.05 * max(mark.high for mark in marks), LABEL, WIDTH - RIGHT)
    note = (
        "Cost at the load with what the intervals of measured times make of it. Hollow: the rank "
        "moves with prices 20 % up or down, half or double the load, or its own interval."
    )
    return _figure("Sensitivity", note, plots.dots(marks, scale, "{:g}".format, "cost at the load"))


def _inside(result: PlanResult) -> str:
    """What the chosen binary's kernels and memory are."""
    told = result.profile
    return "" if told is None else roofline_figure(told) + memory_figure(told)


def _interval(cost: Estimate) -> str:
    return f"{money_text(cost)}, {cost.low:.4g} to {cost.high:.4g}"


def _tables(result: PlanResult) -> str:
    head, rows = frontier_rows(result)
    found = _table("Frontier", head, rows) if rows else ""
    head, rows = rest_rows(result)
    found += _table("Not on the frontier", head, rows) if rows else ""
    pruned = [(own.name, own.reason) for own in result.pruned]
    if result.modelled:
        title = "Modelled for targets that do not run here, and not ranked"
        found += _table(title, *modelled_rows(result.modelled))
    return found + (_table("Not tried", ("what", "why"), pruned) if pruned else "")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<section><h3>{escape(title)}</h3><div class="scroll"><table><thead><tr>{names}</tr>'
        f"</thead><tbody>{body}</tbody></table></div></section>"
    )


def _notes(result: PlanResult) -> str:
    notes = list(result.notes)
    if result.test is not None and result.test.reason:
        notes.append(f"the load test's p99 is not the predicted one: {result.test.reason}")
    notes += [result.cache.text()] if result.cache else []
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h3>Notes</h3><ul>{items}</ul></section>" if notes else ""
