"""Tables of bytes become operands of the groups that look up in them, which then are alike."""

from __future__ import annotations

import numpy as np

from ...compiler.ir.graph import Node, Value, constant
from ...compiler.ir.ops.byte_table import BYTE_TABLE


def tables_as_operands(node: Node) -> Node:
    """A fused node, byte_table(x) {values} in it made byte_table(x, table)."""
    region = node.regions[0]
    for inner in region.nodes:
        if inner.op == BYTE_TABLE and inner.attrs["values"] is not None:
            table = constant(np.asarray(inner.attrs["values"], np.uint8))
            operand = Value(table.type)
            node.inputs.append(table)
            region.inputs.append(operand)
            inner.inputs.append(operand)
            inner.attrs["values"] = None
    return node
