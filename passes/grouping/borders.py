"""Borders: what pads a convolution's input is stored once around it instead of tested for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import Uses, inner_result, is_fused, lay_out
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import Layout
from ...compiler.kernel.forms.form import WinogradForm, form_of
from ...compiler.kernel.forms.winograd import Winograd
from ...compiler.kernel.lower.reductions import first_spatial, overhangs

MAX_BORDER = 16  # wider paddings are tested for in the loop instead of being stored


@dataclass(frozen=True)
class Borders:
    """Results of fused nodes that padded convolutions read are surrounded with it in memory.

    Borders are as wide as the windows reach, or the tiles of the form that the group has. Windows
    at stride 2 may reach over one edge alone: the other one gets a border, too, so that what writes
    a tensor of that size for any stride is one kernel.
    """

    name: str = "borders"

    def run(self, graph: Graph) -> bool:
        """Set the layouts; whether there were any to set."""
        uses = Uses(graph)
        return any([_set_borders(part, uses) for part in list(graph.graphs())])


def _set_borders(graph: Graph, uses: Uses) -> bool:
    groups = [node for node in graph.nodes if is_fused(node)]
    made_here = {value for group in groups for value in group.outputs}
    wanted: dict[Value, list[tuple[int, int]]] = {}
    fills: dict[Value, int] = {}
    changed = False
    for group in groups:
        _ask(group, wanted, fills)
    for value, border in wanted.items():
        if value not in made_here or not any(a or b for a, b in border):
            continue
        inner = inner_result(value)
        if not all(is_fused(reader) for reader, _ in uses.readers(value)) or (
            inner.producer is not None and has_trait(inner.producer, Trait.VIEW)
        ):
            continue
        lay_out(value, Layout(tuple(map(_at_both_edges, border)), fill=fills[value]), uses)
        changed = True
    return changed


def _ask(node: Node, wanted: dict[Value, list[tuple[int, int]]], fills: dict[Value, int]) -> None:
    """Note the borders that a fused node's convolutions want around its operands.

    Of several that want other numbers there, the first has its way.
    """
    region = node.regions[0]
    for outer, inner in zip(node.inputs, region.inputs, strict=True):
        for conv in region.nodes:
            if conv.op != "conv" or conv.inputs[0] is not inner:
                continue
            if fills.setdefault(outer, conv.attrs["pad_value"]) == conv.attrs["pad_value"]:
                _want(outer, conv, wanted)
    form = form_of(node)
    if isinstance(form, WinogradForm):
        [chosen] = [inner for inner in region.nodes if inner.op == "conv"]
        if chosen.inputs[0] in region.inputs:
            source = node.inputs[region.inputs.index(chosen.inputs[0])]
            _widen(wanted[source], Winograd(chosen, form).reach())


def _at_both_edges(sides: tuple[int, int]) -> tuple[int, int]:
    return sides if all(sides) else (max(sides), max(sides))


def _want(value: Value, conv: Node, wanted: dict[Value, list[tuple[int, int]]]) -> None:
    border = wanted.setdefault(value, [(0, 0)] * value.type.rank)
    sides = [
        (low, high) if isinstance(low, int) and isinstance(high, int) and high >= 0 else (0, 0)
        for low, high in overhangs(conv)
    ]
    _widen(border, sides, first_spatial(conv))


def _widen(
    border: list[tuple[int, int]], needed: Sequence[tuple[int, int]], first: int = 1
) -> None:
    """Grow a border, spatial axis by spatial axis, unless it would become too wide."""
    for axis, (low, high) in enumerate(needed, start=first):
        if max(low, high) <= MAX_BORDER:
            before, after = border[axis]
            border[axis] = (max(before, low), max(after, high))
