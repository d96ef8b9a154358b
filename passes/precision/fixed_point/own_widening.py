"""Every reader of widened bytes widens them itself, so that it may run where no other does."""

from __future__ import annotations

from dataclasses import dataclass

from ....compiler.ir.graph import Graph, Node, Value
from ....compiler.ir.ops.registry import make_node
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType

_NARROW = (DType.I8, DType.I16)


@dataclass(frozen=True)
class OwnWidening:
    """The pass: afterwards what widens bytes, and takes their zero points off, has one reader."""

    name: str = "own_widening"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        made: list[Node] = []
        seen: set[Value] = set()
        changed = False
        for node in graph.nodes:
            for index, value in enumerate(node.inputs):
                if not _is_widened(value) or _is_step(node):
                    continue
                if value in seen:
                    node.inputs[index] = _copied(value, made)
                    changed = True
                seen.add(value)
            made.append(node)
        graph.nodes = made
        return changed


def _is_step(node: Node) -> bool:
    """Whether a node takes zero points off, for those that read it."""
    return node.op == "add" and _is_widened(node.output)


def _is_widened(value: Value) -> bool:
    node = value.producer
    if node is None or value.dtype is not DType.I32:
        return False
    if node.op == "add":
        return scalar(node.inputs[1]) is not None and _is_widened(node.inputs[0])
    return node.op == "cast" and node.inputs[0].dtype in _NARROW


def _copied(value: Value, made: list[Node]) -> Value:
    node = value.producer
    assert node is not None
    first = _copied(node.inputs[0], made) if node.op == "add" else node.inputs[0]
    copy = make_node(node.op, [first, *node.inputs[1:]], node.attrs, name=node.name)
    made.append(copy)
    return copy.output
