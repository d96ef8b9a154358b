"""Channels that are one number everywhere, because the weights that make them are zero.

A convolution or product whose weights of a channel are all zero makes its bias there; functions,
sums, joins and poolings of such channels make other numbers, which are known just as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Array, Trait, has_trait, lookup
from ...compiler.ir.ops.windows import channel_axis
from ...compiler.ir.rewrite import scalar
from ..layout.axis_permutation import match_axes


@dataclass(frozen=True)
class Known:
    """Of each place along an axis, whether all elements there are one number, and which.

    mask: bool[places]. numbers: f64[places], 0 where it is none.
    """

    mask: Array
    numbers: Array


Facts = dict[Value, dict[int, Known]]


def zero_places(weights: Array, axis: int) -> Array:
    """bool[places]: where along an axis all weights are zero, or there are none."""
    if not weights.size:
        return np.ones(weights.shape[axis], bool)
    moved = np.moveaxis(weights, axis, 0)
    first: Array = moved
    while first.ndim > 1:
        first = first[:, 0]
    places = first == 0
    for place in np.flatnonzero(places):
        places[place] = not moved[place].any()
    return np.asarray(places)


@dataclass
class KnownChannels:
    """What is known of the values of a graph, from its inputs on."""

    facts: Facts = field(default_factory=dict)

    @staticmethod
    def of(graph: Graph) -> KnownChannels:
        """The channels of a graph's values, and of its regions', that are known."""
        found = KnownChannels()
        for node in graph.walk():
            if len(node.outputs) == 1 and node.output.dtype.is_float and node.output.type.rank:
                found._note(node)
        return found

    def along(self, value: Value, axis: int) -> Known | None:
        """What is known of a value along an axis; None: nothing."""
        return self.facts.get(value, {}).get(axis)

    def _note(self, node: Node) -> None:
        made = _made(node)
        if made is not None:
            axis, known = made
            self._set(node.output, axis, known)
        elif not any(value in self.facts for value in node.inputs):
            return
        elif has_trait(node, Trait.POINTWISE):
            self._pointwise(node)
        elif node.op == "concat":
            self._concat(node)
        elif node.op in _MOVED:
            only = _ONLY[node.op](node) if node.op in _ONLY else None
            for axis, known in self.facts.get(node.inputs[0], {}).items():
                place = moved_axis(node, axis)
                if place is not None:
                    kept = known.mask if only is None else known.mask & (known.numbers == only)
                    self._set(node.output, place, Known(kept, known.numbers * kept))

    def _set(self, value: Value, axis: int, known: Known) -> None:
        if known.mask.any() and known.mask.size == value.shape[axis]:
            self.facts.setdefault(value, {})[axis] = known

    def _pointwise(self, node: Node) -> None:
        rank, shape = node.output.type.rank, node.output.shape
        axes = {
            axis + rank - value.type.rank
            for value in node.inputs
            for axis in self.facts.get(value, {})
        }
        for axis in axes:
            size = shape[axis]
            if isinstance(size, int):
                operands = [self._operand(value, axis - rank, size) for value in node.inputs]
                self._set(node.output, axis, _applied(node, operands))

    def _operand(self, value: Value, axis: int, size: int) -> tuple[Array, Array]:
        """Of an operand, which places along an axis (counted from the last) are one number, and
        which, in its own type; one place that is repeated is so for all of them."""
        known = self.along(value, axis + value.type.rank)
        if known is not None:
            numbers = known.numbers.astype(value.dtype.numpy)
            return np.broadcast_to(known.mask, (size,)), np.broadcast_to(numbers, (size,))
        data, place = value.data, axis + value.type.rank
        number = scalar(value)
        if number is not None:
            return np.ones(size, bool), np.full(size, number, value.dtype.numpy)
        if data is None or place < 0 or data.size != size or data.shape[place] != size:
            return np.zeros(size, bool), np.zeros(size, value.dtype.numpy)
        return np.ones(size, bool), data.ravel()

    def _concat(self, node: Node) -> None:
        axis = node.attrs["axis"] % node.output.type.rank
        sizes = [value.shape[axis] for value in node.inputs]
        parts = [
            self._operand(value, axis - value.type.rank, size)
            for value, size in zip(node.inputs, sizes, strict=True)
            if isinstance(size, int)
        ]
        if len(parts) == len(sizes):
            masks, numbers = ([part[i] for part in parts] for i in (0, 1))
            known = Known(np.concatenate(masks), np.concatenate(numbers).astype(np.float64))
            self._set(node.output, axis, known)


def _made(node: Node) -> tuple[int, Known] | None:
    """The channels that the weights of a convolution or product alone decide."""
    if node.op not in ("conv", "matmul") or node.inputs[1].data is None:
        return None
    w, rank = node.inputs[1].data, node.output.type.rank
    if node.op == "matmul":
        if w.ndim != 2:
            return None
        zero, axis = zero_places(w, 1), rank - 1
    else:
        first = node.attrs["layout"] == "NCHW"
        axis = channel_axis(node.attrs["layout"], rank)
        zero = zero_places(w, 0 if first else w.ndim - 1)
    numbers = np.zeros(zero.size)
    if len(node.inputs) > 2:
        bias = node.inputs[2].data
        if bias is None:
            return None
        numbers = np.where(zero, bias.astype(np.float64), 0)
    return axis, Known(zero, numbers)


def _applied(node: Node, operands: list[tuple[Array, Array]]) -> Known:
    """A function of what is known."""
    mask = np.logical_and.reduce([mask for mask, _ in operands])
    evaluate = lookup(node.op).evaluate
    assert evaluate is not None
    with np.errstate(all="ignore"):
        (found,) = evaluate([numbers for _, numbers in operands], node.attrs)
    numbers = np.broadcast_to(found, mask.shape).astype(np.float64)
    if node.op == "mul":
        for zeros, given in operands:
            gone = zeros & (given == 0)
            mask, numbers = mask | gone, np.where(gone, 0.0, numbers)
    mask = mask & np.isfinite(numbers)
    return Known(mask, np.where(mask, numbers, 0.0))


def _transposed(node: Node, axis: int) -> int | None:
    return int(node.attrs["perm"].index(axis))


def _reshaped(node: Node, axis: int) -> int | None:
    groups = match_axes(node.inputs[0].shape, node.output.shape) or ()
    return next((new[0] for old, new in groups if old == (axis,) and len(new) == 1), None)


def _gathered(node: Node, axis: int) -> int | None:
    along = node.attrs["axis"] % node.inputs[0].type.rank
    if axis == along:
        return None
    return axis if axis < along else axis + node.inputs[1].type.rank - 1


def _kept(node: Node, axis: int) -> int | None:
    return axis if node.inputs[0].shape[axis] == node.output.shape[axis] else None


def _padded(node: Node, axis: int) -> int | None:
    pads = node.attrs["pads"]
    return axis if pads[axis] == 0 and pads[axis + len(pads) // 2] == 0 else None


def _sliced(node: Node, axis: int) -> int | None:
    return axis if node.attrs["steps"][axis] == 1 and _kept(node, axis) is not None else None


def _pooled(node: Node, axis: int) -> int | None:
    return axis if axis == channel_axis(node.attrs["layout"], node.output.type.rank) else None


def _averaged(node: Node, axis: int) -> int | None:
    gone = {each % node.inputs[0].type.rank for each in node.attrs["axes"]}
    if axis in gone:
        return None
    return axis if node.attrs["keepdims"] else axis - sum(each < axis for each in gone)


def _margin(node: Node) -> float | None:
    """What pad writes around its operand; NaN where only a run knows."""
    if node.attrs["mode"] != "constant":
        return None
    if all(isinstance(pad, int) and pad <= 0 for pad in node.attrs["pads"]):
        return None
    number = 0.0 if len(node.inputs) == 1 else scalar(node.inputs[1])
    return float("nan") if number is None else float(number)


def _outside(node: Node) -> float | None:
    """What a max pooling makes of a window that may lie in padding alone."""
    kernel, dilations, pads = (node.attrs[key] for key in ("kernel", "dilations", "pads"))
    for axis, (size, dilation) in enumerate(zip(kernel, dilations, strict=True)):
        for pad in (pads[axis], pads[axis + len(kernel)]):
            short = isinstance(pad, int) and isinstance(size, int) and pad < size
            if pad != 0 and not (short and dilation == 1):
                return -np.inf
    return None


def _empty(node: Node) -> float | None:
    """The mean of no elements."""
    sizes = [node.inputs[0].shape[axis] for axis in node.attrs["axes"]]
    return None if all(isinstance(size, int) and size > 0 for size in sizes) else 0.0


def _filled(node: Node) -> float | None:
    """The largest of no elements is no number."""
    return None if _empty(node) is None else float("nan")


# The one number that stays what it is everywhere; None: any does.
_ONLY: dict[str, Callable[[Node], float | None]] = {
    "pad": _margin,
    "max_pool": _outside,
    "avg_pool": lambda node: 0.0,
    "reduce_mean": _empty,
    "reduce_max": _filled,
    "reduce_min": _filled,
    "reduce_sum": lambda node: 0.0,
}
_MOVED: dict[str, Callable[[Node, int], int | None]] = {
    "transpose": _transposed,
    "reshape": _reshaped,
    "gather": _gathered,
    "slice": _sliced,
    "pad": _padded,
    "broadcast_to": lambda node, axis: axis + node.output.type.rank - node.inputs[0].type.rank,
    "max_pool": _pooled,
    "avg_pool": _pooled,
    "reduce_mean": _averaged,
    "reduce_max": _averaged,
    "reduce_min": _averaged,
    "reduce_sum": _averaged,
}


def moved_axis(node: Node, axis: int) -> int | None:
    """Which axis of its result an axis of a node's first operand becomes, place by place, where
    each place is made of the same place alone; None where there is none."""
    rule = _MOVED.get(node.op)
    return None if rule is None else rule(node, axis)
