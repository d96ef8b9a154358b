"""Convolutions whose channels are in groups, as one for each block of groups, of slices side by
side.

An Ethos-U multiplies the channels of an element in blocks of 8 or more. Groups of fewer are taken
together, with weights of zero where a group is not an output's, which Vela compresses; so are
channels of which several are made each, which Vela 5.2 divides into many operations, some of them
wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from ...compiler.target import NpuTarget
from .conv_chain import ConvChain, chain_of, splice
from .tosa.graph import Array
from .tosa.lowering import narrowed

MOST_BLOCKS = 64  # that are worth a convolution each
USUAL_CHANNELS = 8  # of a block, so that it takes the fewest cycles
_CHANNELS = {"EthosU85": 16}
_IMAGE_RANK = 4


@dataclass(frozen=True)
class SplitGroups:
    """The pass: convolutions of bytes in groups, but one of each channel, are divided.

    least_channels: of a block, where there are as many.
    """

    least_channels: int = USUAL_CHANNELS
    name: str = "split_groups"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        return _split(graph, self.least_channels)


def block_channels(target: NpuTarget) -> int:
    """The least channels of a block on a processor."""
    return _CHANNELS.get(target.architecture, USUAL_CHANNELS)


def _split(graph: Graph, least: int) -> bool:
    uses = graph.uses()
    chains = [
        chain
        for node in graph.nodes
        if node.op == "conv" and _is_divided(node) and (chain := chain_of(node, uses)) is not None
    ]
    for chain in chains:
        _divide(graph, chain, _together(chain.conv, least))
    return bool(chains)


def _is_divided(conv: Node) -> bool:
    if conv.output.type.rank != _IMAGE_RANK or conv.attrs["layout"] != "NHWC":
        return False
    groups, channels, made = (conv.attrs["groups"], conv.inputs[0].shape[-1], conv.output.shape[-1])
    bytes_ = narrowed(conv.inputs[0])[0].dtype is DType.I8
    known = conv.inputs[1].is_constant and conv.inputs[0].type.is_static
    return known and bytes_ and groups > 1 and not groups == channels == made


def _together(conv: Node, least: int) -> int:
    """How many groups are one block."""
    groups, channels = conv.attrs["groups"], int(conv.inputs[0].shape[-1])
    fits = (
        count
        for count in range(1, groups + 1)
        if groups % count == 0
        and count * channels // groups >= min(least, channels)
        and groups // count <= MOST_BLOCKS
    )
    return next(fits, groups)


def _divide(graph: Graph, chain: ConvChain, together: int) -> None:
    conv, scaled = chain.conv, chain.scaled
    nodes: list[Node] = []
    builder = Builder(nodes, conv.name)
    source, zero = narrowed(conv.inputs[0])
    weights = conv.inputs[1].data
    assert weights is not None
    blocks = conv.attrs["groups"] // together
    shape, made = source.type.static_shape, weights.shape[-1]
    parts = []
    for block in range(blocks):
        taken = slice(block * shape[-1] // blocks, (block + 1) * shape[-1] // blocks)
        given = slice(block * made // blocks, (block + 1) * made // blocks)
        attrs = {"starts": (0, 0, 0, taken.start), "stops": (*shape[:-1], taken.stop),
                 "steps": (1, 1, 1, 1)}  # fmt: skip
        part = source if blocks == 1 else builder.emit("slice", [source], attrs)
        total = builder.emit("cast", [part], {"dtype": DType.I32})
        if zero:
            total = builder.emit("add", [total, constant(np.int32(-zero))])
        own = constant(_of_block(weights[..., given], together), conv.inputs[1].name)
        total = builder.emit("conv", [total, own], {**conv.attrs, "groups": 1})
        if chain.bias is not None:
            total = builder.emit("add", [total, _part(chain.bias.inputs[1], given)])
        scale, point = scaled.inputs[1:]
        parts.append(builder.emit("requantize", [total, _part(scale, given), point], scaled.attrs))
    joined = parts[0] if blocks == 1 else builder.emit("concat", parts, {"axis": 3})
    splice(graph, chain.nodes, nodes, joined)


def _of_block(weights: Array, groups: int) -> Array:
    """Weights of so many groups, HWIO, as those of one convolution of all their channels."""
    height, width, depth, made = weights.shape
    found = np.zeros((height, width, groups, depth, groups, made // groups), weights.dtype)
    own = weights.reshape(height, width, depth, groups, made // groups)
    for group in range(groups):
        found[:, :, group, :, group] = own[:, :, :, group]
    return found.reshape(height, width, groups * depth, made)


def _part(value: Value, channels: slice) -> Value:
    """Constants of output channels, of some of these."""
    data = value.data
    if data is None or data.size == 1:
        return value
    return constant(np.ascontiguousarray(data[..., channels]), value.name)
