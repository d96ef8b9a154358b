"""Division by constants becomes multiplication, which is several times as fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..compiler.ir.graph import Graph, Node, Value, constant
from ..compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

_ROUNDING = frozenset({"round", "floor", "ceil", "mod", "fmod"})


@dataclass(frozen=True)
class Reciprocal:
    """x / c -> x * (1 / c) for float constants.

    That is exact for powers of two and else off by one unit in the last place at most. Quotients
    that are rounded to integers afterwards (quantisation) keep the division unless it is exact.
    """

    name: str = "reciprocal"

    def run(self, graph: Graph) -> bool:
        """Replace divisions; whether there were any."""
        rounded = _rounded_values(graph)
        rules = Rules()

        @rules.on("div")
        def multiply(node: Node, rw: Rewriter) -> Replacement:
            x, c = node.inputs
            factor = _inverse(c, exact=node.output in rounded)
            return None if factor is None else rw.emit("mul", [x, factor])

        return rewrite(graph, rules)


def _rounded_values(graph: Graph) -> set[Value]:
    found: set[Value] = set()
    for node in graph.walk():
        to_integer = node.op == "cast" and not node.output.dtype.is_float
        if to_integer or node.op in _ROUNDING:
            found.update(node.inputs)
    return found


def _inverse(c: Value, exact: bool) -> Value | None:
    if c.data is None or not c.dtype.is_float:
        return None
    divisor = c.data.astype(np.float64)
    with np.errstate(all="ignore"):
        factor = (1 / divisor).astype(c.data.dtype)
        magnitude = np.abs(factor.astype(np.float64))
    limits = np.finfo(np.float32 if c.dtype.bits < 64 else np.float64)
    if not bool(np.all((magnitude >= limits.tiny) & np.isfinite(magnitude))):
        return None
    powers_of_two = bool(np.all(np.abs(np.frexp(divisor)[0]) == 0.5))
    return None if exact and not powers_of_two else constant(factor)
