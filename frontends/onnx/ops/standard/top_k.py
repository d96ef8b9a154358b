"""The first elements of an order."""

from __future__ import annotations

import numpy as np

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.placed_keys import may_be_placed, ordered, placed_keys, places_in
from ...site import Site
from ...table import lowers

_RANKED = 128  # elements of an axis up to which comparing all pairs is faster than sorting
_FEW, _SHORT = 8, 512  # elements wanted, and of an axis, up to which taking them in turn is fastest


@lowers("TopK")
def top_k(s: Site) -> list[Value]:
    """Few of a row are its maximum, then that of the rest, and so on; short axes go by ranks:
    element i is the r-th where r counts what sorts before it (ties: lower index). The comparison is
    quadratic in the length of the axis; longer ones are sorted.
    """
    x = s.input(0)
    k: Dim = s.integer("k") if s.opset < 10 else s.dims(s.reshape(s.input(1), (1,)))[0]
    axis = s.axis(s.integer("axis", -1), x.type.rank)
    size = x.shape[axis]
    if isinstance(k, int) and isinstance(size, int) and not 0 <= k <= size:
        raise ValueError(f"k is {k}, but the axis has {size} elements")
    if x.dtype is DType.BOOL:
        raise ValueError("booleans have no order")
    rank = x.type.rank
    perm = [*(a for a in range(rank) if a != axis), axis]
    rows = s.transpose(x, perm)
    largest = bool(s.integer("largest", 1))
    if isinstance(size, int) and isinstance(k, int) and _few(k, size, x.dtype):
        indices = _one_after_the_other(s, rows, k, largest)
        values = s.emit("gather_elements", [rows, indices], axis=rank - 1)
    elif isinstance(size, int) and isinstance(k, int) and size <= _RANKED:
        values, indices = _ranked(s, rows, k, largest)
    else:
        indices = s.emit("argsort", [rows], count=k, descending=largest)
        values = s.emit("gather_elements", [rows, indices], axis=rank - 1)
    back = [int(a) for a in np.argsort(perm)]
    return [s.transpose(values, back), s.transpose(indices, back)]


def _few(k: int, size: int, dtype: DType) -> bool:
    return 0 < k <= _FEW and k < size <= _SHORT and may_be_placed(dtype, size)


def _one_after_the_other(s: Site, rows: Value, k: int, largest: bool) -> Value:
    """Where the k largest or smallest of the last axis are, in order.

    Of equal elements the first one comes first.
    """
    axis = rows.type.rank - 1
    items = placed_keys(s.emitter.emit, rows, axis, backwards=largest)
    kind, op, end = ("max", "lt", "min") if largest else ("min", "gt", "max")
    beyond = int(getattr(np.iinfo(np.int64), end))
    found = [s.reduce(kind, items, [axis])]
    for _ in range(k - 1):
        rest = s.op_("where", s.op_(op, items, found[-1]), items, beyond)
        found.append(s.reduce(kind, rest, [axis]))
    keys = s.emit("concat", found, axis=axis)
    return places_in(s.emitter.emit, keys, rows.shape[-1], backwards=largest)


def _ranked(s: Site, rows: Value, k: Dim, largest: bool) -> tuple[Value, Value]:
    """The k largest or smallest of the last axis in order, and where they are."""
    lead, size = rows.shape[:-1], rows.shape[-1]
    keys = ordered(s.emitter.emit, rows) if rows.dtype.is_float else rows
    mine = s.reshape(keys, (*lead, size, 1))
    other = s.reshape(keys, (*lead, 1, size))
    before = s.op_("gt" if largest else "lt", other, mine)
    grid = (size, size)
    earlier = s.op_("lt", s.iota(grid, 1, DType.I64), s.iota(grid, 0, DType.I64))
    tie = s.op_("and", s.op_("eq", other, mine), earlier)
    count = s.cast(s.op_("or", before, tie), DType.I32)
    place = s.reduce("sum", count, [len(lead) + 1], False)
    slots = s.iota((k, 1), 0, DType.I32)
    hit = s.op_("eq", s.reshape(place, (*lead, 1, size)), slots)
    indices = s.emit("argmax", [s.cast(hit, DType.I32)], axis=len(lead) + 1, keepdims=False)
    return s.emit("gather_elements", [rows, indices], axis=len(lead)), indices
