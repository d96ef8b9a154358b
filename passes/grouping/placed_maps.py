"""Movements of elements that cost less as kernels of their own than inside of what reads them.

A copy reads its operand along one axis and writes along another, and so moves pieces of cache lines
that are transposed in registers, whole lines at a time. What reads it then finds its lanes side by
side. Inside of a product or of reductions over rows every lane would be a load of its own, from as
many lines as there are lanes; a plane apart they also fall into few sets of every cache, and are
gone before their neighbours are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.lower import ANCHORS
from ..arithmetic.work import elements
from ..layout.axis_permutation import match_axes
from ..layout.operand_panels import many_rows
from .node_kinds import is_pointwise, moves_last, multiplies, row_axes, steps_along, widens

COPY_ACCESSES = 3  # of vectors, of a copy: it is read, written, and read again


def gathers_lanes(node: Node, members: Sequence[Node], lanes: int) -> bool:
    """Whether a group that reads a map's result element by element would find its lanes apart.

    members: of the group, in execution order. lanes: of a vector register. Of a group that reduces
    once and no more, lanes go along whatever axis lies side by side.
    """
    along = node.output.shape[-1] if node.output.shape else 1
    if not moves_last(node) or lanes <= COPY_ACCESSES:
        return False
    if isinstance(along, int) and along <= COPY_ACCESSES:
        return False
    anchors = [place for place, member in enumerate(members) if member.op in ANCHORS]
    if any(multiplies(members[place]) for place in anchors):
        return True
    if not anchors or any(row_axes(members[place]) is None for place in anchors):
        return False
    first = members[anchors[0]]
    rows = first.inputs[0].shape
    behind = members[anchors[0] + 1 :]
    return len(anchors) > 1 or any(is_pointwise(m) and m.output.shape == rows for m in behind)


def makes_other_rows(node: Node, value: Value, reader: Node) -> bool:
    """Whether a reshape makes rows of another length of a map's result, or of `value`, made of it.

    Where an element comes from would follow by two divisions for each; of what lies in memory, rows
    of any length begin where the last ones end.
    """
    if not has_trait(reader, Trait.VIEW) or has_trait(node, Trait.VIEW):
        return False
    if widens(node) or not node.inputs:
        return False
    groups = match_axes(value.shape, reader.output.shape)
    return groups is None or any(len(old) > 1 and len(new) > 1 for old, new in groups)


def is_looked_up(node: Node, value: Value, user: Node) -> bool:
    """Whether a reader that data, or a reflection, tell where to look finds a map's result, or
    `value`, made of it by maps, better in memory.

    So is what axes alone tell of (padding, places, sizes), and a transpose of which rows are read:
    as many as it has, or more.
    """
    reflects = user.op == "pad" and user.attrs["mode"] != "constant"
    if user.inputs[0] is not value or not (reflects or has_trait(user, Trait.LOOKUP)):
        return False
    if node.op != "transpose":
        return node.op in ("pad", "iota", "dims")
    if not moves_last(node) or not _whole_rows(user):
        return False
    return elements(user.output.shape) >= elements(value.shape)


def _whole_rows(node: Node) -> bool:
    """Whether a lookup reads along the whole last axis, wherever data say."""
    rank = node.inputs[0].type.rank
    if node.op == "gather":
        return bool(node.attrs["axis"] % rank < rank - 1)
    if node.op == "gather_nd":
        depth = node.inputs[1].shape[-1]
        return isinstance(depth, int) and node.attrs["batch_dims"] + depth < rank
    return False


def slow_operand(node: Node, value: Value, user: Node, strided: bool) -> bool:
    """Whether a contraction would read a map's result, its operand `value`, with a stride, through
    data, or many times by rows that lie apart.

    strided: whether it reads well what lies apart.
    """
    if strided:
        return has_trait(node, Trait.QUANTISATION | Trait.LOOKUP) or node.op == "pad"
    if widens(node):
        return True
    if moves_last(node):
        return True
    if steps_along(node):
        return user.op != "matmul" or user.inputs[0] is not value
    if node.op == "transpose":
        return user.op == "matmul" and user.inputs[1] is value and many_rows(user)
    if node.op == "slice":
        return bool(node.attrs["steps"][-1] != 1)
    return node.op == "pad" or has_trait(node, Trait.LOOKUP) or user.op == "conv"
