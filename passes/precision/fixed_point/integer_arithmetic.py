"""The pass that leaves integer arithmetic between what is quantised and what is quantised again."""

from __future__ import annotations

from dataclasses import dataclass

from ....compiler.ir.graph import Graph
from ....compiler.ir.rewrite import Rules, rewrite
from . import (
    arithmetic,
    greatest_place,
    layer_norm,
    movement,
    other_products,
    pooling,
    softmax,
    tables,
)

_RULES = Rules()
for _family in (
    tables, pooling, softmax, layer_norm, greatest_place, other_products, arithmetic, movement,
):  # fmt: skip
    _RULES.extend(_family.RULES)


@dataclass(frozen=True)
class IntegerArithmetic:
    """The pass. Expects products of integers (`IntegerProducts`) and signed bytes (`KeptBytes`).

    What of a graph is quantised at both ends is i8, i16 and i32 afterwards: sums, `requantize` with
    the rounding "single", tables of bytes and interpolated ones. Operators that no rule has, and
    those with operands that nothing has quantised, stay in floats.
    """

    name: str = "integer_arithmetic"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return rewrite(graph, _RULES)
