"""Concats that pointwise operators read element by element, without a kernel of their own.

Where launches cost more than loads, each element of the concat is that of the piece that it lies
in, looked up where it is read: a rotation of halves, (-b, a) of (a, b), say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...compiler.ir.graph import Node, Value
from .node_kinds import is_map, is_pointwise

# each is a branch of every element, and a launch where it is not joined: rotations have two, those
# of the two axes of a picture four, and what has more is mostly large, so that its launches weigh
# little (a judgement, not measured)
MOST_PIECES = 4


def joined_pieces(
    nodes: Sequence[Node], users: Mapping[Value, list[Node]], escapes: Collection[Value]
) -> set[Node]:
    """Concats, and pointwise nodes that make their pieces, that may be copied into what reads them.

    All that is joined would be written by kernels of its own, as it only moves what lies elsewhere;
    what another kernel makes is written in its place in the concat instead (`ConcatViews`). users:
    the readers of each value; escapes: values that are needed in memory.
    """

    def reader(value: Value) -> Node | None:
        """The only one."""
        readers = users.get(value, [])
        return readers[0] if len(readers) == 1 and value not in escapes else None

    def moved(value: Value) -> bool:
        return value.producer is not None and is_map(value.producer)

    found: set[Node] = set()
    for node in nodes:
        if node.op != "concat" or not 1 < len(node.inputs) <= MOST_PIECES:
            continue
        user = reader(node.output)
        if user is None or not is_pointwise(user) or user.output.shape != node.output.shape:
            continue
        made = [
            piece.producer
            for piece in node.inputs
            if not moved(piece)
            and piece.producer is not None
            and reader(piece) is node
            and is_pointwise(piece.producer)
            and all(map(moved, piece.producer.inputs))
        ]
        if len(made) + sum(map(moved, node.inputs)) == len(node.inputs):
            found |= {node, *made}
    return found
