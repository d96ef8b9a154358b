"""Convolutions that make few channels: vectors go along the width, and channels stay first.

Channels-last code has a lane for every channel made; where there are three of them, most lanes
compute nothing. Along the width all lanes are in use, but what neighbouring convolutions read and
make has to be transposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import DType

LANES = 16  # f32 elements of the widest vectors in use
MOST_CHANNELS = LANES // 2
MOST_BESIDE_FEW = 2 * LANES  # where at most FEW channels are read
FEW = 4
LEAST_WIDTH = 2 * LANES
TRANSPOSE_CYCLES = 2.0  # of one element that is transposed in memory, at most


def along_width(graph: Graph, windows: Iterable[Node]) -> set[Node]:
    """Of channels-first windowed operators of a graph, the convolutions better left as they are."""
    candidates = {node for node in windows if _is_candidate(node)}
    users: dict[Value, list[Node]] = {}
    for node in graph.nodes if candidates else ():
        for value in node.inputs:
            users.setdefault(value, []).append(node)
    return {node for node in candidates if _pays(node, candidates, users)}


def _is_candidate(node: Node) -> bool:
    if node.op != "conv" or node.attrs["groups"] != 1 or node.attrs["strides"][-1] != 1:
        return False
    filters, width = node.inputs[1].shape, node.output.shape[-1]
    known = all(isinstance(dim, int) for dim in filters) and node.inputs[1].is_constant
    if not known or node.inputs[0].dtype is not DType.F32:
        return False
    out, channels, *_ = node.inputs[1].type.static_shape
    if out > (MOST_BESIDE_FEW if channels <= FEW else MOST_CHANNELS):
        return False
    return not isinstance(width, int) or width >= LEAST_WIDTH


def _pays(node: Node, candidates: set[Node], users: dict[Value, list[Node]]) -> bool:
    """Whether lanes that are in use are worth more cycles than transposes that come instead."""
    out, channels, *taps = node.inputs[1].type.static_shape
    saved = (
        math.prod(taps) * channels * max(0.0, 1 - out / LANES) / 2
    )  # two products of vectors a cycle
    before, after = _maker(node.inputs[0]), _readers(node.output, users)
    inside = 0.0 if before in candidates else channels * (1 if before else -1)
    outside = 0.0 if after and after <= candidates else out * (1 if after else -1)
    return saved > TRANSPOSE_CYCLES * (inside + outside)


def _keeps_order(node: Node) -> bool:
    """Whether elements stay in the order in which they are."""
    return has_trait(node, Trait.VIEW | Trait.POINTWISE)


def _maker(value: Value) -> Node | None:
    """The node from which operators that keep the order make a value; None: the model's input."""
    node = value.producer
    while node is not None and _keeps_order(node):
        node = node.inputs[0].producer
    return node


def _readers(value: Value, users: dict[Value, list[Node]]) -> set[Node]:
    """The nodes that read what operators that keep the order make of a value."""
    found: set[Node] = set()
    pending, seen = [value], {value}
    while pending:
        for node in users.get(pending.pop(), ()):
            if not _keeps_order(node):
                found.add(node)
            elif node.output not in seen:
                seen.add(node.output)
                pending.append(node.output)
    return found
