"""Borders that repeat or mirror what is inside are pieces of their own, beside a plain copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

LEAST = 1024  # elements of a result; a smaller one is looked up sooner than it is cut
RULES = Rules()


@dataclass(frozen=True)
class MirroredBorders:
    """pad(x) -> concat(border, x, border) for each axis.

    As one map every element would ask where it comes from, and lanes would be loaded one by one.
    """

    name: str = "mirrored_borders"

    def run(self, graph: Graph) -> bool:
        """Replace them; whether there were any."""
        return rewrite(graph, RULES)


@RULES.on("pad")
def pieces(node: Node, rw: Rewriter) -> Replacement:
    """pad(x) {edge or reflect} -> concat(border, x, border), the innermost axis first"""
    value, mode = node.inputs[0], node.attrs["mode"]
    rank, pads = value.type.rank, node.attrs["pads"]
    if mode not in ("edge", "reflect") or not (value.type.is_static and node.output.type.is_static):
        return None
    count = node.output.type.elements
    if not isinstance(count, int) or count < LEAST:
        return None
    sizes = value.type.static_shape
    for axis in reversed(range(rank)):
        before, after, last = pads[axis], pads[rank + axis], sizes[axis] - 1
        parts = [value]
        if before:
            parts.insert(0, _border(rw, value, axis, mode, before, (0, before)))
        if after:
            parts.append(_border(rw, value, axis, mode, after, (last, last - 1)))
        if len(parts) > 1:
            value = rw.emit("concat", parts, {"axis": axis})
    return value


def _border(
    rw: Rewriter, x: Value, axis: int, mode: str, width: int, places: tuple[int, int]
) -> Value:
    """The border of a width in front of an axis of x, or behind. places: of the edge that is
    repeated, and of what comes first where elements are mirrored."""
    shape = x.type.static_shape
    ends: dict[str, Any] = {"starts": [0] * len(shape), "stops": list(shape)}
    ends["steps"] = [1] * len(shape)
    if mode == "reflect":
        start = places[1]
        ends["starts"][axis], ends["stops"][axis], ends["steps"][axis] = start, start - width, -1
        return rw.emit("slice", [x], {name: tuple(values) for name, values in ends.items()})
    ends["starts"][axis], ends["stops"][axis] = places[0], places[0] + 1
    line = rw.emit("slice", [x], {name: tuple(values) for name, values in ends.items()})
    wide = tuple(width if a == axis else size for a, size in enumerate(shape))
    return rw.emit("broadcast_to", [line], {"shape": wide})
