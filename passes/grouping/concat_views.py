"""Concats without copies: what a concat joins is written where it belongs in the result.

After fusion a concat is a kernel that copies its operands. Operands that kernels of the same graph
make are stored in their part of the result instead (their readers use its strides), and the concat
becomes a node outside of kernels, for which nothing is left to do. What cannot be moved (inputs of
the graph, constants, operands of two concats) is still copied, by a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.ir.dims import product, symbols_of
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import (
    RegionBuilder,
    Uses,
    control_graphs,
    fused_node,
    inner_operand,
    inner_result,
    is_fused,
    lay_out,
)
from ...compiler.ir.ops.registry import Trait, has_trait, make_node
from ...compiler.ir.types import DENSE, Layout, TensorType
from ...compiler.kernel.lower.scope import storage_shape, strides_of
from ...compiler.kernel.plan.in_place import origin
from ...compiler.kernel.plan.plan import input_symbols

MIN_RUN = 8  # elements; kernels that write shorter runs are slower than a copy
PARALLEL_COPY = 1 << 18  # elements; copies as large get a kernel each, which threads can share


@dataclass(frozen=True)
class ConcatViews:
    """The pass; it runs after fusion."""

    name: str = "concat_views"

    def run(self, graph: Graph) -> bool:
        """Turn concat kernels of the graph and of its control flow into views."""
        known = frozenset(input_symbols(graph))
        uses = Uses(graph)
        return any([_Views(part, known, uses).run() for part in control_graphs(graph)])


class _Views:
    """known: symbols that have values before the graph runs."""

    def __init__(self, graph: Graph, known: frozenset[str], uses: Uses) -> None:
        self.graph = graph
        self.known = known
        self.uses = uses
        self.taken: set[Value] = set()
        self.results = {origin(value) for value in graph.outputs}
        self.groups = {node for node in graph.nodes if is_fused(node)}

    def run(self) -> bool:
        """Convert concats, the last ones first: they may have the earlier ones as parts."""
        replaced: dict[Node, list[Node]] = {}
        for node in reversed(self.graph.nodes):
            if is_concat(node) and all(symbols_of(dim) <= self.known for dim in node.output.shape):
                nodes = self._convert(node)
                if nodes:
                    replaced[node] = nodes
        self.graph.nodes = [n for node in self.graph.nodes for n in replaced.get(node, [node])]
        return bool(replaced)

    def _convert(self, node: Node) -> list[Node]:
        """The nodes that replace a concat kernel; none if no operand can be made in place."""
        region = node.regions[0]
        concat = region.nodes[-1]
        outer = dict(zip(region.inputs, node.inputs, strict=True))
        whole = node.output.type
        sources: list[Value | None] = []
        for piece in concat.inputs:
            dense = _lies_densely(piece.type, whole)
            source = piece
            while (
                dense and source.producer in region.nodes and has_trait(source.producer, Trait.VIEW)
            ):
                source = source.producer.inputs[0]
            value = outer.get(source)
            suits = value is not None and value not in sources and self._movable(value, dense, node)
            sources.append(value if suits else None)
        if not any(sources):
            return []
        nodes: list[Node] = []
        pieces: list[Value] = []
        copied: list[tuple[Value, Value]] = []
        for piece, value in zip(concat.inputs, sources, strict=True):
            dense = _lies_densely(piece.type, whole)
            layout = DENSE if dense else Layout(parent=storage_shape(whole))
            if value is None:
                pieces.append(Value(piece.type.with_layout(layout), piece.name))
                copied.append((piece, pieces[-1]))
                continue
            lay_out(value, layout, self.uses)
            self.taken.add(value)
            if value.shape != piece.shape:
                nodes.append(make_node("reshape", [value], {"shape": piece.shape}))
                value = nodes[-1].output
            pieces.append(value)
        nodes += _copies(copied, outer, node.name)
        joined = Node("concat", pieces, node.outputs, {"axis": concat.attrs["axis"]}, (), node.name)
        return [*nodes, joined]

    def _movable(self, value: Value, dense: bool, concat: Node) -> bool:
        """Whether a value can be made inside a concat's result, densely or with its strides."""
        if (
            self.uses.group_of(value) not in self.groups
            or value in self.taken
            or value in self.results
            or value.type.layout != DENSE
        ):
            return False
        if dense:
            return True
        readers = [reader for reader, _ in self.uses.readers(value)]
        if not self.groups.issuperset(readers) or _is_view(inner_result(value).producer):
            return False
        axis = concat.regions[0].nodes[-1].attrs["axis"] % value.type.rank
        run = product(value.shape[axis:])
        if isinstance(run, int) and run < MIN_RUN:
            return False
        return not any(
            _is_view(inner)
            for reader in readers
            if reader is not concat and isinstance(reader, Node)
            for copy in inner_operand(reader, value)
            for inner, _ in self.uses.readers(copy)
        )


def is_concat(node: Node) -> bool:
    """Whether a node is a kernel whose only result is a concat."""
    if not is_fused(node) or len(node.outputs) != 1:
        return False
    last = node.regions[0].nodes[-1]
    return last.op == "concat" and node.regions[0].outputs == [last.output]


def _is_view(node: Node | Graph | None) -> bool:
    return isinstance(node, Node) and has_trait(node, Trait.VIEW)


def _lies_densely(piece: TensorType, whole: TensorType) -> bool:
    """Whether a piece of a tensor along some axis is one run of memory, in row-major order."""
    dense, _ = strides_of(piece.with_shape(piece.shape))
    inside, _ = strides_of(whole)
    return all(
        dim == 1 or a == b for dim, a, b in zip(piece.shape, dense, inside, strict=True)
    )  # fmt: skip


def _copies(
    pairs: Sequence[tuple[Value, Value]], outer: dict[Value, Value], name: str
) -> list[Node]:
    """Kernels that compute pieces of a concat's region into values outside of it."""
    small = [pair for pair in pairs if isinstance(pair[0].type.elements, int)]
    small = [pair for pair in small if int(pair[0].type.elements) < PARALLEL_COPY]  # type: ignore[arg-type]
    groups = [small] if small else []
    groups += [[pair] for pair in pairs if pair not in small]
    return [_copy_node(group, outer, name) for group in groups]


def _copy_node(group: Sequence[tuple[Value, Value]], outer: dict[Value, Value], name: str) -> Node:
    builder = RegionBuilder(lambda value: outer.get(value) or value.producer)
    results = [result for _, result in group]
    for piece, result in group:
        copy = make_node("reshape", [builder.read(piece)], {"shape": piece.shape})
        copy.output.type = result.type
        builder.add(copy, [result])
    operands, region = builder.close(results)
    return fused_node(operands, results, region, name=name)
