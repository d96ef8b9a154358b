"""Fused nodes of attention, so that its scores never leave the cache.

Scores of all queries against all keys, their softmax and the sum of values that it weighs are
three fused nodes; here they become one, which computes blocks of queries one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import fused_node
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
        changed = False
        for part in list(graph.graphs()):
            changed = self._run(part, graph) or changed
        return changed

    def _run(self, graph: Graph, whole: Graph) -> bool:
        changed = False
        for last in list(graph.nodes):
            if _reducers(last) != ["matmul"]:
                continue
            middle = _producer(graph, whole, last, 0)
            if middle is None or set(_reducers(middle)) != ROWS:
                continue
            first = next(
                (
                    found
                    for position in range(len(middle.inputs))
                    if (found := _producer(graph, whole, middle, position)) is not None
                    and _reducers(found) == ["matmul"]
                ),
                None,
            )
            merged = self._merged([first, middle, last]) if first else None
            if first and merged:
                graph.nodes[graph.nodes.index(last)] = merged
                graph.nodes.remove(first)
                graph.nodes.remove(middle)
                changed = True
        return changed

    def _merged(self, nodes: list[Node]) -> Node | None:
        """The nodes as one fused node; None where they cannot, or had better not be, in blocks."""
        if row_blocks_form(nodes) is None or not _plain(nodes[1]):
            return None
        operands, region = _together(nodes)
        form = self.choices.form(
            operands,
            region,
            RowBlocksForm,
            partial(row_blocks_form, region.nodes),
            partial(row_blocks_illegal, region.nodes),
        )
        if form is None or not goes_row_by_row(region, form):
            return None
        last = nodes[-1]
        return fused_node(operands, last.outputs, region, form=str(form), name=last.name)


def _reducers(node: Node) -> list[str]:
    """The reductions and products of a fused node, in order."""
    if node.op != "fused":
        return []
    return [inner.op for inner in node.regions[0].nodes if inner.op in REDUCE]


def _producer(graph: Graph, whole: Graph, node: Node, position: int) -> Node | None:
    """The node whose only result is read once, by a fused node's operand."""
    if position >= len(node.inputs):
        return None
    value = node.inputs[position]
    found = next((n for n in graph.nodes if value in n.outputs), None)
    if found is None or found.op != "fused" or len(found.outputs) > 1:
        return None
    reads = sum(other is value for n in whole.walk() for other in n.inputs)
    returned = any(other is value for part in whole.graphs() for other in part.outputs)
    return found if reads == 1 and not returned else None


def _together(nodes: list[Node]) -> tuple[list[Value], Graph]:
    """(operands, region) of a node that holds the nodes."""
    inside = {nodes[0].output, nodes[1].output}
    copies: dict[Value, Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value not in inside and value not in copies:
                copies[value] = Value(value.type, value.name)
    results = {node.output: Value(node.output.type, node.output.name) for node in nodes}
    region = Graph(list(copies.values()), [results[nodes[2].output]], name="fused")
    for node in nodes:
        inputs = [results[v] if v in inside else copies[v] for v in node.inputs]
        region.nodes.append(
            fused_node(inputs, [results[node.output]], node.regions[0], name=node.name)
        )
    return list(copies), region


def _plain(node: Node) -> bool:
    """Whether everything but the reductions works element by element or moves elements."""
    moves = ("reshape", "slice", "transpose")
    return all(
        has_trait(inner, Trait.POINTWISE) or inner.op in ROWS or inner.op in moves
        for inner in node.regions[0].nodes
    )
