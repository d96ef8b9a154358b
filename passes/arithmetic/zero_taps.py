"""Taps of windows that zero weights make dead: the window becomes smaller, or its border wider.

Filters whose outermost rows or columns are zero in every channel are filters without these; what
they would have met of the border is left out of it, or cropped from the operand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.ops.windows import spatial_axes
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from .work import moved, operations


@dataclass(frozen=True)
class ZeroTaps:
    """Convolutions with constants meet the taps that count, and none around them.

    told: hears of windows that shrink.
    """

    told: Told | None = None
    name: str = "zero_taps"

    def run(self, graph: Graph) -> bool:
        """Crop windows; whether any had a border of zeros."""
        rules = Rules()
        rules.on("conv")(self._cropped)
        return rewrite(graph, rules)

    def _cropped(self, node: Node, rw: Rewriter) -> Replacement:
        x, w, *bias = node.inputs
        if w.data is None or not w.dtype.is_float or not rw.may_round(node.output):
            return None
        spans = _nonzero(w.data, node.attrs["layout"] == "NCHW")
        pads, count = node.attrs["pads"], len(node.attrs["pads"]) // 2
        if spans is None or not all(isinstance(pad, int) for pad in pads):
            return None
        axes = spatial_axes(node.attrs["layout"], w.type.rank)
        taps = list[slice]([slice(None)] * w.type.rank)
        starts, stops, around = [0] * w.type.rank, list(x.shape), list(pads)
        first = 2 if node.attrs["layout"] == "NCHW" else 0
        for i, (axis, (low, high)) in enumerate(zip(axes, spans, strict=True)):
            kernel, dilation = w.data.shape[first + i], node.attrs["dilations"][i]
            taps[first + i] = slice(low, high)
            before, after = pads[i] - low * dilation, pads[count + i] - (kernel - high) * dilation
            around[i], around[count + i] = max(0, before), max(0, after)
            starts[axis], stops[axis] = max(0, -before), stops[axis] - max(0, -after)
            size = stops[axis] - starts[axis]
            if (before < 0 or after < 0) and not (isinstance(size, int) and size > 0):
                return None
        filters = np.ascontiguousarray(w.data[tuple(taps)])
        share = filters.size / w.data.size
        crops = any(starts) or stops != list(x.shape)
        if crops and operations(node) * (1 - share) <= moved(x.type):
            return None
        ends = {"starts": tuple(starts), "stops": tuple(stops), "steps": (1,) * len(stops)}
        read = rw.emit("slice", [x], ends) if crops else x
        if self.told:
            before = operations(node)
            why = "the other taps of its window are zero in every channel"
            self.told(Saving("zero_taps", node.name, node.op, before, before * share, why))
        attrs = {**node.attrs, "pads": tuple(around)}
        return rw.emit("conv", [read, constant(filters, w.name), *bias], attrs)


def _nonzero(weights: Array, first: bool) -> list[tuple[int, int]] | None:
    """Of each spatial axis the taps that are not all zero: the first, and the one behind the last;
    None where these are all, or none."""
    count = weights.ndim - 2
    if not weights.size:
        return None
    one = weights[0, 0] if first else weights[..., 0, 0]
    if one.all():
        return None
    spatial = tuple(range(2, weights.ndim)) if first else tuple(range(count))
    spans = []
    for axis in range(count):
        others = tuple(other for other in range(count) if other != axis)
        if (one != 0).any(axis=others)[[0, -1]].all():
            spans.append((0, one.shape[axis]))
            continue
        every = tuple(other for other in range(weights.ndim) if other != spatial[axis])
        places = np.flatnonzero((weights != 0).any(axis=every))
        if not places.size:
            return None
        spans.append((int(places[0]), int(places[-1]) + 1))
    return None if spans == [(0, size) for size in one.shape] else spans
