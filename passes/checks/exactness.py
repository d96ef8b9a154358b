"""Marks the operators whose results must be rounded as the model says."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.exactness import exact_values
from ...compiler.ir.graph import Graph


@dataclass(frozen=True)
class Exactness:
    """Sets the attribute `exact` of every operator that has it.

    Kernels round such a result by itself: no product and sum in one step, no product for a
    quotient, no Winograd transforms. Comes after all rewriting, before fusion.
    """

    name: str = "exactness"

    def run(self, graph: Graph) -> bool:
        """Mark; whether any mark changed."""
        found = exact_values(graph)
        changed = False
        for node in graph.walk():
            if "exact" in node.attrs:
                exact = any(value in found for value in node.outputs)
                changed |= exact != node.attrs["exact"]
                node.attrs["exact"] = exact
        return changed
