"""Linear operators that act alike on every channel, and so commute with maps of the channels.

A channel map W is a constant matrix [channels out, channels in] that multiplies along one axis. In
front of an operator that treats all channels alike (gathers and slices along other axes, what
resizes are made of, means, sums, repetitions) it may be behind as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.rewrite import scalar
from ..layout.axis_permutation import match_axes


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """A matrix [channels out, channels in] in f64, which is computed where it is asked for.

    shape: of the matrix. make: computes it.
    """

    shape: tuple[int, int]
    make: Callable[[], Array]

    @cached_property
    def array(self) -> Array:
        """The matrix."""
        return self.make()

    @staticmethod
    def of(array: Array) -> ChannelMap:
        """A map whose matrix is known."""
        rows, columns = array.shape
        return ChannelMap((rows, columns), lambda: array.astype(np.float64))


@dataclass(frozen=True)
class Mapped:
    """What a map goes on to. axis: of the channels in it. weights: the map there."""

    value: Value
    axis: int
    weights: ChannelMap


@dataclass(frozen=True)
class LinearStep:
    """A map moved in front of an operator.

    operands: what it is applied to. attrs: of the operator then. others: operands that stay, by
    place. joined: whether the results are added up in place of the operator (concat of channels).
    dropped: whether the operator is part of the map now. shift: what is added for every channel.
    """

    node: Node
    operands: tuple[Mapped, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    others: tuple[tuple[int, Value], ...] = ()
    joined: bool = False
    dropped: bool = False
    shift: Callable[[], Array] | None = None


def linear_step(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    """The map along an axis of the node's result, moved in front of the node; None where it cannot
    be."""
    rule = _STEPS.get(node.op)
    if rule is None or len(node.outputs) != 1 or not node.output.dtype.is_float:
        return None
    return rule(node, axis, weights)


def channel_weights(node: Node) -> tuple[int, Array] | None:
    """(axis, W) of a node that only maps channels, its bias left out; None for others."""
    if node.op not in ("matmul", "conv") or node.attrs.get("accumulate"):
        return None
    if node.attrs.get("product") or not node.output.dtype.is_float:
        return None
    w = node.inputs[1]
    if w.data is None or w.dtype is not node.output.dtype:
        return None
    if node.op == "matmul":
        return (node.output.type.rank - 1, w.data.T) if w.type.rank == 2 else None
    if node.attrs["layout"] != "NCHW" or node.attrs["groups"] != 1:
        return None
    if any(dim != 1 for dim in w.shape[2:]) or any(s != 1 for s in node.attrs["strides"]):
        return None
    if any(pad != 0 for pad in node.attrs["pads"]) or not bias_is_constant(node):
        return None
    return 1, w.data.reshape(w.data.shape[:2])


def bias_is_constant(node: Node) -> bool:
    """Whether a convolution has a constant bias, or none."""
    return len(node.inputs) < 3 or node.inputs[2].is_constant


def _one(node: Node, axis: int, weights: ChannelMap, **attrs: Any) -> LinearStep:
    operand = Mapped(node.inputs[0], axis, weights)
    others = tuple(enumerate(node.inputs))[1:]
    return LinearStep(node, (operand,), {**node.attrs, **attrs}, others)


def _transpose(node: Node, axis: int, weights: ChannelMap) -> LinearStep:
    return _one(node, node.attrs["perm"][axis], weights)


def _reshape(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    groups = match_axes(node.inputs[0].shape, node.output.shape) or ()
    for sources, results in groups:
        if results == (axis,) and len(sources) == 1:
            shape = _with(node.output.shape, axis, weights.shape[0])
            return _one(node, sources[0], weights, shape=shape)
    return None


def _with(items: Sequence[Any], place: int, item: Any) -> tuple[Any, ...]:
    return (*items[:place], item, *items[place + 1 :])


def _gather(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    along, width = node.attrs["axis"] % node.inputs[0].type.rank, node.inputs[1].type.rank
    if along <= axis < along + width:
        return None
    return _one(node, axis if axis < along else axis - width + 1, weights)


def _slice(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    ends = tuple(node.attrs[key][axis] for key in ("starts", "stops", "steps"))
    if ends != (0, node.inputs[0].shape[axis], 1):
        return None
    return _one(node, axis, weights, stops=_with(node.attrs["stops"], axis, weights.shape[0]))


def _broadcast(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    source = axis - (node.output.type.rank - node.inputs[0].type.rank)
    if source < 0 or node.inputs[0].shape[source] != node.output.shape[axis]:
        return None
    return _one(node, source, weights, shape=_with(node.attrs["shape"], axis, weights.shape[0]))


def _mean(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    rank = node.inputs[0].type.rank
    gone = {each % rank for each in node.attrs["axes"]}
    left = [each for each in range(rank) if node.attrs["keepdims"] or each not in gone]
    return None if left[axis] in gone else _one(node, left[axis], weights)


def _pool(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    return _one(node, 1, weights) if axis == 1 and node.attrs["layout"] == "NCHW" else None


def _pad(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    pads, rank = node.attrs["pads"], node.output.type.rank
    zero = node.attrs["mode"] == "constant" and (
        len(node.inputs) == 1 or scalar(node.inputs[1]) == 0
    )
    return _one(node, axis, weights) if zero and pads[axis] == pads[rank + axis] == 0 else None


def _sum(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    rank, operands = node.output.type.rank, []
    for value in node.inputs:
        place = axis - (rank - value.type.rank)
        spread = place < 0 or value.shape[place] == 1
        if spread and not value.is_constant:
            return None
        operands.append(Mapped(value, place, weights))
    return LinearStep(node, tuple(operands), node.attrs)


def _negative(node: Node, axis: int, weights: ChannelMap) -> LinearStep:
    return _one(node, axis, weights)


def _scaled(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    """By a constant: one of the channels becomes part of the map."""
    x, c = node.inputs
    if c.data is None and x.data is not None and node.op == "mul":
        x, c = c, x
    if c.data is None or x.shape != node.output.shape:
        return None
    place = axis - (x.type.rank - c.type.rank)
    if place < 0 or c.shape[place] == 1:
        other = (int(c is node.inputs[1]), c)
        return LinearStep(node, (Mapped(x, axis, weights),), node.attrs, (other,))
    if any(dim != 1 for each, dim in enumerate(c.shape) if each != place):
        return None
    factors = c.data.ravel().astype(np.float64)
    if node.op == "div":
        scaled = ChannelMap(weights.shape, lambda: weights.array / factors)
    else:
        scaled = ChannelMap(weights.shape, lambda: weights.array * factors)
    return LinearStep(node, (Mapped(x, axis, scaled),), dropped=True)


def _concat(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    if node.attrs["axis"] % node.output.type.rank != axis:
        operands = tuple(Mapped(value, axis, weights) for value in node.inputs)
        return LinearStep(node, operands, node.attrs)
    sizes = [value.shape[axis] for value in node.inputs]
    if not all(isinstance(size, int) for size in sizes):
        return None
    ends = np.cumsum(sizes)
    operands = tuple(
        Mapped(value, axis, _columns(weights, int(end) - int(size), int(end)))
        for value, size, end in zip(node.inputs, sizes, ends, strict=True)
    )
    return LinearStep(node, operands, joined=True)


def _columns(weights: ChannelMap, first: int, last: int) -> ChannelMap:
    return ChannelMap((weights.shape[0], last - first), lambda: weights.array[:, first:last])


def _map(node: Node, axis: int, weights: ChannelMap) -> LinearStep | None:
    """Two maps are one; a constant matrix along another axis stays where it is."""
    left, right = node.inputs[:2]
    rank = node.output.type.rank
    if node.op == "matmul" and left.is_constant and left.type.rank == 2 and axis != rank - 2:
        if right.type.rank != rank:
            return None
        return LinearStep(node, (Mapped(right, axis, weights),), node.attrs, ((0, left),))
    found = channel_weights(node)
    if found is None or found[0] != axis:
        return None
    inner = found[1]
    shift = None
    if len(node.inputs) == 3:
        bias = np.asarray(node.inputs[2].data, np.float64)
        shift = partial(_applied, weights, bias)
    both = ChannelMap((weights.shape[0], inner.shape[1]), partial(_applied, weights, inner))
    operand = Mapped(left, axis, both)
    return LinearStep(node, (operand,), dropped=True, shift=shift)


def _applied(weights: ChannelMap, inner: Array) -> Array:
    return np.asarray(weights.array @ inner.astype(np.float64))


_STEPS: dict[str, Callable[[Node, int, ChannelMap], LinearStep | None]] = {
    "transpose": _transpose,
    "reshape": _reshape,
    "gather": _gather,
    "slice": _slice,
    "broadcast_to": _broadcast,
    "expand": _broadcast,
    "reduce_mean": _mean,
    "reduce_sum": _mean,
    "avg_pool": _pool,
    "pad": _pad,
    "add": _sum,
    "sub": _sum,
    "neg": _negative,
    "mul": _scaled,
    "div": _scaled,
    "concat": _concat,
    "matmul": _map,
    "conv": _map,
}
