"""Channels that are one number everywhere, because the weights that make them are zero.

A convolution or product whose weights of a channel are all zero makes its bias there; functions,
sums, joins and poolings of such channels make other numbers, which are known just as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Array, lookup
from ...compiler.ir.ops.windows import channel_axis
from ...compiler.ir.rewrite import scalar
from .channel_facts import ChannelFacts


@dataclass(frozen=True)
class Known:
    """Of each place along an axis, whether all elements there are one number, and which.

    mask: bool[places]. numbers: f64[places], 0 where it is none.
    """

    mask: Array
    numbers: Array


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


class KnownChannels(ChannelFacts[Known]):
    """What is known of the values of a graph, from its inputs on."""

    def tells(self, fact: Known, size: object) -> bool:
        """Whether any place is known."""
        return bool(fact.mask.any()) and fact.mask.size == size

    def made(self, node: Node) -> Iterator[tuple[int, Known]]:
        """The channels that weights alone decide, and those of joins."""
        if node.op in ("conv", "matmul") and node.inputs[1].data is not None:
            yield from _made(node, node.inputs[1].data)
        elif node.op == "concat" and any(value in self.facts for value in node.inputs):
            yield from self._joined(node)

    def operand(self, value: Value, axis: int, size: int) -> Known:
        """Which places are one number, in the operand's own type; one place that is repeated is so
        for all of them."""
        known = self.along(value, axis + value.type.rank)
        if known is not None:
            numbers = known.numbers.astype(value.dtype.numpy)
            return Known(np.broadcast_to(known.mask, (size,)), np.broadcast_to(numbers, (size,)))
        data, place = value.data, axis + value.type.rank
        number = scalar(value)
        if number is not None:
            return Known(np.ones(size, bool), np.full(size, number, value.dtype.numpy))
        if data is None or place < 0 or data.size != size or data.shape[place] != size:
            return Known(np.zeros(size, bool), np.zeros(size, value.dtype.numpy))
        return Known(np.ones(size, bool), data.ravel())

    def carried(self, node: Node, fact: Known) -> Known:
        """What stays the number that it is."""
        only = _ONLY[node.op](node) if node.op in _ONLY else None
        kept = fact.mask if only is None else fact.mask & (fact.numbers == only)
        return Known(kept, fact.numbers * kept)

    def applied(self, node: Node, operands: Sequence[Known]) -> Known:
        """A function of what is known."""
        mask = np.logical_and.reduce([known.mask for known in operands])
        evaluate = lookup(node.op).evaluate
        assert evaluate is not None
        with np.errstate(all="ignore"):
            (found,) = evaluate([known.numbers for known in operands], node.attrs)
        numbers = np.broadcast_to(found, mask.shape).astype(np.float64)
        if node.op == "mul":
            for known in operands:
                gone = known.mask & (known.numbers == 0)
                mask, numbers = mask | gone, np.where(gone, 0.0, numbers)
        mask = mask & np.isfinite(numbers)
        return Known(mask, np.where(mask, numbers, 0.0))

    def _joined(self, node: Node) -> Iterator[tuple[int, Known]]:
        axis = node.attrs["axis"] % node.output.type.rank
        sizes = [value.shape[axis] for value in node.inputs]
        parts = [
            self.operand(value, axis - value.type.rank, size)
            for value, size in zip(node.inputs, sizes, strict=True)
            if isinstance(size, int)
        ]
        if len(parts) == len(sizes):
            numbers = np.concatenate([part.numbers for part in parts]).astype(np.float64)
            yield axis, Known(np.concatenate([part.mask for part in parts]), numbers)


def _made(node: Node, w: Array) -> Iterator[tuple[int, Known]]:
    """The channels that the weights of a convolution or product alone decide."""
    rank = node.output.type.rank
    if node.op == "matmul":
        if w.ndim != 2:
            return
        zero, axis = zero_places(w, 1), rank - 1
    else:
        first = node.attrs["layout"] == "NCHW"
        axis = channel_axis(node.attrs["layout"], rank)
        zero = zero_places(w, 0 if first else w.ndim - 1)
    numbers = np.zeros(zero.size)
    if len(node.inputs) > 2:
        bias = node.inputs[2].data
        if bias is None:
            return
        numbers = np.where(zero, bias.astype(np.float64), 0)
    yield axis, Known(zero, numbers)


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
