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
from ...compiler.ir.groups import fused_node
from ...compiler.ir.ops.registry import make_node
from ...compiler.ir.types import DENSE, Layout, TensorType
from ...compiler.kernel.lower.scope import storage_shape, strides_of
from ...compiler.kernel.plan.in_place import origin
from ...compiler.kernel.plan.planner import input_symbols

MIN_RUN = 8  # elements; kernels that write shorter runs are slower than a copy
PARALLEL_COPY = 1 << 18  # elements; copies as large get a kernel each, which threads can share


@dataclass(frozen=True)
class ConcatViews:
    """The pass; it runs after fusion."""

    name: str = "concat_views"

    def run(self, graph: Graph) -> bool:
        """Turn concat kernels of the graph and of its control flow into views."""
        known = frozenset(input_symbols(graph))
        return any([_Views(part, known).run() for part in control_graphs(graph)])


def control_graphs(graph: Graph) -> list[Graph]:
    """The graph and the regions of its control flow."""
    found = [graph]
    for node in graph.nodes:
        if node.op != "fused":
            for region in node.regions:
                found += control_graphs(region)
    return found


class _Views:
    """known: symbols that have values before the graph runs."""

    def __init__(self, graph: Graph, known: frozenset[str]) -> None:
        self.graph = graph
        self.known = known
        self.taken: set[Value] = set()
        self.results = {origin(value) for value in graph.outputs}
        self.users: dict[Value, list[Node]] = {}
        self.elsewhere: set[Value] = set()
        self.made = {v for node in graph.nodes if node.op == "fused" for v in node.outputs}
        for node in graph.nodes:
            for value in node.inputs:
                self.users.setdefault(value, []).append(node)
            if node.op != "fused":
                self.elsewhere.update(node.inputs)
                for region in node.regions:
                    for inner in region.graphs():
                        self.elsewhere.update(inner.outputs)
                        self.elsewhere.update(v for n in inner.nodes for v in n.inputs)

    def run(self) -> bool:
        """Convert concats, the last ones first: they may have the earlier ones as parts."""
        replaced: dict[Node, list[Node]] = {}
        for node in reversed(self.graph.nodes):
            if _is_concat(node) and all(symbols_of(dim) <= self.known for dim in node.output.shape):
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
            while dense and source.producer in region.nodes and source.producer.op == "reshape":
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
            self._set_layout(value, layout)
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
            value not in self.made
            or value in self.taken
            or value in self.results
            or value.type.layout != DENSE
        ):
            return False
        if dense:
            return True
        producer = value.producer
        assert producer is not None
        inner = producer.regions[0].outputs[producer.outputs.index(value)]
        if value in self.elsewhere or _is_reshaped(inner):
            return False
        axis = concat.regions[0].nodes[-1].attrs["axis"] % value.type.rank
        run = product(value.shape[axis:])
        if isinstance(run, int) and run < MIN_RUN:
            return False
        return not any(
            reader.op == "reshape" and copy in reader.inputs
            for user in self.users[value]
            if user is not concat
            for other, copy in zip(user.inputs, user.regions[0].inputs, strict=True)
            if other is value
            for reader in user.regions[0].nodes
        )

    def _set_layout(self, value: Value, layout: Layout) -> None:
        """Store a value in another way, in the kernels that make and read it too."""
        producer = value.producer
        assert producer is not None
        inner = producer.regions[0].outputs[producer.outputs.index(value)]
        inner.type = inner.type.with_layout(layout)
        value.type = value.type.with_layout(layout)
        for user in self.users.get(value, ()):
            if user.op == "fused":
                for other, copy in zip(user.inputs, user.regions[0].inputs, strict=True):
                    if other is value:
                        copy.type = copy.type.with_layout(layout)


def _is_concat(node: Node) -> bool:
    if node.op != "fused" or len(node.outputs) != 1:
        return False
    last = node.regions[0].nodes[-1]
    return last.op == "concat" and node.regions[0].outputs == [last.output]


def _is_reshaped(value: Value) -> bool:
    return value.producer is not None and value.producer.op == "reshape"


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
    region = Graph(name="fused")
    copies: dict[Value, Value] = {}
    operands: list[Value] = []

    def inner(value: Value) -> Value:
        if value in copies or value.producer is None:
            if value in outer and value not in copies:
                copies[value] = Value(value.type, value.name)
                region.inputs.append(copies[value])
                operands.append(outer[value])
            return copies.get(value, value)
        node = value.producer
        inputs = [inner(operand) for operand in node.inputs]
        outputs = [Value(result.type, result.name) for result in node.outputs]
        copies.update(zip(node.outputs, outputs, strict=True))
        region.nodes.append(Node(node.op, inputs, outputs, node.attrs, (), node.name))
        return copies[value]

    for piece, result in group:
        source = inner(piece)
        copy = make_node("reshape", [source], {"shape": piece.shape})
        copy.output.type = result.type
        region.nodes.append(copy)
        region.outputs.append(copy.output)
    return fused_node(operands, [result for _, result in group], region, name=name)
