"""Channels that equal others for every input.

Equal filters make equal channels of one operand, as does whatever repeats or joins a channel twice
(a grey picture as three channels, a residual that is concatenated with itself); functions, sums,
poolings and depthwise filters of equal channels are equal again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Array, Trait, has_trait
from ...compiler.ir.ops.windows import channel_axis
from ..layout.axis_permutation import match_axes
from .channel_facts import ChannelFacts

MOST_PLACES = 1 << 14  # along an axis, that are compared: a bound on the time, assumed
_PROBES = 3  # elements of a filter that are compared first


def labelled(keys: Iterable[Hashable]) -> Array:
    """i64[places]: of each place, the first whose key is the same."""
    first: dict[Hashable, int] = {}
    found = [first.setdefault(key, place) for place, key in enumerate(keys)]
    return np.asarray(found, np.int64)


def equal_places(weights: Array, axis: int) -> Array:
    """i64[places]: of each place along an axis, the first whose elements are the same.

    More than `MOST_PLACES` places are not compared: each is then its own first, as if all differed.
    """
    count = weights.shape[axis]
    places = np.arange(count)
    if count > MOST_PLACES or not weights.size:
        return places
    moved = np.moveaxis(weights, axis, 0)
    alike = places
    for probe in np.linspace(0, weights.size // count - 1, _PROBES).astype(np.int64):
        index = np.unravel_index(probe, moved.shape[1:])
        first = moved[(alike, *index)]
        _, inverse, counts = np.unique(first, return_inverse=True, return_counts=True)
        alike = alike[counts[inverse] > 1]
        if not alike.size:
            return places
    found = labelled(moved[place].tobytes() for place in alike)
    places = places.copy()
    places[alike] = alike[found]
    return places


def _together(keys: Sequence[Array]) -> Array:
    """i64[places]: of each place, the first that is the same by every key."""
    return labelled(zip(*(key.tolist() for key in keys), strict=True))


class EqualChannels(ChannelFacts[Array]):
    """Of values of a graph, from its inputs on, which places along an axis are equal.

    A fact is i64[places], of each place the first that equals it; there is none where all differ.
    """

    def tells(self, fact: Array, size: object) -> bool:
        """Whether any place equals another."""
        return size == fact.size and bool((fact != np.arange(fact.size)).any())

    def made(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Channels of equal weights, places that are repeated or joined, and places of those."""
        rule = _RULES.get(node.op)
        if rule is not None:
            yield from rule(self, node)
        elif has_trait(node, Trait.NORMALISATION):
            yield from self._normed(node)

    def operand(self, value: Value, axis: int, size: int) -> Array | None:
        """Labels of an operand's places along an axis; None: all differ."""
        place = axis + value.type.rank
        if place < 0 or value.shape[place] == 1:
            return np.zeros(size, np.int64)
        if value.data is not None:
            return equal_places(value.data, place)
        return self.along(value, place)

    def applied(self, node: Node, operands: Sequence[Array]) -> Array:
        """Places are equal where those of all operands are."""
        return _together(operands)

    def _made(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Channels of equal filters and biases, of equal operands where each has its own."""
        x, w, *rest = node.inputs
        bias = rest[0].data if rest else None
        if w.data is None or (rest and bias is None):
            return
        if node.op == "matmul":
            if w.type.rank == 2:
                yield node.output.type.rank - 1, equal_places(w.data, 1)
            return
        layout = node.attrs["layout"]
        axis = channel_axis(layout, node.output.type.rank)
        filters = equal_places(w.data, 0 if layout == "NCHW" else w.type.rank - 1)
        if (filters == np.arange(filters.size)).all():
            return
        keys: list[Array] = [filters, *([] if bias is None else [bias])]
        groups, size = node.attrs["groups"], x.shape[axis]
        if groups > 1:
            read = np.repeat(np.arange(groups), filters.size // groups)
            known = self.along(x, axis)
            keys.append(read if known is None or size != groups else known[read])
        yield axis, _together(keys)

    def _repeated(self, node: Node) -> Iterator[tuple[int, Array]]:
        """All places of a new axis, or of one that was a single place, are equal."""
        x, shape = node.inputs[0], node.output.shape
        offset = len(shape) - x.type.rank
        for axis, size in enumerate(shape):
            alone = axis < offset or x.shape[axis - offset] == 1
            if alone and isinstance(size, int) and 1 < size <= MOST_PLACES:
                yield axis, np.zeros(size, np.int64)

    def _joined(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Equal places of one value are equal wherever the value is."""
        axis = node.attrs["axis"] % node.output.type.rank
        known = [self.along(value, axis) for value in node.inputs]
        twice = len(set(node.inputs)) < len(node.inputs)
        sizes = [size for v in node.inputs if isinstance(size := v.shape[axis], int)]
        if len(sizes) < len(node.inputs) or sum(sizes) > MOST_PLACES:
            return
        if not twice and all(labels is None for labels in known):
            return
        keys: list[Hashable] = []
        for value, labels, size in zip(node.inputs, known, sizes, strict=True):
            places = np.arange(size) if labels is None else labels
            keys += [(value, place) for place in places.tolist()]
        yield axis, labelled(keys)

    def _gathered(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Places that an index names twice."""
        x, index = node.inputs
        axis = node.attrs["axis"] % x.type.rank
        size = x.shape[axis]
        if index.data is None or index.data.ndim != 1 or not isinstance(size, int):
            return
        if index.data.size > MOST_PLACES:
            return
        places, labels = index.data % size, self.along(x, axis)
        read = places if labels is None else labels[places]
        yield axis, labelled(read.tolist())

    def _sliced(self, node: Node) -> Iterator[tuple[int, Array]]:
        starts, stops, steps = (node.attrs[key] for key in ("starts", "stops", "steps"))
        for axis, labels in self.facts.get(node.inputs[0], {}).items():
            if isinstance(starts[axis], int) and isinstance(stops[axis], int):
                places = np.arange(starts[axis], stops[axis], steps[axis])
                yield axis, labelled(labels[places].tolist())

    def _merged(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Places of several axes that become one are equal where they are along each."""
        x = node.inputs[0]
        for old, new in match_axes(x.shape, node.output.shape) or ():
            dims = [dim for axis in old if isinstance(dim := x.shape[axis], int)]
            known = [self.along(x, axis) for axis in old]
            if len(new) != 1 or len(old) < 2 or len(dims) < len(old):
                continue
            if np.prod(dims) > MOST_PLACES or all(labels is None for labels in known):
                continue
            pairs = zip(known, dims, strict=True)
            places = [np.arange(dim) if labels is None else labels for labels, dim in pairs]
            yield new[0], np.ravel_multi_index(np.ix_(*places), dims).ravel()

    def _normed(self, node: Node) -> Iterator[tuple[int, Array]]:
        """Equal elements of what is normalised together become equal ones, if scaled alike."""
        rank = node.output.type.rank
        for axis, labels in self.facts.get(node.inputs[0], {}).items():
            others = [self.operand(v, axis - rank, labels.size) for v in node.inputs[1:]]
            keys = [labels, *(other for other in others if other is not None)]
            if len(keys) == len(node.inputs):
                yield axis, _together(keys)


_RULES: dict[str, Callable[[EqualChannels, Node], Iterator[tuple[int, Array]]]] = {
    "conv": EqualChannels._made,
    "matmul": EqualChannels._made,
    "broadcast_to": EqualChannels._repeated,
    "expand": EqualChannels._repeated,
    "concat": EqualChannels._joined,
    "gather": EqualChannels._gathered,
    "slice": EqualChannels._sliced,
    "reshape": EqualChannels._merged,
}
