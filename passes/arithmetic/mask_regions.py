"""Which scores a mask may leave seen, read off what makes it.

Exporters write masks as constants, as comparisons of positions (`arange[:, None] >= arange`), as
triangles, windows and paddings, joined by `and`, selections and sums. What only a run knows may
hide more: it counts as seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Generic

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Array, Trait, has_trait
from ...compiler.ir.rewrite import scalar
from ...compiler.ir.types import DType
from ..layout.axis_permutation import match_axes
from .hidden_scores import lowest
from .key_regions import NEGATED, At, Position, S, ScoreDomain

_MOST_NODES = 128  # that are looked at behind one mask
_Positions = dict[tuple[Value, At], Position | None]


@dataclass
class _Found(Generic[S]):
    """What is read already: each node once for every way that it is asked for, however many lead to
    it. left: nodes that may still be looked at."""

    left: int = _MOST_NODES
    sets: dict[tuple[Value, At, bool, float | None], S] = field(default_factory=dict)
    positions: _Positions = field(default_factory=dict)


@dataclass(frozen=True)
class MaskReader(Generic[S]):
    """Reads a mask into a domain. limit: what is not above is hidden."""

    domain: ScoreDomain[S]
    limit: float
    _found: _Found[S] = field(default_factory=_Found)

    def seen(self, mask: Value, wanted: bool = True) -> S:
        """Scores that may be seen (or, not `wanted`, hidden) under a mask that is added."""
        rank = mask.type.rank
        row = rank - 2 if rank > 1 and mask.shape[-2] != 1 else None
        key = rank - 1 if rank > 0 and mask.shape[-1] != 1 else None
        return self._added(mask, At(row, key), wanted)

    def _added(self, value: Value, at: At, wanted: bool) -> S:
        key = value, at, wanted, self.limit
        if key not in self._found.sets:
            self._found.sets[key] = self._read_added(value, at, wanted)
        return self._found.sets[key]

    def _read_added(self, value: Value, at: At, wanted: bool) -> S:
        domain, node = self.domain, value.producer
        if value.data is not None:
            hidden = value.data.astype(np.float64) <= self.limit  # which halves do not hold
            return domain.table(_table(hidden != wanted, at), at)
        if node is None or not self._may_look():
            return domain.all()
        inner = list(_operands(node, at))
        if node.op == "where":
            condition, kept, other = inner
            one = _joined(self._holds(*condition, True), self._added(*kept, wanted), "and")
            two = _joined(self._holds(*condition, False), self._added(*other, wanted), "and")
            return _joined(one, two, "or")
        if node.op == "min" or (node.op == "add" and value.dtype.is_float):
            one, two = self._added(*inner[0], wanted), self._added(*inner[1], wanted)
            return _joined(one, two, "and" if wanted else "or")
        if node.op == "cast":
            return self._converted(*inner[0], value.dtype, wanted)
        if node.op in _MOVES and inner:
            return self._added(*inner[0], wanted)
        return domain.all()

    def _may_look(self) -> bool:
        self._found.left -= 1
        return self._found.left >= 0

    def _converted(self, value: Value, at: At, dtype: DType, wanted: bool) -> S:
        """The same of a mask that is cast: below what a small type holds it makes infinities;
        integers wrap."""
        if not dtype.is_float:
            return self.domain.all()
        if wanted:
            return self._added(value, at, wanted)
        limit = max(self.limit, lowest(dtype))
        return replace(self, limit=limit)._added(value, at, wanted)

    def _holds(self, value: Value, at: At, wanted: bool) -> S:
        """Scores for which a condition may be what is wanted."""
        key = value, at, wanted, None
        if key not in self._found.sets:
            self._found.sets[key] = self._read_holds(value, at, wanted)
        return self._found.sets[key]

    def _read_holds(self, value: Value, at: At, wanted: bool) -> S:
        domain, node = self.domain, value.producer
        if value.data is not None:
            return domain.table(_table(value.data.astype(bool) == wanted, at), at)
        if node is None or not self._may_look():
            return domain.all()
        inner = list(_operands(node, at))
        if node.op == "not":
            return self._holds(*inner[0], not wanted)
        if node.op in ("and", "or"):
            one, two = self._holds(*inner[0], wanted), self._holds(*inner[1], wanted)
            return _joined(one, two, "and" if (node.op == "and") == wanted else "or")
        if node.op in NEGATED and not node.inputs[0].dtype.is_float:
            known = self._found.positions
            left, right = _position(*inner[0], known), _position(*inner[1], known)
            if left is not None and right is not None:
                op = node.op if wanted else NEGATED[node.op]
                return domain.compared(op, left.plus(right, -1))
        if node.op in _MOVES and inner and value.dtype is node.inputs[0].dtype:
            return self._holds(*inner[0], wanted)
        return domain.all()


def _joined(a: S, b: S, how: str) -> S:
    found: S = a & b if how == "and" else a | b
    return found


def chosen(mask: Value) -> set[float] | None:
    """The numbers that a mask is made of by selections; None where there may be others."""
    waiting, seen, found = [mask], set[Value](), set[float]()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer
        if value.data is not None:
            found.update(np.unique(value.data).astype(np.float64).tolist())
        elif node is None or len(seen) > _MOST_NODES:
            return None
        elif node.op == "where" or node.op in _MOVES[:-1]:
            waiting.extend(node.inputs[1:] if node.op == "where" else node.inputs)
        else:
            return None
    return found


_MOVES = ("reshape", "transpose", "broadcast_to", "slice", "cast")


def _operands(node: Node, at: At) -> Iterator[tuple[Value, At]]:
    """The operands of a node, and where the elements are in them that make one of its own; nothing
    where that is not known."""
    if has_trait(node, Trait.POINTWISE) or node.op == "broadcast_to":
        rank = node.output.type.rank
        for value in node.inputs:
            axes = (
                None if axis is None or _spread(value, axis - rank) else axis - rank
                for axis in (at.row_axis, at.key_axis)
            )
            row, key = (None if axis is None else axis + value.type.rank for axis in axes)
            yield value, At(row, key, at.row_shift, at.key_shift)
        return
    if not node.inputs:
        return
    x = node.inputs[0]
    if node.op == "transpose":
        perm = node.attrs["perm"]
        row, key = (None if a is None else perm[a] for a in (at.row_axis, at.key_axis))
        yield x, At(row, key, at.row_shift, at.key_shift)
    elif node.op == "reshape":
        groups = match_axes(x.shape, node.output.shape) or []
        whole = {results[0]: old[0] for old, results in groups if len(results) == len(old) == 1}
        if all(axis in whole for axis in (at.row_axis, at.key_axis) if axis is not None):
            row, key = (None if a is None else whole[a] for a in (at.row_axis, at.key_axis))
            yield x, At(row, key, at.row_shift, at.key_shift)
    elif node.op == "slice":
        starts, steps = node.attrs["starts"], node.attrs["steps"]
        if all(steps[axis] == 1 for axis in (at.row_axis, at.key_axis) if axis is not None):
            row = 0 if at.row_axis is None else starts[at.row_axis]
            key = 0 if at.key_axis is None else starts[at.key_axis]
            yield x, At(at.row_axis, at.key_axis, at.row_shift + row, at.key_shift + key)


def _spread(value: Value, axis: int) -> bool:
    """Whether a value has one element for all places of an axis, counted from the last."""
    return -axis > value.type.rank or value.shape[axis] == 1


def _table(holds: Array, at: At) -> Array:
    """bool[rows or 1, keys or 1]: whether it holds anywhere else for them."""
    kept = [axis for axis in (at.row_axis, at.key_axis) if axis is not None]
    gone = tuple(axis for axis in range(holds.ndim) if axis not in kept)
    small = holds.any(axis=gone)
    if kept == sorted(kept, reverse=True):
        small = small.T
    row, key = (-1 if axis is not None else 1 for axis in (at.row_axis, at.key_axis))
    shape = small.shape if row == key == -1 else (row, key) if row != key else (1, 1)
    return np.asarray(small.reshape(shape))


def _position(value: Value, at: At, known: _Positions) -> Position | None:
    """An integer as a position; None where it is none, or might not fit its type."""
    key = value, at
    if key not in known:
        known[key] = None  # it counts while what it is made of is looked at
        if len(known) <= _MOST_NODES:
            known[key] = _read_position(value, at, known)
    return known[key]


def _read_position(value: Value, at: At, known: _Positions) -> Position | None:
    number = None if value.dtype.is_float else scalar(value)
    if number is not None:
        return Position(0, 0, int(number))
    node = value.producer
    if node is None or value.dtype not in _WIDE:
        return None
    found = None
    if node.op == "dims" and len(node.attrs["values"]) == 1:
        found = Position(0, 0, node.attrs["values"][0])
    elif node.op in ("iota", "cumsum"):
        found = _counted(node, at)
    elif node.op in ("add", "sub"):
        one, two = _operands(node, at)
        a, b = _position(*one, known), _position(*two, known)
        if a is not None and b is not None:
            found = a.plus(b, 1 if node.op == "add" else -1)
    elif node.op in _MOVES:
        inner = next(_operands(node, at), None)
        found = None if inner is None else _position(*inner, known)
    return found if found is not None and _fits(found, value.dtype) else None


_WIDE = (DType.I64, DType.I32)
_LONGEST = 1 << 28  # axes of scores: 2^28 of them are more than memories hold


def _fits(position: Position, dtype: DType) -> bool:
    """Whether a type holds a position, so that computing it did not wrap."""
    offset = abs(position.offset) if isinstance(position.offset, int) else _LONGEST
    largest = (abs(position.row) + abs(position.key)) * _LONGEST + offset
    return largest <= int(np.iinfo(dtype.numpy).max)


def _counted(node: Node, at: At) -> Position | None:
    """Places along an axis: an iota, or a sum of ones up to there."""
    axis = node.attrs["axis"] % node.output.type.rank
    first = 0
    if node.op == "cumsum":
        ones = node.inputs[0]
        spread = ones.producer
        if spread is not None and spread.op == "broadcast_to":
            ones = spread.inputs[0]
        if scalar(ones) != 1 or node.attrs["reverse"]:
            return None
        first = 0 if node.attrs["exclusive"] else 1
    if axis == at.row_axis:
        return Position(1, 0, at.row_shift + first)
    if axis == at.key_axis:
        return Position(0, 1, at.key_shift + first)
    return Position(0, 0, first) if node.output.shape[axis] == 1 else None
