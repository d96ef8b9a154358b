"""Maxima of large windows are maxima of rows, then of columns of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

LEAST = 25  # elements of a window; of fewer the result in between costs more than is saved
RULES = Rules()


@dataclass(frozen=True)
class SeparablePools:
    """max_pool(x) {kernel = (h, w)} -> max_pool(max_pool(x) {(1, w)}) {(h, 1)}.

    h + w elements are compared instead of h * w.
    """

    name: str = "separable_pools"

    def run(self, graph: Graph) -> bool:
        """Replace them; whether there were any."""
        return rewrite(graph, RULES)


@RULES.on("max_pool")
def by_rows(node: Node, rw: Rewriter) -> Replacement:
    """max_pool(x) -> max_pool(max_pool(x)), along one axis each"""
    kernel = node.attrs["kernel"]
    if len(kernel) != 2 or not all(isinstance(size, int) for size in kernel):
        return None
    if min(kernel) == 1 or kernel[0] * kernel[1] < LEAST:
        return None
    value = node.inputs[0]
    for axis in (1, 0):
        value = rw.emit("max_pool", [value], _along(node.attrs, axis))
    return value


def _along(attrs: dict[str, Any], axis: int) -> dict[str, Any]:
    """The attributes of the pool along one of two axes."""
    other = dict(attrs)
    for name in ("kernel", "strides", "dilations"):
        other[name] = tuple(v if a == axis else 1 for a, v in enumerate(attrs[name]))
    other["pads"] = tuple(v if a % 2 == axis else 0 for a, v in enumerate(attrs["pads"]))
    return other
