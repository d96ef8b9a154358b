"""Nodes that act on each place of an axis by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Node, Value
from .narrow_rules import narrowed
from .narrowing import Narrowed
from .parts import Part, Picks, whole


def first_place(node: Node, axis: int, along: Mapping[Value, int]) -> Narrowed | None:
    """How a node computes the first place of an axis of its result; None where some place of it
    needs more than that place of operands.

    along: the axis of each operand whose places go with those of the result. Of the others nothing
    may differ from place to place. What accumulates needs more at the second place than at the
    first, a window or a shift reaches beyond the first or the last one.
    """
    if len(node.outputs) != 1 or _reorders(node, along):
        return None
    found = None
    for place in reversed(_examined(node.output.shape[axis])):
        part = _only(node.output, axis, place)
        found = narrowed(node, part)
        if found is None or found.computed != part:
            return None
        for value, need in zip(node.inputs, found.needs, strict=True):
            own = whole(value.type.rank)
            if value in along:
                own = _only(value, along[value], place)
            if need is not None and need != own:
                return None
    return found


def _reorders(node: Node, along: Mapping[Value, int]) -> bool:
    """Whether a gather reads its operand along the axis in another order: places in the middle
    may be swapped."""
    if node.op != "gather":
        return False
    x, index = node.inputs
    if along.get(x) != node.attrs["axis"] % x.type.rank:
        return False
    places = None if index.data is None else index.data.ravel()
    return places is None or not np.array_equal(places, np.arange(len(places)))


def _examined(dim: Dim) -> tuple[int, ...]:
    """The places that are looked at: the first two, and the last one of a size that is known."""
    return tuple(sorted({0, 1, dim - 1})) if isinstance(dim, int) else (0, 1)


def _only(value: Value, axis: int, place: int) -> Part:
    part = list(whole(value.type.rank))
    part[axis] = Picks(range(place, place + 1))
    return tuple(part)
