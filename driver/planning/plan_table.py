"""Rows of a plan's tables, and its verdict in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...compiler.economics.estimate import MARK, Estimate, Provenance, machines_of
from ..console import human_bytes, human_seconds
from .elsewhere import ModelledPoint
from .planning import PlanResult
from .points import PlanPoint

HEAD = (
    "binary", "machine", "layout", "at load", "idle", "saturated", "p99", "drop", "energy", "CPU",
    "size",
)  # fmt: skip


def seconds_text(value: Estimate) -> str:
    """A time, with `~` where it is modelled."""
    mark = MARK if value.kind is Provenance.MODELLED else ""
    return mark + human_seconds(value.value) if math.isfinite(value.value) else "without end"


def money_text(value: Estimate) -> str:
    """Money for a million inferences, with `~` where it is modelled."""
    return f"{value:.4g} {value.unit}" if math.isfinite(value.value) else "without end"


def estimate_text(value: Estimate | None) -> str:
    """A number with its unit; "" where there is none."""
    if value is None:
        return ""
    scaled, unit = value, value.unit
    for prefix in ("", "m", "µ", "n"):
        if abs(scaled.value) >= 1 or prefix == "n":
            return f"{scaled:.3g} {prefix}{unit}"
        scaled = scaled * 1000
    return ""


def drop_text(point: PlanPoint) -> str:
    """The drop with its interval; "" of the model itself."""
    drop = point.drop
    return "" if drop is None else f"{drop.drop:.4g} ({drop.low:.3g} .. {drop.high:.3g})"


def frontier_rows(result: PlanResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the frontier, the best by the objective first."""
    rows = []
    for point, stable in zip(result.points[: result.frontier], result.stable, strict=True):
        kept = "not shown" if point.lost <= result.limit else "no"
        promise = kept if point.misses else "yes"
        rows.append((*_row(point), promise, "holds" if stable.stable else "moves"))
    return (*HEAD, "in budget", "rank"), rows


def rest_rows(result: PlanResult) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of all other points, with why they are not on the frontier."""
    rows = []
    for point in result.points[result.frontier :]:
        why = "; ".join(miss.text for miss in point.misses) or "another is better in all"
        rows.append((*_row(point), why))
    return (*HEAD, "why"), rows


def modelled_rows(points: Sequence[ModelledPoint]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of what is modelled for targets that do not run here."""
    head = ("binary", "machine", "a run", "at load", "saturated", "p99", "note")
    rows: list[tuple[str, ...]] = []
    for point in points:
        cost, offer = point.cost, point.offer
        machine = "" if offer is None else offer.label
        money = ("", "", "")
        if cost is not None:
            machine = f"{cost.replicas} x {machine}"
            money = money_text(cost.at_load), money_text(cost.saturated), seconds_text(cost.p99)
        run = "" if point.seconds is None else seconds_text(point.seconds)
        rows.append((point.variant.name, machine, run, *money, point.note))
    return head, rows


def _row(point: PlanPoint) -> tuple[str, ...]:
    cost = point.cost
    machines = point.offer.label if cost is None else f"{cost.replicas} x {point.offer.label}"
    money = ("", "", "", "")
    if cost is not None:
        money = (
            money_text(cost.at_load), money_text(cost.idle), money_text(cost.saturated),
            seconds_text(cost.p99),
        )  # fmt: skip
    return (
        point.build.variant.name, machines, str(point.layout), *money, drop_text(point),
        estimate_text(point.energy), seconds_text(point.cpu), human_bytes(point.build.bytes),
    )  # fmt: skip


def machines_note(result: PlanResult) -> str:
    """What has to be said where a table ranks across machines; "" where it does not."""
    machines = machines_of(point.service for point in result.points)
    if len(machines) < 2:
        return ""
    return f"ranked across machines: {'; '.join(machines)}; ~ marks those that were not measured"


def verdict(result: PlanResult) -> str:
    """What was found, in a sentence."""
    point = result.choice
    if point is not None and point.cost is not None:
        return (
            f"{point.build.variant.name} on {point.cost.replicas} x {point.offer.label}, "
            f"{point.layout}: {money_text(point.cost.at_load)} at this load"
        )
    if result.nearest is None:
        return "nothing could be priced: no machine has the cores that a run takes"
    near = result.points[result.nearest]
    binding = max(near.misses, key=lambda miss: miss.by)
    return (
        f"nothing keeps the promise; nearest is {near.name}, the binding constraint "
        f"{binding.constraint}: {binding.text}"
    )


def load_test_text(result: PlanResult) -> str:
    """What the load test came to; "" where there was none."""
    test = result.test
    if test is None:
        return ""
    text = (
        f"load test here, {test.rate:.4g} inferences/s ({test.share:.0%} of what this machine "
        f"serves within the p99): p99 {seconds_text(test.measured)}, predicted "
        f"{seconds_text(test.predicted)}; {human_seconds(test.cpu.value)} of processor time each"
    )
    return f"{text}\n  not as predicted: {test.reason}" if test.reason else text
