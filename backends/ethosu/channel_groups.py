"""Convolutions whose channels are in groups, as one for each group, of slices side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from .conv_chain import ConvChain, chain_of, splice
from .tosa.lowering import narrowed

MOST_GROUPS = 32  # that are worth a convolution each


@dataclass(frozen=True)
class SplitGroups:
    """The pass: convolutions of bytes in groups, other than of one channel, are divided."""

    name: str = "split_groups"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        return _split(graph)


def _split(graph: Graph) -> bool:
    uses = graph.uses()
    chains = [
        chain
        for node in graph.nodes
        if node.op == "conv" and _is_divided(node) and (chain := chain_of(node, uses)) is not None
    ]
    for chain in chains:
        _divide(graph, chain)
    return bool(chains)


def _is_divided(conv: Node) -> bool:
    groups, channels = conv.attrs["groups"], conv.inputs[0].shape[-1]
    known = conv.attrs["layout"] == "NHWC" and conv.inputs[1].is_constant
    bytes_ = narrowed(conv.inputs[0])[0].dtype is DType.I8
    return known and bytes_ and groups not in (1, channels) and groups <= MOST_GROUPS


def _divide(graph: Graph, chain: ConvChain) -> None:
    conv, scaled, groups = chain.conv, chain.scaled, chain.conv.attrs["groups"]
    nodes: list[Node] = []
    builder = Builder(nodes, conv.name)
    source, zero = narrowed(conv.inputs[0])
    weights = conv.inputs[1].data
    assert weights is not None
    shape, made = source.type.static_shape, weights.shape[-1]
    parts = []
    for group in range(groups):
        taken = slice(group * shape[-1] // groups, (group + 1) * shape[-1] // groups)
        given = slice(group * made // groups, (group + 1) * made // groups)
        attrs = {"starts": (0, 0, 0, taken.start), "stops": (*shape[:-1], taken.stop),
                 "steps": (1, 1, 1, 1)}  # fmt: skip
        part = builder.emit("slice", [source], attrs)
        total = builder.emit("cast", [part], {"dtype": DType.I32})
        if zero:
            total = builder.emit("add", [total, constant(np.int32(-zero))])
        own = constant(np.ascontiguousarray(weights[..., given]), conv.inputs[1].name)
        total = builder.emit("conv", [total, own], {**conv.attrs, "groups": 1})
        if chain.bias is not None:
            total = builder.emit("add", [total, _part(chain.bias.inputs[1], given)])
        scale, point = scaled.inputs[1:]
        parts.append(builder.emit("requantize", [total, _part(scale, given), point], scaled.attrs))
    joined = builder.emit("concat", parts, {"axis": 3})
    splice(graph, chain.nodes, nodes, joined)


def _part(value: Value, channels: slice) -> Value:
    """Constants of output channels, of some of these."""
    data = value.data
    if data is None or data.size == 1:
        return value
    return constant(np.ascontiguousarray(data[..., channels]), value.name)
