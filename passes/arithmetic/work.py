"""What passes that save arithmetic count: operations, and bytes of what lies in memory.

An operation of a contraction and a byte written or read count the same; everything that acts
element by element is computed where its operands are read, and counts one operation an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...compiler.ir.dims import Dim, estimate
from ...compiler.ir.flops import node_flops
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import TensorType

TYPICAL = 64  # what a symbolic dim counts for
_FREE = Trait.INDEX_MAP | Trait.POINTWISE | Trait.LOOKUP

Uses = Mapping[Value, Sequence[tuple[Node | Graph, int]]]


def elements(dims: Iterable[Dim]) -> float:
    """How many elements a tensor has, as far as it is known."""
    count = 1.0
    for dim in dims:
        count *= estimate(dim, TYPICAL)
    return count


def moved(type_: TensorType) -> float:
    """Bytes that are written and read once."""
    return 2.0 * type_.dtype.bytes * elements(type_.shape)


def operations(node: Node) -> float:
    """Arithmetic of a node, regions included; none of what only moves elements."""
    flops = node_flops(node)
    if flops != 0:
        return estimate(flops, TYPICAL)
    if has_trait(node, Trait.INDEX_MAP | Trait.LOOKUP) or node.op == "concat":
        return 0.0
    if has_trait(node, Trait.REDUCTION | Trait.COMPOSITE | Trait.POOLING):
        return sum(elements(value.shape) for value in node.inputs[:1])
    return sum(elements(value.shape) for value in node.outputs)


def needs_memory(node: Node) -> bool:
    """Whether a node reads its operands from memory only: what makes them is no part of it."""
    return has_trait(node, Trait.CONTRACTION | Trait.POOLING) or node.op == "attention"


def is_free(node: Node) -> bool:
    """Whether a node is computed where its results are read, unless that has to be memory."""
    return has_trait(node, _FREE)


def stored(node: Node) -> float:
    """Bytes of results that lie in memory whoever reads them."""
    return 0.0 if is_free(node) else sum(moved(value.type) for value in node.outputs)


def is_read_from_memory(value: Value, uses: Uses) -> bool:
    """Whether a node that needs it in memory reads the value, or a view of it."""
    return any(
        isinstance(user, Node)
        and (
            needs_memory(user)
            or (has_trait(user, Trait.VIEW) and is_read_from_memory(user.output, uses))
        )
        for user, _ in uses.get(value, ())
    )


def graph_work(graph: Graph) -> float:
    """Operations of a graph's own nodes, and bytes of their results that lie in memory: those that
    are no part of what reads them."""
    uses = graph.uses()
    total = 0.0
    for node in graph.nodes:
        total += operations(node) + stored(node)
        if is_free(node) and not has_trait(node, Trait.VIEW):
            total += sum(moved(v.type) for v in node.outputs if is_read_from_memory(v, uses))
    return total
