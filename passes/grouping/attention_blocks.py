"""Fused nodes of attention, so that its scores never leave the cache.

Scores of all queries against all keys, their softmax and the sum of values that it weighs are
three fused nodes; here they become one, which computes blocks of queries one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.groups import RegionBuilder, Uses, fused_node, is_fused, replace_groups
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.forms.form import RowBlocksForm
from ...compiler.kernel.forms.region import goes_row_by_row
from ...compiler.kernel.forms.row_blocks_choice import row_blocks_form, row_blocks_illegal
from ...compiler.kernel.lower import REDUCE
from ...compiler.kernel.schedule.choices import Choices

ROWS = {"reduce_max", "reduce_sum"}


@dataclass(frozen=True)
class AttentionBlocks:
    """Three fused nodes become one that holds them, where nothing else reads what is between.

    choices: forms that are given.
    """

    choices: Choices = field(default_factory=Choices)
    name: str = "attention_blocks"

    def run(self, graph: Graph) -> bool:
        """Merge; whether there was anything to merge."""
        if not self.choices.graph.row_blocks:
            return False
        uses = Uses(graph)
        return any([self._run(part, uses) for part in list(graph.graphs())])

    def _run(self, graph: Graph, uses: Uses) -> bool:
        changed = False
        own = set(graph.nodes)
        for last in list(graph.nodes):
            if not last.inputs or _reducers(last) != ["matmul"]:
                continue
            middle = uses.sole_group(last.inputs[0])
            if middle is None or middle not in own or set(_reducers(middle)) != ROWS:
                continue
            makers = [uses.sole_group(value) for value in middle.inputs]
            first = next((n for n in makers if n in own and _reducers(n) == ["matmul"]), None)
            merged = self._merged([first, middle, last]) if first else None
            if first and merged:
                replace_groups(graph, [first, middle, last], merged, uses)
                changed = True
        return changed

    def _merged(self, nodes: list[Node]) -> Node | None:
        """The nodes as one fused node; None where they cannot, or had better not be, in blocks.

        Raises ScheduleError for given blocks that they cannot have.
        """
        if not self.choices.are_open and row_blocks_form(nodes) is None:
            return None
        builder = RegionBuilder()
        for node in nodes:
            builder.nest(node)
        operands, region = builder.close(nodes[-1].outputs)
        form = self.choices.form(
            operands,
            region,
            RowBlocksForm,
            partial(_usual, region),
            partial(_illegal, region),
        )
        if form is None:
            return None
        last = nodes[-1]
        return fused_node(operands, last.outputs, region, form=str(form), name=last.name)


def _usual(region: Graph) -> RowBlocksForm | None:
    """The form of three nested nodes where nothing is given."""
    form = row_blocks_form(region.nodes)
    return None if form is None or _illegal(region, form) else form


def _illegal(region: Graph, form: RowBlocksForm) -> str:
    """Why three nested nodes cannot take a form; empty where they can."""
    if why := row_blocks_illegal(region.nodes, form):
        return why
    if not _plain(region.nodes[1]):
        return "what is between the products is more than a softmax, element by element"
    return "" if goes_row_by_row(region, form) else "a block needs more than its own rows"


def _reducers(node: Node | None) -> list[str]:
    """The reductions and products of a fused node, in order; none of what is not one."""
    if node is None or not is_fused(node):
        return []
    return [inner.op for inner in node.regions[0].nodes if inner.op in REDUCE]


def _plain(node: Node) -> bool:
    """Whether everything but the reductions works element by element or moves elements."""
    moves = ("reshape", "slice", "transpose")
    return all(
        has_trait(inner, Trait.POINTWISE) or inner.op in ROWS or inner.op in moves
        for inner in node.regions[0].nodes
    )
