"""In which order groups of nodes run: what needs what, by values, regions and symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import networkx as nx

from ...compiler.errors import InternalError
from ...compiler.ir.graph import Graph, Node, Value, captures
from ...compiler.ir.groups import is_fused
from ..simplify.symbol_use import binders, used_by

Part = TypeVar("Part")


def captured(node: Node) -> set[Value]:
    """What the regions of control flow read of the graphs around them."""
    if is_fused(node):
        return set()  # it captures nothing
    return {value for region in node.regions for value in captures(region)}


def needs(nodes: Sequence[Node], parts: Sequence[Part]) -> nx.DiGraph:
    """Which of the parts that nodes belong to are made from which: an edge leads to the later."""
    order = nx.DiGraph()
    order.add_nodes_from(parts)
    makers = {
        value: part for node, part in zip(nodes, parts, strict=True) for value in node.outputs
    }
    part_of = dict(zip(nodes, parts, strict=True))
    bound = {name: part_of[node] for name, node in binders(nodes).items()}
    for node, part in part_of.items():
        needed = [makers.get(value) for value in (*node.inputs, *captured(node))]
        if bound:
            needed += [bound.get(name) for name in used_by(node)]
        order.add_edges_from((other, part) for other in needed if other not in (None, part))
    return order


def sort_nodes(graph: Graph) -> None:
    """Order nodes so that values and symbols are made before they are used, keeping the order
    otherwise. Raises InternalError when nodes need each other."""
    order = needs(graph.nodes, graph.nodes)
    position = {node: place for place, node in enumerate(graph.nodes)}
    try:
        graph.nodes = list(nx.lexicographical_topological_sort(order, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        circle = " -> ".join(f"{a.op} '{a.name}'" for a, _ in nx.find_cycle(order))
        raise InternalError("kernels need each other's results", where=circle) from None
