"""Bounds of floats that are rounded next, as bounds of the whole numbers.

Where conversions saturate, what no integer holds ends at the same bound, so that rounding may come
first: bounds of integers are one instruction, or part of one that narrows, and those of floats
several on processors that only compare them. A NaN would become 0 instead of the lower bound, so
that this is for floats made of integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType

SATURATES = "saturate"  # the instruction: conversions to i32 that end at its bounds
LARGEST = 1e18  # of a factor: sums of integers times it are no infinities
_RULES = Rules()


@dataclass(frozen=True)
class WholeBounds:
    """The pass."""

    name: str = "whole_bounds"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return rewrite(graph, _RULES)


@_RULES.on("rint")
def bounds_of_whole_numbers(node: Node, rw: Rewriter) -> Replacement:
    """rint(at_most(at_least(x, low), high)) -> min(max(rint(x), low), high)"""
    upper = rw.producer(node.inputs[0], "at_most")
    lower = rw.producer(upper.inputs[0], "at_least") if upper else None
    if upper is None or lower is None:
        return None
    low, high = _whole(lower.inputs[1]), _whole(upper.inputs[1])
    x = lower.inputs[0]
    if low is None or high is None or x.dtype is not DType.F32 or not _is_of_integers(x):
        return None
    number = rw.emit("max", [rw.emit("rint", [x]), constant(low)])
    return rw.emit("min", [number, constant(high)])


def _whole(value: Value) -> np.int32 | None:
    """A constant that is a whole number, as every i32 and f32 holds it."""
    number = scalar(value)
    if number is None or not float(number).is_integer() or abs(float(number)) >= 1 << 24:
        return None
    return np.int32(number)


def _is_of_integers(value: Value) -> bool:
    """Whether a float is made of integers and finite constants, and no NaN."""
    if value.data is not None:
        return bool(np.all(np.abs(value.data) < LARGEST))
    node = value.producer
    if node is None:
        return False
    if node.op == "cast" or has_trait(node, Trait.CONTRACTION):
        integers = node.inputs[0].dtype.is_integer
        return integers and all(_is_of_integers(v) for v in node.inputs[1:])
    arithmetic = node.op in ("add", "sub", "mul", "max", "min", "reshape")
    return arithmetic and all(map(_is_of_integers, node.inputs))
