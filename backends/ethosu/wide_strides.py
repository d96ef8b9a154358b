"""Convolutions whose windows are far apart, over several rows and columns as one.

An Ethos-U moves windows by up to three elements. Where they are further apart, as those of patches
or of a spectrum are, so many rows and columns become the channels of one element as windows move
by: the windows move by one then, and their kernels have zeros where they do not reach. Rows and
columns that no window reaches are left out. Nothing but the bytes of the image is moved, by the
host where it is the one that gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType
from .conv_chain import splice
from .legality import MOST_STRIDE, conv_reason
from .tosa.contractions import steps_of
from .tosa.graph import Array
from .tosa.lowering import narrowed

MOST_GROWTH = 8  # of weights
_IMAGE_RANK = 4


@dataclass(frozen=True)
class FoldStrides:
    """The pass: convolutions of bytes, in one group, whose strides are too large, where the
    processor takes what they become, and weights grow at most `MOST_GROWTH` times."""

    name: str = "fold_strides"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        wide = [node for node in graph.nodes if node.op == "conv" and _is_wide(node)]
        return any([_fold(graph, conv) for conv in wide])


@dataclass(frozen=True)
class _Axis:
    """Rows or columns of an image, of which `factor` are a group. step: from window to window, in
    groups; before, after: margins, in groups. first: of the places in a group that windows reach.
    taps: weights, by group and by the place in it, from `first` on."""

    factor: int
    step: int
    groups: int
    before: int
    after: int
    first: int
    taps: Array

    @property
    def reached(self) -> int:
        """How many places in a group windows reach."""
        return int(self.taps.shape[1])


@dataclass(frozen=True)
class Groups:
    """Rows and columns of an image as groups. taps: weights, [group rows, group columns, rows and
    columns in a group, input channels, output channels]."""

    rows: _Axis
    columns: _Axis
    taps: Array


def _is_wide(conv: Node) -> bool:
    if len(conv.inputs) != 2 or conv.attrs["pad_value"] != 0:
        return False
    data, weights = conv.inputs
    image = conv.output.type.rank == _IMAGE_RANK and conv.attrs["layout"] == "NHWC"
    if not image or conv.attrs["groups"] != 1 or not data.type.is_static or weights.data is None:
        return False
    bytes_ = narrowed(data)[0].dtype is DType.I8
    return bytes_ and set(conv.attrs["dilations"]) == {1} and max(steps_of(conv)) > MOST_STRIDE


def _fold(graph: Graph, conv: Node) -> bool:
    """Rewrite a convolution where that helps; whether it does."""
    nodes: list[Node] = []
    source, zero = narrowed(conv.inputs[0])
    groups = grouped(conv, MOST_STRIDE)
    if groups is None:
        return False
    result = over_groups(Builder(nodes, conv.name), conv, source, zero, groups)
    if conv_reason(nodes[-1]):
        return False
    splice(graph, [conv], nodes, result)
    return True


def grouped(conv: Node, most_stride: int) -> Groups | None:
    """The groups of rows and columns of a convolution, where windows move by more than
    `most_stride` of them; None where weights grow more than `MOST_GROWTH` times."""
    weights = conv.inputs[1].data
    assert weights is not None
    rows = _axis(conv, 0, weights, most_stride)
    columns = _axis(conv, 1, rows.taps.transpose(2, 0, 1, 3, 4), most_stride)
    taps = columns.taps.transpose(2, 0, 3, 1, 4, 5)  # groups, then places in them
    return None if taps.size > MOST_GROWTH * weights.size else Groups(rows, columns, taps)


def over_groups(builder: Builder, conv: Node, source: Value, zero: int, groups: Groups) -> Value:
    """The sums of a convolution of bytes, over its groups, of `grouped`. source: the bytes; zero:
    their zero point."""
    rows, columns, taps = groups.rows, groups.columns, groups.taps
    height, width, *_, made = taps.shape
    data = _in_groups(builder, source, zero, (rows, columns))
    total = builder.emit("cast", [data], {"dtype": DType.I32})
    if zero:
        total = builder.emit("add", [total, constant(np.int32(-zero))])
    attrs = {
        **conv.attrs,
        "pads": (rows.before, columns.before, rows.after, columns.after),
        "strides": (rows.step, columns.step),
    }
    filters = constant(taps.reshape(height, width, -1, made), conv.inputs[1].name)
    return builder.emit("conv", [total, filters], attrs)


def _axis(conv: Node, number: int, weights: Array, most_stride: int) -> _Axis:
    """Rows (0) or columns (1) of a convolution. weights: those along this axis first."""
    step, size = steps_of(conv)[number], int(conv.inputs[0].shape[1 + number])
    before, after = (conv.attrs["pads"][side] for side in (number, 2 + number))
    if step <= most_stride:
        own = conv.attrs["strides"][number]  # may be larger where there is one window
        return _Axis(1, own, size, before, after, 0, weights[:, None])
    made, first, last = (
        int(conv.output.shape[1 + number]), -before // step, (len(weights) - 1 - before) // step,
    )  # fmt: skip
    groups = min(-(-size // step), made + last)
    taps = np.zeros((last - first + 1, step, *weights.shape[1:]), weights.dtype)
    for tap, own in enumerate(weights):
        group, place = divmod(tap - before, step)
        taps[group - first, place] = own
    places = [(tap - before) % step for tap in range(len(weights))]
    reached = taps[:, min(places) : max(places) + 1]
    return _Axis(step, 1, groups, -first, made + last - groups, min(places), reached)


def _in_groups(builder: Builder, source: Value, zero: int, axes: tuple[_Axis, _Axis]) -> Value:
    """An image whose elements are groups of rows and columns, filled up with what is zero."""
    batch, *sizes, channels = source.type.static_shape
    wanted = [axis.factor * axis.groups for axis in axes]
    kept = [min(pair) for pair in zip(sizes, wanted, strict=True)]
    if kept != sizes:
        stops = (batch, *kept, channels)
        attrs = {"starts": (0,) * 4, "stops": stops, "steps": (1,) * 4}
        source = builder.emit("slice", [source], attrs)
    if kept != wanted:
        rest = [whole - own for whole, own in zip(wanted, kept, strict=True)]
        pads = (*(0,) * 4, 0, *rest, 0)
        source = builder.emit("pad", [source, constant(np.int8(zero))], {"pads": pads})
    rows, columns = axes
    parts = (batch, rows.groups, rows.factor, columns.groups, columns.factor * channels)
    source = builder.emit("reshape", [source], {"shape": parts})
    inner = columns.reached * channels
    kept = [batch, rows.groups, rows.reached, columns.groups, inner]
    if kept != list(parts):
        first = (0, 0, rows.first, 0, columns.first * channels)
        stops = tuple(at + count for at, count in zip(first, kept, strict=True))
        attrs = {"starts": first, "stops": stops, "steps": (1,) * 5}
        source = builder.emit("slice", [source], attrs)
    source = builder.emit("transpose", [source], {"perm": (0, 1, 3, 2, 4)})
    shape = (batch, rows.groups, columns.groups, rows.reached * inner)
    return builder.emit("reshape", [source], {"shape": shape})
