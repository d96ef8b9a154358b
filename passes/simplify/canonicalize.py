"""Canonical form: local simplifications, each a rule in `passes/rules`."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.graph import Graph
from ...compiler.ir.rewrite import Rules, rewrite
from .rules import algebra, bounds, control, movement, reductions, requantise


def _all_rules() -> Rules:
    rules = Rules()
    for part in (movement, algebra, bounds, reductions, requantise, control):
        rules.extend(part.RULES)
    return rules


_RULES = _all_rules()


@dataclass(frozen=True)
class Canonicalize:
    """Rewrite every node to its simplest form, one sweep over the graph and its regions."""

    name: str = "canonicalize"

    def run(self, graph: Graph) -> bool:
        """Apply the rules; whether any did."""
        return rewrite(graph, _RULES)
