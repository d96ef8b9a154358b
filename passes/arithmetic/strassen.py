"""One level of Strassen's algorithm for large products with constants: 7 products in place of 8.

The variant of S. Winograd has 4 sums of quarters of the left operand, 4 of the right one, which are
computed in f64 here and rounded once, and 7 of products. With one level and sums of K terms, u the
unit roundoff and |.| the largest magnitude, the error is at most

    (18 ((K/2)^2 + 3 K) - 6 K) u |A| |B|

of which an ordinary product has K^2 u |A| |B|. See V. Strassen, "Gaussian elimination is not
optimal", Numer. Math. 13, 1969; N. Higham, "Accuracy and stability of numerical algorithms", 2nd
edition, section 23.2.2, theorem 23.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from .work import elements, moved, operations


@dataclass(frozen=True)
class StrassenProducts:
    """matmul(x[M, K], constant[K, N]) of f32 -> seven products of half the size, and their sums.

    Expects two-dimensional products. told: hears of them. least_side, least_volume: M, K and N, and
    M K N, from which on it takes less time (timed on one Zen 5 core, docs/architecture.md).
    """

    told: Told | None = None
    least_side: int = 512
    least_volume: int = 1_200_000_000
    name: str = "strassen"

    def run(self, graph: Graph) -> bool:
        """Divide products; whether there were any."""
        products = {node for node in graph.walk() if node.op == "matmul" and self._pays(node)}
        rules = Rules()
        rules.on("matmul")(lambda node, rw: self._divided(node, rw) if node in products else None)
        return bool(products) and rewrite(graph, rules)

    def _pays(self, node: Node) -> bool:
        x, w = node.inputs
        sides = (*x.shape, w.shape[-1]) if x.type.rank == w.type.rank == 2 else ()
        if w.data is None or not sides or node.attrs.get("accumulate") or node.attrs.get("product"):
            return False
        if not (x.dtype is w.dtype is node.output.dtype is DType.F32) or x.is_constant:
            return False
        known = [side for side in sides if isinstance(side, int) and side % 2 == 0]
        if len(known) < 3 or min(known) < self.least_side:
            return False
        return known[0] * known[1] * known[2] >= self.least_volume

    def _divided(self, node: Node, rw: Rewriter) -> Replacement:
        if not rw.may_round(node.output):
            return None
        x, w = node.inputs
        assert w.data is not None
        a11, a12, a21, a22 = _quarters(rw, x)
        s1 = rw.emit("add", [a21, a22])
        s2 = rw.emit("sub", [s1, a11])
        s3 = rw.emit("sub", [a11, a21])
        s4 = rw.emit("sub", [a12, s2])
        left = (a11, a12, s4, a22, s1, s2, s3)
        p1, p2, p3, p4, p5, p6, p7 = (
            rw.emit("matmul", [one, constant(other, w.name)], node.attrs)
            for one, other in zip(left, combined(w.data), strict=True)
        )
        u2 = rw.emit("add", [p1, p6])
        u3 = rw.emit("add", [u2, p7])
        u4 = rw.emit("add", [u2, p5])
        top = [rw.emit("add", [p1, p2]), rw.emit("add", [u4, p3])]
        below = [rw.emit("sub", [u3, p4]), rw.emit("add", [u3, p5])]
        rows = [rw.emit("concat", half, {"axis": 1}) for half in (top, below)]
        if self.told:
            sums = 4 * elements(a11.shape) + 7 * elements(p1.shape)
            before = operations(node) + moved(node.output.type)
            after = operations(node) * 7 / 8 + sums + 4 * moved(a11.type) + 7 * moved(p1.type)
            why = "seven products of half the size make eight, with more rounding (-O3)"
            self.told(Saving("strassen", node.name, node.op, before, after, why))
        return rw.emit("concat", rows, {"axis": 0})


def combined(w: Array) -> list[Array]:
    """The right operands of the seven products, of a matrix [K, N]."""
    rows, columns = (side // 2 for side in w.shape)
    wide = w.astype(np.float64)
    b11, b12 = wide[:rows, :columns], wide[:rows, columns:]
    b21, b22 = wide[rows:, :columns], wide[rows:, columns:]
    t1 = b12 - b11
    t2 = b22 - t1
    parts = (b11, b21, b22, t2 - b21, t1, t2, b22 - b12)
    return [np.ascontiguousarray(part.astype(w.dtype)) for part in parts]


def _quarters(rw: Rewriter, x: Value) -> list[Value]:
    """The quarters of a matrix, row by row."""
    rows, columns = x.type.static_shape
    halves = [((0, rows // 2), (rows // 2, rows)), ((0, columns // 2), (columns // 2, columns))]
    found = []
    for top, bottom in halves[0]:
        for left, right in halves[1]:
            attrs = {"starts": (top, left), "stops": (bottom, right), "steps": (1, 1)}
            found.append(rw.emit("slice", [x], attrs))
    return found
