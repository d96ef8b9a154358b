"""What the chosen binary does inside: its kernels below the machine's roofs, and its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..console import human_bytes, human_count, human_seconds
from ..pages.page_parts import figure
from ..pages.scatter import ScatterAxis, ScatterPoint, axis_of, scatter

FILLED = 3  # kernels, of those that take most of a run
ROOM = 0.15  # decades around all points


def roofline_figure(told: Mapping[str, Any]) -> str:
    """Operations per second over operations per byte, both logarithmic: a dot for each kernel that
    was measured and counts operations, below the roofs of each level of memory (Williams, Waterman
    and Patterson, "Roofline", CACM 52(4), 2009).

    told: what `Roofline.to_json` says. "" where there is no such kernel.
    """
    kernels = [
        kernel for kernel in told["kernels"]
        if kernel["seconds"] and kernel["flops"] and kernel["bytes"]
    ]  # fmt: skip
    if not kernels:
        return ""
    kernels.sort(key=lambda kernel: -kernel["calls"] * kernel["seconds"])
    points = [_kernel(kernel, told, number) for number, kernel in enumerate(kernels)]
    machine = told["machine"]
    peaks = {"f32": machine["flops_per_second"], **machine["peaks"]}
    xs = [point.x for point in points]
    low, high = min(xs) - ROOM, max([*xs, 1.0]) + ROOM
    roofs = [
        _roof(level["bandwidth"], peak, low, high)
        for peak in peaks.values()
        for level in machine["levels"]
    ]
    tops = [y for roof in roofs for _, y in roof]
    ys = [point.y for point in points]
    up = ScatterAxis("operations/s", min(ys) - ROOM, max([*tops, *ys]) + ROOM, _counted)
    across = ScatterAxis("operations per byte", low, high, lambda value: f"{10**value:.2g}")
    levels = ", ".join(level["name"] for level in machine["levels"])
    note = (
        f"One core; both axes logarithmic. Lines: what products of {', '.join(peaks)} can reach "
        f"with operands from {levels} ({machine['label']}). Filled: the three that take most of a "
        "run. Each tells its name where it is pointed at."
    )
    drawing = scatter(points, across, up, roofs)
    return f"<section>{figure('Roofline of the chosen binary', note, drawing)}</section>"


def _kernel(kernel: Mapping[str, Any], told: Mapping[str, Any], number: int) -> ScatterPoint:
    rate = kernel["flops"] / kernel["seconds"]
    share = kernel["calls"] * kernel["seconds"] / told["seconds"]
    title = (
        f"{kernel['name']}\n{' '.join(kernel['operators'])}\n{human_seconds(kernel['seconds'])} a "
        f"call, {share:.1%} of a run; bound by {kernel['bound']}"
    )
    label = "" if number else kernel["name"]
    kind = "dot" if number < FILLED else "dot hollow"
    intensity = kernel["flops"] / kernel["bytes"]
    return ScatterPoint(math.log10(intensity), math.log10(rate), title, kind, label)


def _roof(bandwidth: float, peak: float, low: float, high: float) -> list[tuple[float, float]]:
    """The line of what a level allows, in decades."""
    ridge = math.log10(peak / bandwidth)
    top = math.log10(peak)
    if ridge <= low:
        return [(low, top), (high, top)]
    slope = math.log10(bandwidth)
    if ridge >= high:
        return [(low, low + slope), (high, high + slope)]
    return [(low, low + slope), (ridge, top), (high, top)]


def _counted(value: float) -> str:
    return human_count(round(10**value))


def memory_figure(told: Mapping[str, Any]) -> str:
    """Bytes of tensors that are alive at each step of a run, beside the arena that they share; ""
    where only a run knows."""
    live: Sequence[int] = told["live_bytes"]
    if not live or not max(live):
        return ""
    line = [point for step, size in enumerate(live) for point in ((step, size), (step + 1, size))]
    arena = told["arena_bytes"]
    drawing = scatter(
        [], axis_of("step of the run", [len(live)], "{:g}".format),
        axis_of("alive", [*live, arena], lambda value: human_bytes(round(value))),
        [line], (arena, f"arena {human_bytes(arena)}"),
    )  # fmt: skip
    note = (
        "Tensors between kernels, weights, inputs and outputs apart. The line above is the memory "
        "that they share by turns, the arena."
    )
    return f"<section>{figure('Memory of the chosen binary', note, drawing)}</section>"
