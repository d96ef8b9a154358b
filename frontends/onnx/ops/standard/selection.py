"""Operators whose number of results depends on the data: the runtime counts, a dim is bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import product
from ...containers import Content, Text
from ...site import Site
from ...table import lowers


def true_places(s: Site, flags: Value) -> Value:
    """The places of the true elements of a bool vector: i64 of a length that a run binds."""
    if flags.data is not None:
        return constant(np.flatnonzero(flags.data).astype(np.int64))
    places, number = s.emitter.emit_node("nonzero", [flags])
    return used_part(s, places, number)


def used_part(s: Site, rows: Value, number: Value) -> Value:
    """The first rows, as many as `number` (i64[1]) says."""
    (count,) = s.dims(number)
    return s.slice(rows, 0, 0, count)


@lowers("NonZero")
def nonzero(s: Site) -> Value:
    x = s.input(0)
    shape = x.shape or (1,)
    flags = s.reshape(s.cast(x, DType.BOOL), (product(shape),))
    places = true_places(s, flags)
    rows = []
    for axis, dim in enumerate(shape):
        inner = product(shape[axis + 1 :])
        position = s.op_("div", places, _scalar(s, inner)) if inner != 1 else places
        if axis:
            position = s.op_("mod", position, _scalar(s, dim))
        rows.append(s.reshape(position, (1, *position.shape)))
    if not x.type.rank:  # no coordinates
        return s.slice(rows[0], 0, 0, 0)
    return s.emit("concat", rows, axis=0)


def _scalar(s: Site, dim: Dim) -> Value:
    return s.reshape(s.emitter.virtual([dim]), ())


@lowers("Compress")
def compress(s: Site) -> Value:
    x, condition = s.input(0), s.input(1)
    axis = 0
    if s.has("axis"):
        axis = s.axis(s.integer("axis"), x.type.rank)
    else:
        x = s.reshape(x, (product(x.shape),))
    return s.emit("gather", [x, true_places(s, condition)], axis=axis)


@lowers("Unique")
def unique(s: Site) -> Sequence[Content]:
    """Rows are compared as wholes; along an axis its slices are the rows. Strings are rows, too."""
    entry = s.entries[0]
    text = isinstance(entry, Text)
    x = entry.data if isinstance(entry, Text) else s.input(0)
    rank = x.type.rank - text
    axis = s.axis(s.integer("axis"), rank) if s.has("axis") else None
    if axis is None:
        x = s.reshape(x, (product(x.shape[:rank]), *x.shape[rank:]))
        axis = 0
    perm = [axis, *(a for a in range(x.type.rank) if a != axis)]
    rows = s.reshape(s.transpose(x, perm), (x.shape[axis], product(x.shape[a] for a in perm[1:])))
    found, inverse, counts = unique_rows(s, rows, bool(s.integer("sorted", 1)))
    kinds = s.emit("gather", [x, found], axis=axis)
    return [Text(kinds) if text else kinds, found, inverse, counts]


def unique_rows(s: Site, rows: Value, ordered: bool) -> tuple[Value, Value, Value]:
    """Of a matrix: the first row of each kind, which of these a row is like, and how many are.

    ordered: by what the rows hold, otherwise as they occur.
    """
    first, inverse, counts, number = s.emitter.emit_node("unique", [rows], {"sorted": ordered})
    found = used_part(s, first, number)
    return found, inverse, s.slice(counts, 0, 0, found.shape[0])


@lowers("NonMaxSuppression")
def non_max_suppression(s: Site) -> Value:
    boxes, scores = s.input(0), s.input(1)

    def scalar(index: int, default: float, dtype: DType) -> Value:
        given = s.optional(index)
        return s.scalar(default, dtype) if given is None else s.reshape(given, ())

    limit = scalar(2, 0, DType.I64)
    overlap, least = scalar(3, 0.0, DType.F32), scalar(4, float("-inf"), DType.F32)
    inside = s.op_("and", s.op_("ge", overlap, 0.0), s.op_("le", overlap, 1.0))
    s.require_nonzero(inside, "the threshold of overlaps is outside of [0, 1]")
    rows, number = s.emitter.emit_node(
        "nms",
        [boxes, scores, limit, overlap, least],
        {"center": bool(s.integer("center_point_box", 0))},
    )
    return used_part(s, rows, number)


@lowers("Det")
def determinant(s: Site) -> Value:
    return s.emit("det", [square(s, s.input(0))])


def square(s: Site, x: Value) -> Value:
    """Matrices that a run checks to be square."""
    if x.type.rank < 2:
        raise ValueError(f"{x.type} is no matrix")
    s.require(x.shape[-2], EQUAL, x.shape[-1], "as many rows as columns")
    return x
