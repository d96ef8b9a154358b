"""Pointwise kernels are one kernel, where none lies between them: a launch less each.

The keys and the values of a cache are joined with new ones so, say, and rounded for products
beside that, and queries are turned, by one kernel for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import (
    RegionBuilder,
    Uses,
    control_graphs,
    fused_node,
    inner_operand,
    is_fused,
    replace_groups,
)
from ...compiler.ir.types import DENSE
from ...compiler.kernel.forms.form import TogetherForm
from .dependences import captured
from .fusion import MAX_EXPRESSION
from .node_kinds import is_map, is_pointwise

MOST_RESULTS = 6  # of one kernel: those of one shape are computed by the same threads
TOGETHER = str(TogetherForm())


@dataclass(frozen=True)
class SharedLaunches:
    """The pass; it runs behind all that changes what kernels store. A kernel becomes part of the
    next one that does not need it, or only element by element, where nothing else needs it before:
    no tensor is made earlier for it. Those of several shapes are computed at the same time.

    fits: whether the device has code for a kernel; others stay by themselves."""

    fits: Callable[[Node], bool]
    name: str = "shared_launches"

    def run(self, graph: Graph) -> bool:
        """Merge kernels of the graph and of its control flow."""
        uses = Uses(graph)
        return any([_run(part, uses, self.fits) for part in control_graphs(graph)])


def _run(graph: Graph, uses: Uses, fits: Callable[[Node], bool]) -> bool:
    waiting: list[Node] = []  # kernels that nothing has read yet, but what they became part of
    changed = False
    for node in list(graph.nodes):
        read = {*node.inputs, *captured(node)}
        needed = [group for group in waiting if not read.isdisjoint(group.outputs)]
        waiting = [group for group in waiting if group not in needed]
        if not is_points(node) or not fits(node):
            continue
        follows = len(needed) == 1 and _reads_in_place(node, needed[0])
        waiting.sort(key=lambda group: group.outputs[0].shape != node.outputs[0].shape)
        merged = None
        for group in (*(needed if follows else ()), *waiting):
            merged = merged_launch(group, node, uses)
            if merged is not None:
                replace_groups(graph, [group, node], merged, uses)
                waiting = [other for other in waiting if other is not group]
                changed = True
                break
        waiting.append(merged or node)
    return changed


def _reads_in_place(node: Node, group: Node) -> bool:
    """Whether each element of a kernel follows from those of another one in its place."""
    shapes = {value.shape for value in (*node.outputs, *group.outputs) if value in node.inputs}
    if any(shapes != {value.shape} for value in node.outputs):
        return False
    copies = [copy for value in group.outputs for copy in inner_operand(node, value)]
    region = node.regions[0]
    readers = [inner for inner in region.nodes if not set(copies).isdisjoint(inner.inputs)]
    return all(is_pointwise(reader) or reader.op == "cast" for reader in readers)


def is_points(node: Node) -> bool:
    """Whether it is a kernel whose elements each follow from elements in memory, in one launch."""
    if not is_fused(node) or node.attrs["form"] not in ("", TOGETHER):
        return False
    if len({value.shape for value in node.outputs}) > 1 and not node.attrs["form"]:
        return False
    region = node.regions[0]
    stores = [value.producer for value in region.outputs]
    return (
        all(value.type.layout == DENSE for value in node.outputs)
        and all(is_pointwise(n) or is_map(n) or n.op == "concat" for n in region.nodes)
        and not any(isinstance(n, Node) and n.op == "concat" for n in stores)
    )


def merged_launch(first: Node, last: Node, uses: Uses) -> Node | None:
    """Both as one kernel; None where it would not be one launch, or no good one."""
    kept = [v for v in first.outputs if any(reader is not last for reader, _ in uses.readers(v))]
    results = [*kept, *last.outputs]
    if len(results) > MOST_RESULTS:
        return None
    builder = RegionBuilder()
    for group in (first, last):
        builder.inline(group)
    operands, region = builder.close(results)
    known: dict[Value, int] = {}
    if sum(expression_size(value, known) for value in region.outputs) > MAX_EXPRESSION:
        return None
    form = TOGETHER if len({value.shape for value in results}) > 1 else ""
    return fused_node(operands, results, region, form=form, name=first.name)


def expression_size(value: Value, known: dict[Value, int]) -> int:
    """Of the expression of an element: operators and operands, where what is read twice counts
    twice. known: of other values of the region."""
    if value not in known:
        inputs: Sequence[Value] = value.producer.inputs if isinstance(value.producer, Node) else ()
        known[value] = 1 + sum(expression_size(operand, known) for operand in inputs)
    return known[value]
