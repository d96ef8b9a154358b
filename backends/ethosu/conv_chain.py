"""Convolutions of bytes with what makes bytes of their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class ConvChain:
    """A convolution of bytes, the bias behind it (None: there is none), and what makes bytes of the
    sums."""

    conv: Node
    bias: Node | None
    scaled: Node

    @property
    def nodes(self) -> list[Node]:
        """In order."""
        return [node for node in (self.conv, self.bias, self.scaled) if node is not None]


def chain_of(conv: Node, uses: Mapping[Value, list[tuple[Node | Graph, int]]]) -> ConvChain | None:
    """The chain that a convolution begins; None where its sums are read otherwise."""

    def sole(value: Value) -> Node | None:
        users = uses.get(value, [])
        return users[0][0] if len(users) == 1 and isinstance(users[0][0], Node) else None

    behind = sole(conv.output)
    bias = behind if behind is not None and _is_bias(behind, conv) else None
    scaled = behind if bias is None else sole(bias.output)
    if scaled is None or scaled.op != "requantize" or scaled.inputs[0] is conv.inputs[0]:
        return None
    return ConvChain(conv, bias, scaled)


def _is_bias(node: Node, conv: Node) -> bool:
    """Whether it adds a constant for each output channel."""
    data = node.inputs[1].data if node.op == "add" else None
    if data is None or node.inputs[0] is not conv.output:
        return False
    return data.size == 1 or data.size == data.shape[-1] == conv.output.shape[-1]


def splice(graph: Graph, gone: Sequence[Node], nodes: Sequence[Node], result: Value) -> None:
    """Put nodes in the place of others, the last of which makes what `result` is from now on.

    gone: one node of the graph or more, in order; of all but the last no other node reads a result.
    nodes: in order, `result` being made by one of them; it takes the name of what it stands for.
    Raises ValueError where the last of `gone` is no node of the graph itself.
    """
    old = gone[-1].output
    result.name = old.name
    place = graph.nodes.index(gone[-1])
    graph.replace_uses({old: result})
    graph.nodes[place:place] = nodes
    left_out = set(gone)
    graph.nodes = [node for node in graph.nodes if node not in left_out]
