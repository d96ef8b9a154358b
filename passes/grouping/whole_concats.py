"""Concats as one loop over their result, where every launch costs more than a branch.

A concat's kernel is a copy of each piece, one behind the other, and each is a launch on a GPU. Read
through a reshape that changes nothing, its elements are looked up in the piece that they lie in.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Graph
from ...compiler.ir.groups import control_graphs
from ...compiler.ir.ops.registry import make_node
from .concat_views import is_concat
from .joined_pieces import MOST_PIECES


@dataclass(frozen=True)
class WholeConcats:
    """The pass; it runs behind `ConcatViews`, which leaves the concats that are copied as wholes;
    those of many pieces stay as they are."""

    name: str = "whole_concats"

    def run(self, graph: Graph) -> bool:
        """Rewrite the concat kernels of the graph and of its control flow."""
        found = [
            node.regions[0]
            for part in control_graphs(graph)
            for node in part.nodes
            if is_concat(node) and len(node.regions[0].nodes[-1].inputs) <= MOST_PIECES
        ]
        for region in found:
            (joined,) = region.outputs
            region.nodes.append(make_node("reshape", [joined], {"shape": joined.shape}))
            region.outputs[0] = region.nodes[-1].output
        return bool(found)
