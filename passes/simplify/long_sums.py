"""Running sums along axes that are long, or of unknown length, are functions of the runtime."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType

SHORT = 16  # up to here each element's own sum is no more work than the call and the memory
_LEAST_BITS = 32  # of an element that the runtime takes
RULES = Rules()


@dataclass(frozen=True)
class LongSums:
    """cumsum -> cumsum_long, and so for products, whose work grows as the axis does.

    In a kernel every element has a sum of its own, so that the work grows with the square.
    Sums of fewer than 32 bits have 32 until they are stored.
    """

    name: str = "long_sums"

    def run(self, graph: Graph) -> bool:
        """Replace them; whether there were any."""
        return rewrite(graph, RULES)


@RULES.on("cumsum", "cumprod")
def by_runtime(node: Node, rw: Rewriter) -> Replacement:
    """cumsum(x) -> cumsum_long(x)"""
    x = node.inputs[0]
    length = x.shape[node.attrs["axis"]]
    if isinstance(length, int) and length <= SHORT:
        return None
    if x.dtype.bits >= _LEAST_BITS:
        return rw.emit(f"{node.op}_long", [x], dict(node.attrs))
    wide = rw.emit("cast", [x], {"dtype": DType.F32 if x.dtype.is_float else DType.I32})
    found = rw.emit(f"{node.op}_long", [wide], dict(node.attrs))
    return rw.emit("cast", [found], {"dtype": x.dtype})
