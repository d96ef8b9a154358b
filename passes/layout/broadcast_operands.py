"""Operands that broadcast by themselves lose reshapes that put axes of size 1 in front, or take
them away.

Such a view stands between a reduction of one row and what scales the row by it, which could be one
kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

RULES = Rules()


@dataclass(frozen=True)
class BroadcastOperands:
    """f(x, reshape(y)) -> f(x, y) for pointwise operators, where y broadcasts to the same."""

    name: str = "broadcast_operands"

    def run(self, graph: Graph) -> bool:
        """Read what was reshaped; whether there was any."""
        return rewrite(graph, RULES)


@RULES.on(Trait.POINTWISE)
def pointwise(node: Node, rw: Rewriter) -> Replacement:
    """Of operands with no more axes than the result, which has to keep its shape."""
    operands = [_source(value, node.output.type.rank, rw) for value in node.inputs]
    if all(own is value for own, value in zip(operands, node.inputs, strict=True)):
        return None
    if all(own.type.rank < node.output.type.rank for own in operands):
        return None
    return rw.emit(node.op, operands, node.attrs)


def _source(value: Value, rank: int, rw: Rewriter) -> Value:
    """What a reshape of leading ones was of; another value is itself."""
    view = rw.producer(value, "reshape")
    if view is None:
        return value
    source = view.inputs[0]
    same = _without_ones(source.shape) == _without_ones(value.shape)
    return source if same and source.type.rank <= rank else value


def _without_ones(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """A shape without the axes of size 1 in front."""
    first = next((n for n, dim in enumerate(shape) if dim != 1), len(shape))
    return tuple(shape[first:])
