"""What is added to a model: nodes and initialisers with names that nothing else has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import numpy_helper

from ..reduction.draft import subgraphs
from .constants import Array


class Additions:
    """The nodes of a graph as they are rewritten; `finish` gives them to the graph.

    nodes: the new list, in order.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self._taken = set(_names(graph))

    def fresh(self, wanted: str) -> str:
        """The name, or it with a number behind that no graph of the model has."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def initial(self, wanted: str, array: Array) -> str:
        """The name of a new initialiser."""
        name = self.fresh(wanted)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: Sequence[str], wanted: str, **attributes: Any) -> str:
        """The name of the result, and of the node, of a new one."""
        name = self.fresh(wanted)
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def finish(self) -> None:
        """The graph has these nodes from now on."""
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of all tensors of a graph and of those inside it."""
    for tensor in (*graph.initializer, *graph.input):
        yield tensor.name
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in subgraphs(node):
            yield from _names(inner)
