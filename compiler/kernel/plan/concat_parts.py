"""Concatenations outside of kernels: their operands are made where they belong in the result."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ...ir.graph import Graph, Node, Value
from ..lower.scope import strides_of
from .in_place import origin


@dataclass(frozen=True)
class Part:
    """A value that lies inside the memory of another. offset: in bytes."""

    whole: Value
    offset: Dim


def parts_of(graph: Graph) -> dict[Value, Part]:
    """The values that concats of the graph (not those in kernels) join, reshapes looked through."""
    found: dict[Value, Part] = {}
    for node in graph.nodes:
        if node.op == "concat":
            for value, offset in zip(node.inputs, piece_offsets(node), strict=True):
                found[origin(value)] = Part(node.output, offset)
    return found


def piece_offsets(node: Node) -> list[Dim]:
    """Where the operands of a concat begin in the memory of its result, in bytes."""
    axis = node.attrs["axis"] % node.output.type.rank
    strides, start = strides_of(node.output.type)
    offsets: list[Dim] = []
    for value in node.inputs:
        offsets.append(start * value.dtype.bytes)
        start = start + value.shape[axis] * strides[axis]
    return offsets
