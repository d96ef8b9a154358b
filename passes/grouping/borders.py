"""Borders: the zeros around a padded convolution's input are stored once instead of tested for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.types import Layout
from ...compiler.kernel.forms.form import WinogradForm, form_of
from ...compiler.kernel.forms.winograd import Winograd
from ...compiler.kernel.lower.reductions import first_spatial, overhangs

MAX_BORDER = 16  # wider paddings are tested for in the loop instead of being stored


@dataclass(frozen=True)
class Borders:
    """Results of fused nodes that padded convolutions read are surrounded with zeros in memory.

    Borders are as wide as the windows reach, or the tiles of the form that the group has.
    """

    name: str = "borders"

    def run(self, graph: Graph) -> bool:
        """Set the layouts; whether there were any to set."""
        return any([_set_borders(part) for part in list(graph.graphs())])


def _set_borders(graph: Graph) -> bool:
    made_here = {v: n for n in graph.nodes if n.op == "fused" for v in n.outputs}
    wanted: dict[Value, list[tuple[int, int]]] = {}
    refused: set[Value] = set(graph.outputs)
    changed = False
    for node in graph.nodes:
        if node.op == "fused":
            _ask(node, wanted)
        else:
            refused.update(node.inputs)
    for value, border in wanted.items():
        producer = made_here.get(value)
        if producer is None or value in refused or not any(a or b for a, b in border):
            continue
        inner = producer.regions[0].outputs[producer.outputs.index(value)]
        if inner.producer is not None and inner.producer.op == "reshape":
            continue
        layout = Layout(tuple(border))
        value.type = value.type.with_layout(layout)
        inner.type = inner.type.with_layout(layout)
        for node in graph.nodes:
            if node.op == "fused":
                for outer, copy in zip(node.inputs, node.regions[0].inputs, strict=True):
                    if outer is value:
                        copy.type = copy.type.with_layout(layout)
        changed = True
    return changed


def _ask(node: Node, wanted: dict[Value, list[tuple[int, int]]]) -> None:
    """Note the borders that a fused node's convolutions want around its operands."""
    region = node.regions[0]
    for outer, inner in zip(node.inputs, region.inputs, strict=True):
        for conv in region.nodes:
            if conv.op == "conv" and conv.inputs[0] is inner:
                _want(outer, conv, wanted)
    form = form_of(node)
    if isinstance(form, WinogradForm):
        [chosen] = [inner for inner in region.nodes if inner.op == "conv"]
        if chosen.inputs[0] in region.inputs:
            source = node.inputs[region.inputs.index(chosen.inputs[0])]
            _widen(wanted[source], Winograd(chosen, form).reach())


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
