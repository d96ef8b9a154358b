"""Keys of kernels: that of their group, and what tells the group's kernels apart."""

from __future__ import annotations

from ...ir.graph import Node
from ...ir.groups import group_key

SMALL = "+small"  # the version of a kernel for sizes that its form is not for


def kernel_key(node: Node, version: str, rows_divided: bool) -> str:
    """The key of a kernel of a fused node; empty for a version that nothing is chosen for."""
    if version == SMALL:
        return ""
    rows = "+rows" * rows_divided
    return group_key(node.inputs, node.regions[0]) + version + _stored(node) + rows


def _stored(node: Node) -> str:
    """What tells kernels of a group apart whose tensors are stored in other ways: for each whether
    it has a border, or is a part of another. Empty where none is."""
    layouts = [value.type.layout for value in (*node.inputs, *node.outputs)]
    marks = ["b" if layout.border else "p" if layout.parent else "-" for layout in layouts]
    return f"+{''.join(marks)}" if set(marks) != {"-"} else ""
