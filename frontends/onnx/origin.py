"""From the name of an imported node back to the operator of the model that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from .reading.wire import read_model


def node_name(node: onnx.NodeProto) -> str:
    """What messages and the imported graph call a node: its name, or operator and first output."""
    return node.name or f"{node.op_type}:{next(iter(node.output), '')}"


def operator_of(path: Path, name: str) -> str:
    """The operator and the results of the node of a model file that messages call `name`; "" when
    the file has none.

    Raises UsageError and InvalidModelError when the file cannot be read.
    """
    model = read_model(path).model
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _with_subgraphs(nodes):
            if node_name(node) == name:
                results = ", ".join(f"'{output}'" for output in node.output if output)
                return f"{node.op_type} '{name}', which makes {results}"
    return ""


def _with_subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_subgraphs(graph.node)
