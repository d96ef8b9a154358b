"""Pieces of concats that are copied anyway, computed where they are copied: a launch less each.

New keys behind those of a cache that the caller has, say: the concat's kernel copies the old ones,
and can turn the new ones, too, which else take a kernel of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...compiler.ir.dims import symbols_of
from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.groups import (
    RegionBuilder,
    Uses,
    control_graphs,
    fused_node,
    is_fused,
    replace_groups,
)
from ...compiler.kernel.plan.plan import input_symbols
from .concat_views import is_concat
from .fusion import MAX_EXPRESSION
from .joined_pieces import MOST_PIECES
from .node_kinds import is_map, is_pointwise
from .shared_launches import expression_size


@dataclass(frozen=True)
class ComputedPieces:
    """The pass; it runs before `ConcatViews`, which has kernels write their pieces in place. Where
    that cannot be of one, as no kernel of the graph makes it, or of any, as only the run knows
    where they lie, a launch copies: it computes those pieces, too, that it alone reads and that
    follow element by element from what lies in memory.

    fits: whether the device has code for a kernel; others stay by themselves."""

    fits: Callable[[Node], bool]
    name: str = "computed_pieces"

    def run(self, graph: Graph) -> bool:
        """Rewrite the concats of the graph and of its control flow."""
        uses, known = Uses(graph), frozenset(input_symbols(graph))
        return any([self._run(part, uses, known) for part in control_graphs(graph)])

    def _run(self, graph: Graph, uses: Uses, known: frozenset[str]) -> bool:
        made = {value for node in graph.nodes if is_fused(node) for value in node.outputs}
        changed = False
        for node in [node for node in graph.nodes if is_concat(node)]:
            placed = all(symbols_of(dim) <= known for dim in node.output.shape)
            few = len(node.regions[0].nodes[-1].inputs) <= MOST_PIECES
            if not few or (placed and made.issuperset(node.inputs)) or not self.fits(node):
                continue
            groups = [uses.sole_group(value) for value in dict.fromkeys(node.inputs)]
            computed = [g for g in groups if g is not None and g in graph.nodes]
            computed = [group for group in computed if _follows(group) and self.fits(group)]
            merged = _merged(computed, node) if computed else None
            if merged is not None:
                replace_groups(graph, [*computed, node], merged, uses)
                changed = True
        return changed


def _follows(group: Node) -> bool:
    """Whether each element of a group's results follows from elements in memory."""
    nodes = group.regions[0].nodes
    return not group.attrs["form"] and all(
        is_pointwise(node) or is_map(node) or node.op == "concat" for node in nodes
    )


def _merged(groups: Sequence[Node], concat: Node) -> Node | None:
    """The concat with what the groups compute; None: its expression would be too long."""
    builder = RegionBuilder()
    for group in (*groups, concat):
        builder.inline(group)
    operands, region = builder.close(concat.outputs)
    if expression_size(region.outputs[0], {}) > MAX_EXPRESSION:
        return None
    return fused_node(operands, concat.outputs, region, name=concat.name)
