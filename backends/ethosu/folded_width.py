"""Convolutions of few channels read several columns as one.

An Ethos-U multiplies the channels of an element in blocks of 8 or more: of an image that has three,
or a spectrogram that has one, most of a block is empty. Columns that lie side by side in memory, as
bytes with channels last do, are the channels of a narrower image, without anything being moved. Its
kernels have zeros where a column is not theirs, and its output columns lie side by side again.
Columns that a whole number of groups lacks are padding, where the host moves what it gives anyway.
So may the margin before the first column be: groups then begin where windows do, and fewer of them
have a part in a window. And so may rows be moved: where windows move by several elements along both
axes, as many rows and columns are one. How many take the fewest cycles, Vela tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from ...compiler.target import NpuTarget
from .conv_chain import ConvChain, chain_of, splice
from .legality import carries, legality
from .streams import stream_of
from .tosa.graph import Array
from .tosa.lowering import narrowed
from .vela import NotCompiled
from .wide_strides import MOST_GROWTH, grouped, over_groups

MOST_CHANNELS = 4  # of data that leave half of a block empty
MOST_FOLDED = 64  # channels of what columns become
NEVER = 1 << 62  # cycles of what cannot be


@dataclass(frozen=True)
class Fold:
    """How many columns are one. behind_margin: whether the margin before the first one is laid by
    the host. with_rows: whether as many rows and columns are one as windows move by."""

    columns: int
    behind_margin: bool = False
    with_rows: bool = False

    @property
    def word(self) -> int | str:
        """As records have it."""
        if self.with_rows:
            return "rows and columns"
        return f"{self.columns} behind the margin" if self.behind_margin else self.columns


UNFOLDED = Fold(1)


def least_cycles(chain: ConvChain, target: NpuTarget, *, with_rows: bool = True) -> Fold:
    """How many columns as one take the fewest cycles, as Vela estimates the chain by itself.
    with_rows: whether rows may be moved."""
    found = [fold for fold in (UNFOLDED, *folds(chain)) if with_rows or not fold.with_rows]
    costs = {fold: _cycles(chain, fold, target) for fold in found}
    return min(costs, key=lambda fold: costs[fold])


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


def folds(chain: ConvChain) -> list[Fold]:
    """How many columns may be one: whole groups of them make whole groups of output columns. The
    last group may have columns of padding, and the first one the margin, if the data come from the
    host."""
    conv = chain.conv
    padded = is_given(narrowed(conv.inputs[0])[0])
    *_, width, channels = conv.inputs[0].type.static_shape
    stride, made = conv.attrs["strides"][1], int(conv.output.shape[2])
    found = []
    for factor in range(2 * stride if stride == 1 else stride, width + 1, stride):
        whole = (padded or width % factor == 0) and made % (factor // stride) == 0
        if not whole or factor * channels > MOST_FOLDED:
            continue
        margins = (False, True) if padded and conv.attrs["pads"][1] else (False,)
        found += [fold for fold in (Fold(factor, m) for m in margins) if _is_small(conv, fold)]
    apart = min(conv.attrs["strides"]) > 1 and set(conv.attrs["dilations"]) == {1}
    if padded and apart and grouped(conv, 1) is not None:
        found.append(Fold(stride, with_rows=True))
    return found


def _is_small(conv: Node, fold: Fold) -> bool:
    """Whether weights grow little, and no window begins behind what there is."""
    weights = conv.inputs[1].type.elements
    grown, _, right = folded_weights(conv, fold)
    return isinstance(weights, int) and grown.size <= MOST_GROWTH * weights and right >= 0


def _margin(conv: Node, fold: Fold) -> int:
    """How many columns the host lays before the first one."""
    return int(conv.attrs["pads"][1]) if fold.behind_margin else 0


def is_given(value: Value) -> bool:
    """Whether bytes are moved, at most, after the host has made them, or been given them."""
    while value.producer is not None and carries(value.producer):
        value = value.producer.inputs[0]
    return value.producer is None or value.producer.op == "quantize"


def folded_weights(conv: Node, fold: Fold) -> tuple[Array, int, int]:
    """(weights, HWIO; margins left and right, in groups) of a convolution whose columns are
    folded."""
    weights, attrs, factor = conv.inputs[1].data, conv.attrs, fold.columns
    assert weights is not None
    height, taps, channels, made = weights.shape
    laid = _margin(conv, fold)
    stride, left = attrs["strides"][1], attrs["pads"][1] - laid
    groups = -(-(int(conv.inputs[0].shape[2]) + laid) // factor)
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


def folded(chain: ConvChain, source: Value, zero: int, fold: Fold, nodes: list[Node]) -> Value:
    """Append the chain to nodes, with so many columns folded; its result. source: the bytes that it
    reads, zero: their zero point."""
    conv = chain.conv
    builder = Builder(nodes, conv.name)
    weights, pads = conv.inputs[1], tuple(conv.attrs["pads"])
    strides, columns = conv.attrs["strides"], 1
    if fold.with_rows:
        groups = grouped(conv, 1)
        assert groups is not None  # of one of `folds`
        total = over_groups(builder, conv, source, zero, groups)
        return _as_bytes(builder, chain, total, 1)
    if fold != UNFOLDED:
        source = _in_groups(builder, source, zero, fold.columns, _margin(conv, fold))
        data, left, right = folded_weights(conv, fold)
        weights, pads = constant(data, weights.name), (pads[0], left, pads[2], right)
        columns, strides = fold.columns // strides[1], (strides[0], 1)
    wide = builder.emit("cast", [source], {"dtype": DType.I32})
    if zero:
        wide = builder.emit("add", [wide, constant(np.int32(-zero))])
    attrs = {**conv.attrs, "pads": pads, "strides": strides}
    return _as_bytes(builder, chain, builder.emit("conv", [wide, weights], attrs), columns)


def _as_bytes(builder: Builder, chain: ConvChain, total: Value, columns: int) -> Value:
    """What a chain makes of sums of so many columns side by side."""
    if chain.bias is not None:
        total = builder.emit("add", [total, _tiled(chain.bias.inputs[1], columns)])
    scaled = chain.scaled
    scale, zero_out = scaled.inputs[1:]
    made = builder.emit("requantize", [total, _tiled(scale, columns), zero_out], scaled.attrs)
    if made.shape == scaled.output.shape:
        return made
    return builder.emit("reshape", [made], {"shape": scaled.output.shape})


def _in_groups(builder: Builder, source: Value, zero: int, factor: int, before: int) -> Value:
    """So many columns as one, behind so many of a margin; the last group is filled up with what is
    zero, as the margin is."""
    batch, height, width, channels = source.type.static_shape
    width += before
    rest = -width % factor
    if before or rest:
        pads = (0, 0, before, 0, 0, 0, rest, 0)
        source = builder.emit("pad", [source, constant(np.int8(zero))], {"pads": pads})
    shape = (batch, height, (width + rest) // factor, factor * channels)
    return builder.emit("reshape", [source], {"shape": shape})


def _tiled(value: Value, times: int) -> Value:
    """Constants of output channels, for so many columns of them."""
    data = value.data
    if data is None or data.size == 1:
        return value
    return constant(np.tile(data, (*(1,) * (data.ndim - 1), times)), value.name)


def _cycles(chain: ConvChain, fold: Fold, target: NpuTarget) -> int:
    """Of the chain by itself, without what the host does."""
    source, zero = narrowed(chain.conv.inputs[0])
    data = Value(source.type, "data")
    nodes: list[Node] = []
    result = folded(chain, data, zero, fold, nodes)
    while carries(nodes[0]):
        data = nodes.pop(0).output
    try:
        return stream_of(Graph([data], [result], nodes), target).estimate.cycles
    except NotCompiled:
        return NEVER


def fold_width(graph: Graph, chain: ConvChain, fold: Fold) -> None:
    """Have so many columns be one in a chain of a graph."""
    source, zero = narrowed(chain.conv.inputs[0])
    nodes: list[Node] = []
    result = folded(chain, source, zero, fold, nodes)
    splice(graph, chain.nodes, nodes, result)
