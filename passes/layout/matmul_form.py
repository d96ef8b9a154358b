"""Matrix products in their plainest form: two-dimensional where one matrix meets all rows."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

RULES = Rules()


@dataclass(frozen=True)
class MatmulForm:
    """matmul(x[.., K], w[K, N]) -> matmul of [rows, K] by [K, N], between reshapes."""

    name: str = "matmul_form"

    def run(self, graph: Graph) -> bool:
        """Flatten; whether anything was."""
        return rewrite(graph, RULES)


@RULES.on("matmul")
def two_dimensional(node: Node, rw: Rewriter) -> Replacement:
    """Leading axes of the left operand become rows, those of size 1 of the right one go."""
    a, b = node.inputs
    if a.type.rank == 2 and b.type.rank == 2:
        return None
    if any(dim != 1 for dim in b.shape[:-2]):
        return None
    rows = rw.emit("reshape", [a], {"shape": (product(a.shape[:-1]), a.shape[-1])})
    matrix = rw.emit("reshape", [b], {"shape": b.shape[-2:]})
    flat = rw.emit("matmul", [rows, matrix], node.attrs)
    return rw.emit("reshape", [flat], {"shape": node.output.shape})
