"""Products of one left operand whose results meet: they can be computed side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait

MOST_SIBLINGS = 4  # products at a time: their sums share the registers

Users = Mapping[Value, Sequence[Node]]


def siblings_of(product: Node, users: Users) -> list[Node]:
    """Other products of the same operand by constants, with results of the same type that meet
    this one's."""
    if not _by_constant(product):
        return []
    found = [
        other
        for other in dict.fromkeys(users.get(product.inputs[0], ()))
        if other is not product
        and other.inputs[0] is product.inputs[0]
        and _by_constant(other)
        and other.inputs[1].type == product.inputs[1].type
        and other.output.type == product.output.type
        and meet((product.output, other.output), users)
    ]
    return found[: MOST_SIBLINGS - 1]


def meet(values: Sequence[Value], users: Users) -> bool:
    """Whether some element-by-element operation depends on all the values, element by element."""
    reached = [_followers(value, users) for value in values]
    return bool(set.intersection(*reached))


def _by_constant(node: Node) -> bool:
    return node.op == "matmul" and node.output.type.rank == 2 and node.inputs[1].is_constant


def _followers(value: Value, users: Users) -> set[Node]:
    """Pointwise nodes with results of the value's shape that are computed from it."""
    found: set[Node] = set()
    waiting = [value]
    while waiting:
        for node in users.get(waiting.pop(), ()):
            if node in found or not has_trait(node, Trait.POINTWISE):
                continue
            if node.output.shape == value.shape:
                found.add(node)
                waiting.append(node.output)
    return found
