"""Convolutions of few channels read several columns as one.

An Ethos-U multiplies the channels of an element in blocks of 8 or more: of an image that has three,
or a spectrogram that has one, most of a block is empty. Columns that lie side by side in memory, as
bytes with channels last do, are the channels of a narrower image, without anything being moved. Its
kernels have zeros where a column is not theirs, and its output columns lie side by side again.
Columns that a whole number of groups lacks are padding, where the host moves what it gives anyway.
How many columns take the fewest cycles, Vela tells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType, TensorType
from ...compiler.target import NpuTarget
from .conv_chain import ConvChain, chain_of, splice
from .legality import carries, legality
from .streams import stream_of
from .tosa.graph import Array
from .tosa.lowering import narrowed
from .vela import NotCompiled

MOST_CHANNELS = 4  # of data that leave half of a block empty
MOST_FOLDED = 64  # channels of what columns become
MOST_GROWTH = 8  # of weights
NEVER = 1 << 62  # cycles of what cannot be


def least_cycles(chain: ConvChain, target: NpuTarget) -> int:
    """How many columns as one take the fewest cycles, as Vela estimates the chain by itself."""
    costs = {factor: _cycles(chain, factor, target) for factor in (1, *folded_columns(chain))}
    return min(costs, key=lambda factor: costs[factor])


def conv_chains(graph: Graph, target: NpuTarget) -> list[ConvChain]:
    """The convolutions of few channels that the processor takes."""
    return list(_chains(graph, target))


def _chains(graph: Graph, target: NpuTarget) -> Iterator[ConvChain]:
    uses = graph.uses()
    for conv in graph.nodes:
        if conv.op != "conv" or legality(conv, target) or conv.attrs["groups"] != 1:
            continue
        if conv.inputs[0].shape[-1] > MOST_CHANNELS or conv.attrs["dilations"][1] != 1:
            continue
        chain = chain_of(conv, uses)
        if chain is None or legality(chain.scaled, target):
            continue
        if narrowed(conv.inputs[0])[0].dtype is DType.I8:
            yield chain


def folded_columns(chain: ConvChain) -> list[int]:
    """How many columns may be one: whole groups of them make whole groups of output columns. The
    last group may have columns of padding, if the data come from the host."""
    conv = chain.conv
    padded = _is_given(narrowed(conv.inputs[0])[0])
    *_, width, channels = conv.inputs[0].type.static_shape
    stride, made = conv.attrs["strides"][1], int(conv.output.shape[2])
    found = []
    for factor in range(2 * stride if stride == 1 else stride, width + 1, stride):
        whole = (padded or width % factor == 0) and made % (factor // stride) == 0
        if whole and factor * channels <= MOST_FOLDED:
            weights = chain.conv.inputs[1].type.elements
            grown, _, right = folded_weights(chain.conv, factor)
            if isinstance(weights, int) and grown.size <= MOST_GROWTH * weights and right >= 0:
                found.append(factor)
    return found


def _is_given(value: Value) -> bool:
    """Whether bytes are moved, at most, after the host has made them, or been given them."""
    while value.producer is not None and carries(value.producer):
        value = value.producer.inputs[0]
    return value.producer is None or value.producer.op == "quantize"


def folded_weights(conv: Node, factor: int) -> tuple[Array, int, int]:
    """(weights, HWIO; margins left and right) of a convolution whose columns are folded."""
    weights, attrs = conv.inputs[1].data, conv.attrs
    assert weights is not None
    height, taps, channels, made = weights.shape
    stride, left = attrs["strides"][1], attrs["pads"][1]
    groups = -(-int(conv.inputs[0].shape[2]) // factor)
    columns = factor // stride  # of the output, in one
    windows = int(conv.output.shape[2]) // columns
    first = max(-left // factor, 1 - windows)
    last = min(((columns - 1) * stride - left + taps - 1) // factor, groups - 1)
    found = np.zeros((height, last - first + 1, factor * channels, columns * made), weights.dtype)
    for column in range(columns):
        out = slice(column * made, (column + 1) * made)
        for tap in range(taps):
            group, place = divmod(column * stride - left + tap, factor)
            if first <= group <= last:
                inner = slice(place * channels, (place + 1) * channels)
                found[:, group - first, inner, out] = weights[:, tap]
    return found, -first, windows + last - groups


def folded(chain: ConvChain, source: Value, zero: int, factor: int, nodes: list[Node]) -> Value:
    """Append the chain to nodes, with so many columns folded; its result. source: the bytes that it
    reads, zero: their zero point."""
    conv, scaled = chain.conv, chain.scaled
    builder = Builder(nodes, conv.name)
    weights, pads = conv.inputs[1], tuple(conv.attrs["pads"])
    strides, columns = conv.attrs["strides"], 1
    if factor > 1:
        source = _in_groups(builder, source, zero, factor)
        data, left, right = folded_weights(conv, factor)
        weights, pads = constant(data, weights.name), (pads[0], left, pads[2], right)
        columns, strides = factor // strides[1], (strides[0], 1)
    wide = builder.emit("cast", [source], {"dtype": DType.I32})
    if zero:
        wide = builder.emit("add", [wide, constant(np.int32(-zero))])
    attrs = {**conv.attrs, "pads": pads, "strides": strides}
    total = builder.emit("conv", [wide, weights], attrs)
    if chain.bias is not None:
        total = builder.emit("add", [total, _tiled(chain.bias.inputs[1], columns)])
    scale, zero_out = scaled.inputs[1:]
    made = builder.emit("requantize", [total, _tiled(scale, columns), zero_out], scaled.attrs)
    if made.shape == scaled.output.shape:
        return made
    return builder.emit("reshape", [made], {"shape": scaled.output.shape})


def _in_groups(builder: Builder, source: Value, zero: int, factor: int) -> Value:
    """So many columns as one, the last group filled up with what is zero."""
    batch, height, width, channels = source.type.static_shape
    if rest := -width % factor:
        pads = (*(0,) * 6, rest, 0)
        source = builder.emit("pad", [source, constant(np.int8(zero))], {"pads": pads})
    shape = (batch, height, (width + rest) // factor, factor * channels)
    return builder.emit("reshape", [source], {"shape": shape})


def _tiled(value: Value, times: int) -> Value:
    """Constants of output channels, for so many columns of them."""
    data = value.data
    if data is None or data.size == 1:
        return value
    return constant(np.tile(data, (*(1,) * (data.ndim - 1), times)), value.name)


def _cycles(chain: ConvChain, factor: int, target: NpuTarget) -> int:
    source, zero = narrowed(chain.conv.inputs[0])
    batch, height, width, channels = source.type.static_shape
    shape = (batch, height, width + -width % factor, channels)  # the host fills it up
    data = Value(TensorType(source.dtype, shape), "data")
    nodes: list[Node] = []
    result = folded(chain, data, zero, factor, nodes)
    try:
        return stream_of(Graph([data], [result], nodes), target).estimate.cycles
    except NotCompiled:
        return NEVER


def fold_width(graph: Graph, chain: ConvChain, factor: int) -> None:
    """Have so many columns be one in a chain of a graph."""
    source, zero = narrowed(chain.conv.inputs[0])
    nodes: list[Node] = []
    result = folded(chain, source, zero, factor, nodes)
    splice(graph, chain.nodes, nodes, result)
