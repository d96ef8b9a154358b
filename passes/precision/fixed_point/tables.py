"""Rule: any function of one byte is a table of its 256 results."""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.ir.graph import Node
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ..byte_tables import table_of_chain

RULES = Rules()


@RULES.on("quantize")
def table(node: Node, rw: Rewriter) -> Replacement:
    """quantize(f(dequantize(x))) -> byte_table(x)"""
    return table_of_chain(node, rw, _computes, shared=True)


def _computes(nodes: Sequence[Node]) -> bool:
    """Whether there is more than another scale, which a multiplication makes as well."""
    return any(node.op not in ("dequantize", "quantize") for node in nodes)
