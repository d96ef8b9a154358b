"""Fused nodes: groups of operators, each of which becomes one kernel."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Graph, Node, Value


def fused_node(
    operands: Sequence[Value],
    results: Sequence[Value],
    region: Graph,
    *,
    form: str = "",
    name: str = "",
) -> Node:
    """A fused node around a region, which gives values that exist already.

    form: see `kernel/forms/form.py`.
    """
    return Node("fused", list(operands), list(results), {"form": form}, [region], name)
