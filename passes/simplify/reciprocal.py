"""Division by constants becomes multiplication, which is several times as fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

RULES = Rules()


@dataclass(frozen=True)
class Reciprocal:
    """x / c -> x * (1 / c) for float constants.

    That is exact for powers of two and else off by one unit in the last place at most: there
    quotients that a discrete result hangs on keep the division (see `ir/exactness.py`).
    """

    name: str = "reciprocal"

    def run(self, graph: Graph) -> bool:
        """Replace divisions; whether there were any."""
        return rewrite(graph, RULES)


@RULES.on("div")
def multiply(node: Node, rw: Rewriter) -> Replacement:
    """x / c -> x * (1 / c)"""
    x, c = node.inputs
    factor = _inverse(c)
    if factor is None or not (_powers_of_two(c) or rw.may_round(node.output)):
        return None
    return rw.emit("mul", [x, factor])


def _powers_of_two(c: Value) -> bool:
    return bool(np.all(np.abs(np.frexp(np.asarray(c.data, np.float64))[0]) == 0.5))


def _inverse(c: Value) -> Value | None:
    if c.data is None or not c.dtype.is_float:
        return None
    divisor = c.data.astype(np.float64)
    with np.errstate(all="ignore"):
        factor = (1 / divisor).astype(c.data.dtype)
        magnitude = np.abs(factor.astype(np.float64))
    limits = np.finfo(np.float32 if c.dtype.bits < 64 else np.float64)
    if not bool(np.all((magnitude >= limits.tiny) & np.isfinite(magnitude))):
        return None
    return constant(factor)
