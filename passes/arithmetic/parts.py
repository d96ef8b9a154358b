"""Parts of tensors: which places along each axis are needed.

A part has an entry for every axis: None (all of it), `Picks` (places that are known), `Interval` (a
run whose ends only a run knows) or `Looked` (what an index that the run computes says).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import InternalError
from ...compiler.ir.dims import Dim, estimate
from ...compiler.ir.graph import Value, constant
from ...compiler.ir.ops.registry import Builder

MOST_PLACES = 1 << 18  # along an axis, that are listed one by one


@dataclass(frozen=True)
class Picks:
    """Places in ascending order, each once."""

    places: range | tuple[int, ...]

    @property
    def count(self) -> Dim:
        """How many places."""
        return len(self.places)


@dataclass(frozen=True)
class Interval:
    """The places from `start` on, as many as `count`."""

    start: Dim
    count: Dim


@dataclass(frozen=True, eq=False)
class Looked:
    """The places that the elements of an index of rank 1 say, in its order.

    index: the operand of the gather. flat: the same, of rank 1, once it has been made.
    """

    index: Value

    @property
    def count(self) -> Dim:
        """How many places."""
        return self.index.type.elements

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Looked) and other.index is self.index

    def __hash__(self) -> int:
        return hash(self.index)


Places = Picks | Interval | Looked
Part = tuple[Places | None, ...]


def whole(rank: int) -> Part:
    """The part that is everything."""
    return (None,) * rank


def picks(places: Sequence[int] | np.ndarray[Any, Any], dim: Dim) -> Picks | None:
    """Places of an axis in any order and number, or None where they are all of it."""
    if isinstance(places, range):
        found = places if places.step > 0 else places[::-1]
    else:
        ordered = np.unique(np.asarray(places))
        first, last = int(ordered[0]), int(ordered[-1])
        step = int(ordered[1]) - first if len(ordered) > 1 else 1
        even = range(first, last + 1, step)
        if len(even) != len(ordered) or not bool(np.array_equal(ordered, np.asarray(even))):
            return Picks(tuple(ordered.tolist()))
        found = even
    return None if found == (range(dim) if isinstance(dim, int) else None) else Picks(found)


def union(a: Part, b: Part, shape: Sequence[Dim]) -> Part:
    """The least part that both are in, as far as that can be told."""
    return tuple(_united(one, other, dim) for one, other, dim in zip(a, b, shape, strict=True))


def _united(a: Places | None, b: Places | None, dim: Dim) -> Places | None:
    if a == b or a is None or b is None:
        return a if a == b else None
    if not isinstance(a, Picks) or not isinstance(b, Picks):
        return None
    if len(a.places) + len(b.places) > MOST_PLACES:
        low, high = (end(x.places[i] for x in (a, b)) for end, i in ((min, 0), (max, -1)))
        return picks(range(low, high + 1), dim)
    return picks([*a.places, *b.places], dim)


def part_shape(shape: Sequence[Dim], part: Part) -> tuple[Dim, ...]:
    """The dims of a part of a tensor."""
    return tuple(
        dim if places is None else places.count for dim, places in zip(shape, part, strict=True)
    )


def fraction(shape: Sequence[Dim], part: Part, typical: int) -> float:
    """How much of a tensor a part is; symbols count as `typical`."""
    share = 1.0
    for dim, places in zip(shape, part, strict=True):
        if places is not None:
            size, count = (estimate(each, typical) for each in (dim, places.count))
            share *= min(1.0, count / max(1, size))
    return share


def take(b: Builder, value: Value, have: Part, want: Part) -> Value:
    """The part `want` of a tensor of whose part `have` the value is all.

    Appends a slice, and gathers along axes whose places are not evenly spaced. Raises InternalError
    where `want` is no part of `have`.
    """
    gathers: list[tuple[int, Value]] = []
    starts: list[Dim] = [0] * len(have)
    stops: list[Dim] = list(value.shape)
    steps = [1] * len(have)
    for axis, (old, new) in enumerate(zip(have, want, strict=True)):
        if old == new:
            continue
        places = _within(old, new)
        if isinstance(places, Interval):
            starts[axis], stops[axis] = places.start, places.start + places.count
        elif isinstance(places, Looked):
            gathers.append((axis, b.emit("reshape", [places.index], {"shape": (places.count,)})))
        elif isinstance(places.places, range):
            even = places.places
            starts[axis], stops[axis], steps[axis] = even.start, even[-1] + 1, even.step
        else:
            gathers.append((axis, constant(np.asarray(places.places, np.int64))))
    if any(steps[a] != 1 or starts[a] != 0 or stops[a] != d for a, d in enumerate(value.shape)):
        value = cut(b, value, starts, stops, steps)
    for axis, index in gathers:
        value = b.emit("gather", [value, index], {"axis": axis})
    return value


def cut(
    b: Builder, value: Value, starts: Sequence[Dim], stops: Sequence[Dim], steps: Sequence[int]
) -> Value:
    """A slice; of a constant at once, as a view of its elements."""
    if value.data is not None and all(isinstance(end, int) for end in (*starts, *stops)):
        index = tuple(slice(*ends) for ends in zip(starts, stops, steps, strict=True))
        return constant(value.data[index], value.name)
    attrs = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    return b.emit("slice", [value], attrs)


def _within(have: Places | None, want: Places | None) -> Places:
    """Where the places of `want` are among those of `have`."""
    if have is None and want is not None:
        return want
    if not isinstance(have, Picks) or not isinstance(want, Picks):
        raise InternalError(f"{want} is no part of {have}")
    outer, inner = have.places, want.places
    if isinstance(outer, range) and isinstance(inner, range) and inner.step % outer.step == 0:
        first, step = (inner.start - outer.start) // outer.step, inner.step // outer.step
        return Picks(range(first, first + step * len(inner), step))
    position = {place: number for number, place in enumerate(outer)}
    found = picks([position[place] for place in inner], None)  # type: ignore[arg-type]
    assert found is not None
    return found
