"""Products of one matrix by several constants: one product by all their columns, packed ones, too.

Queries, keys and values of attention are so. What reads a part of the result reads it as a slice,
which its kernel does by itself; a larger product keeps more of a GPU busy, and is launched once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.quantised_product import QUANTISED_MATMUL
from ...compiler.ir.ops.registry import Builder
from ...compiler.kernel.plan.external import reads_memory
from .siblings import meet

Uses = Mapping[Value, Sequence[tuple[Node | Graph, int]]]
_PRODUCTS = ("matmul", QUANTISED_MATMUL)
ALIGNMENT = 16  # bytes: parts begin where a thread can load so many at once


@dataclass(frozen=True)
class JointProducts:
    """matmul(x, v) + b, matmul(x, w) + c -> slices of matmul(x, [v w]) + [b c].

    Weights of few bits are joined as they are packed, with their scales and zero points. Not
    where results meet element by element: fusion puts those side by side.
    """

    name: str = "joint_products"

    def run(self, graph: Graph) -> bool:
        """Join; whether there was anything to join."""
        return any([self._run(part, graph.uses()) for part in list(graph.graphs())])

    def _run(self, graph: Graph, uses: Uses) -> bool:
        own = set(graph.nodes)
        by_operand: dict[tuple[Value, bool], list[_Part]] = {}
        for node in graph.nodes:
            if part := _part_of(node, own, uses):
                key = node.inputs[0], part.bias is not None
                by_operand.setdefault(key, []).append(part)
        changed = False
        for parts in by_operand.values():
            first = parts[0].product
            alike = [p for p in parts if _alike(p.product, first)]
            if len(alike) > 1 and not _any_meet(alike, uses):
                _join(graph, alike)
                changed = True
        return changed


@dataclass(frozen=True)
class _Part:
    """A product, the constant that is added to it, and the sum of both."""

    product: Node
    bias: Value | None
    result: Value


def _part_of(node: Node, own: set[Node], uses: Uses) -> _Part | None:
    """The node as a part of a joint product; None where it cannot be one."""
    if node.op not in _PRODUCTS or node.output.type.rank != 2:
        return None
    if not all(value.is_constant for value in node.inputs[1:]):
        return None
    columns = node.output.shape[-1]
    aligned = isinstance(columns, int) and columns * node.output.dtype.bytes % ALIGNMENT == 0
    if not aligned or node.attrs.get("product"):
        return None
    users = uses.get(node.output, ())
    bias, result = None, node.output
    if len(users) == 1 and isinstance(users[0][0], Node) and users[0][0] in own:
        user = users[0][0]
        other = user.inputs[1 - users[0][1]] if user.op == "add" else None
        if (
            other is not None
            and other.data is not None
            and other.shape in ((columns,), (1, columns))
        ):
            bias, result = other, user.output
    placed = any(
        not isinstance(user, Node) or user not in own or bool(user.regions) or reads_memory(user)
        for user, _ in uses.get(result, ())
    )
    return None if placed else _Part(node, bias, result)


def _alike(node: Node, other: Node) -> bool:
    """Whether products of one matrix differ in their columns alone."""
    columns = {"columns": 0}  # of packed weights, whose shape does not say it
    return (
        node.op == other.op
        and node.attrs | columns == other.attrs | columns
        and [value.dtype for value in node.inputs[1:]] == [v.dtype for v in other.inputs[1:]]
        and node.output.dtype is other.output.dtype
    )


def _any_meet(parts: Sequence[_Part], uses: Uses) -> bool:
    users = {v: [u for u, _ in found if isinstance(u, Node)] for v, found in uses.items()}
    return any(
        meet((a.result, b.result), users) for n, a in enumerate(parts) for b in parts[n + 1 :]
    )


def _join(graph: Graph, parts: Sequence[_Part]) -> None:
    """Replace parts by slices of one product, where the first of them stood."""
    first = parts[0].product
    made: list[Node] = []
    builder = Builder(made, first.name)
    attrs, axis = dict(first.attrs), 1
    if first.op == QUANTISED_MATMUL:
        attrs["columns"] = sum(part.product.attrs["columns"] for part in parts)
        axis = 0 if attrs["by_column"] else 1
    constants = zip(*(part.product.inputs[1:] for part in parts), strict=True)
    joined = [constant(np.concatenate([v.data for v in own], axis)) for own in constants]
    whole = builder.emit(first.op, [first.inputs[0], *joined], attrs)
    biases = [
        part.bias.data.reshape(-1) for part in parts if part.bias and part.bias.data is not None
    ]
    if biases:
        whole = builder.emit("add", [whole, constant(np.concatenate(biases))])
    replaced: dict[Value, Value] = {}
    start = 0
    for part in parts:
        stop = start + part.result.shape[-1]
        cut = {"starts": (0, start), "stops": (whole.shape[0], stop), "steps": (1, 1)}
        builder.name = part.product.name
        replaced[part.result] = builder.emit("slice", [whole], cut)
        start = stop
    at = graph.nodes.index(first)
    graph.nodes[at:at] = made
    gone = {part.product for part in parts} | {part.result.producer for part in parts}
    graph.nodes = [node for node in graph.nodes if node not in gone]
    graph.replace_uses(replaced)
