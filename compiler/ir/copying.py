"""Copies of whole graphs: what passes do to one leaves the other as it is."""

from __future__ import annotations

from .graph import Graph, Node, Value


def copied(graph: Graph) -> Graph:
    """A graph of new nodes and values; data of constants, types and attributes are shared."""
    return _Copier().graph(graph)


class _Copier:
    def __init__(self) -> None:
        self._values: dict[Value, Value] = {}

    def graph(self, graph: Graph) -> Graph:
        """A copy of a graph, or of a region whose captures have been copied."""
        inputs = [self._value(value) for value in graph.inputs]
        nodes = [self._node(node) for node in graph.nodes]
        outputs = [self._value(value) for value in graph.outputs]
        new = Graph(inputs, outputs, nodes, graph.name)
        new.bounds, new.notes = dict(graph.bounds), list(graph.notes)
        new.meanings, new.defaults = dict(graph.meanings), dict(graph.defaults)
        return new

    def _node(self, node: Node) -> Node:
        inputs = [self._value(value) for value in node.inputs]
        regions = [self.graph(region) for region in node.regions]
        outputs = [self._value(value) for value in node.outputs]
        return Node(node.op, inputs, outputs, node.attrs, regions, node.name)

    def _value(self, value: Value) -> Value:
        if value not in self._values:
            self._values[value] = Value(value.type, value.name, data=value.data)
        return self._values[value]
