"""Products of flattened pictures: rows of constant weights are moved instead of the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar

RULES = Rules()
_BETWEEN = 4  # pointwise operators that are looked through: of an activation, say, or a scale


@dataclass(frozen=True)
class MovedWeights:
    """flattened(transpose(x)) W -> flattened(x) W'"""

    name: str = "moved_weights"

    def run(self, graph: Graph) -> bool:
        """Move weights; whether any were."""
        return rewrite(graph, RULES)


@RULES.on("matmul")
def of_transposed(node: Node, rw: Rewriter) -> Replacement:
    """f(flattened(transpose(x))) W -> f(flattened(x)) W', with rows of the constant W moved.

    f: pointwise operators whose other operands are scalars. Other readers of the flattened picture
    keep it as it was. The sum of a product has its terms in another order, so floats whose rounding
    matters are left alone.
    """
    weights = node.inputs[1].data
    if weights is None or weights.ndim != 2:
        return None
    if node.output.dtype.is_float and not rw.may_round(node.output):
        return None
    between = _pointwise(node.inputs[0], rw)
    flat = rw.producer(between[-1].inputs[0] if between else node.inputs[0], "reshape")
    turned = rw.producer(flat.inputs[0], "transpose") if flat is not None else None
    if flat is None or turned is None:
        return None
    order = _rows(turned, flat.output, len(weights))
    if order is None:
        return None
    moved = rw.emit("reshape", [turned.inputs[0]], {"shape": flat.output.shape})
    for step in reversed(between):
        moved = rw.emit(step.op, [moved, *step.inputs[1:]], step.attrs)
    return rw.emit("matmul", [moved, constant(weights[order], node.inputs[1].name)], node.attrs)


def _pointwise(value: Value, rw: Rewriter) -> list[Node]:
    """The pointwise operators that make the value, the last first: of one operand that is no
    scalar constant each."""
    found: list[Node] = []
    while len(found) < _BETWEEN and (made := rw.producer(value)) is not None:
        others = made.inputs[1:]
        if not has_trait(made, Trait.POINTWISE) or any(
            scalar(other) is None or other.type.rank > made.inputs[0].type.rank for other in others
        ):
            break
        found.append(made)
        value = made.inputs[0]
    return found


def _rows(turned: Node, flat: Value, rows: int) -> np.ndarray | None:
    """For every element of a flattened picture before it is turned: its place behind that; None
    where axes in front of the flattened ones are moved, or their sizes are not known."""
    perm, shape = turned.attrs["perm"], turned.output.shape
    kept = flat.type.rank - 1
    sizes = shape[kept:]
    if tuple(perm[:kept]) != tuple(range(kept)) or shape[:kept] != flat.shape[:-1]:
        return None
    if not all(isinstance(size, int) for size in sizes) or math.prod(map(int, sizes)) != rows:
        return None
    order = np.arange(rows).reshape([int(size) for size in sizes])
    return order.transpose(np.argsort([axis - kept for axis in perm[kept:]])).reshape(-1)
