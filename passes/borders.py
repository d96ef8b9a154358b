"""Borders: the zeros around a padded convolution's input are stored once instead of tested for."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.ir.graph import Graph, Node, Value
from ..compiler.ir.types import Layout
from ..compiler.kernel.lower import has_near_weights, winograd_choice
from ..compiler.kernel.lower.reductions import first_spatial, overhangs

MAX_BORDER = 16  # wider paddings are tested for in the loop instead of being stored


def set_borders(graph: Graph) -> None:
    """Surround the inputs of padded convolutions with zeros in memory."""
    made_here = {v: n for n in graph.nodes if n.op == "fused" for v in n.outputs}
    wanted: dict[Value, list[tuple[int, int]]] = {}
    refused: set[Value] = set(graph.outputs)
    near = has_near_weights(graph)
    for node in graph.nodes:
        if node.op != "fused":
            refused.update(node.inputs)
            continue
        region = node.regions[0]
        for outer, inner in zip(node.inputs, region.inputs, strict=True):
            for conv in region.nodes:
                if conv.op == "conv" and conv.inputs[0] is inner:
                    _want(outer, conv, wanted)
        chosen = winograd_choice(node, near)
        if chosen is not None and chosen.conv.inputs[0] in region.inputs:
            source = node.inputs[region.inputs.index(chosen.conv.inputs[0])]
            _widen(wanted[source], chosen.reach())
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
