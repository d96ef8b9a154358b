"""Reductions along axes."""

from __future__ import annotations

import numpy as np

from ....compiler.ir import DType, Value
from ..site import NotSupported, Site
from ..table import lowers

_AXES_INPUT = {"ReduceSum": 13}  # the opset in which `axes` became an input; 18 for the others


def reduction_axes(s: Site, x: Value, since: int) -> list[int] | None:
    """The axes to reduce, from the attribute or the input; None: leave x as it is."""
    rank = x.type.rank
    if s.opset < since:
        axes = s.ints("axes", range(rank))
    else:
        given = s.optional(1)
        axes = [] if given is None else s.numbers(given, "axes")
        if not axes and s.integer("noop_with_empty_axes", 0):
            return None
    return s.axes(axes or range(rank), rank)


_SIMPLE = {
    "ReduceSum": "sum",
    "ReduceProd": "prod",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
}


@lowers(*_SIMPLE)
def reduce_(s: Site) -> Value:
    x = s.input(0)
    axes = reduction_axes(s, x, _AXES_INPUT.get(s.op, 18))
    if axes is None:
        return x
    return s.reduce(_SIMPLE[s.op], x, axes, bool(s.integer("keepdims", 1)))


@lowers("ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
def reduce_of_function(s: Site) -> Value:
    x = s.input(0)
    axes = reduction_axes(s, x, 18)
    keep = bool(s.integer("keepdims", 1))
    kind = s.op.removeprefix("Reduce")
    if kind == "LogSumExp" and x.dtype.is_float and axes:
        return _log_sum_exp(s, x, axes, keep)
    inner = x
    if kind in ("SumSquare", "L2"):
        inner = s.op_("mul", x, x)
    elif kind == "L1":
        inner = s.op_("abs", x)
    elif kind == "LogSumExp":
        inner = _floating(s, "exp", x)
    total = inner if axes is None else s.reduce("sum", inner, axes, keep)
    if kind == "L2":
        return _floating(s, "sqrt", total)
    return _floating(s, "log", total) if kind.startswith("Log") else total


def _floating(s: Site, op: str, x: Value) -> Value:
    if x.dtype.is_float:
        return s.op_(op, x)
    return s.cast(s.op_(op, s.cast(x, DType.F64)), x.dtype)


def _log_sum_exp(s: Site, x: Value, axes: list[int], keep: bool) -> Value:
    """log(sum(exp(x))) around the largest element; where that is infinite it is the answer."""
    top = s.reduce("max", x, axes)
    finite = s.op_("where", s.op_("isinf", top), 0.0, top) if x.dtype.is_float else top
    total = s.reduce("sum", s.op_("exp", s.op_("sub", x, finite)), axes, True)
    out = s.op_("add", s.op_("log", total), finite)
    if keep:
        return out
    kept = [dim for axis, dim in enumerate(x.shape) if axis not in axes]
    return s.reshape(out, kept)


@lowers("ArgMax", "ArgMin")
def arg(s: Site) -> Value:
    x = s.input(0)
    return s.emit(
        s.op.lower(),
        [x],
        axis=s.axis(s.integer("axis", 0), x.type.rank),
        keepdims=bool(s.integer("keepdims", 1)),
        select_last=bool(s.integer("select_last_index", 0)),
    )


@lowers("CumSum")
def cumulative_sum(s: Site) -> Value:
    x = s.input(0)
    (axis,) = s.numbers(s.input(1), "axis")
    return s.emit(
        "cumsum",
        [x],
        axis=s.axis(axis, x.type.rank),
        exclusive=bool(s.integer("exclusive", 0)),
        reverse=bool(s.integer("reverse", 0)),
    )


@lowers("TopK")
def top_k(s: Site) -> list[Value]:
    """By ranks: element i is the r-th where r counts what sorts before it (ties: lower index).

    The comparison is quadratic in the length of the axis, so that is limited.
    """
    x = s.input(0)
    if s.opset < 10:
        k = s.integer("k")
    else:
        (k,) = s.numbers(s.input(1), "k")
    axis = s.axis(s.integer("axis", -1), x.type.rank)
    size = x.shape[axis]
    if not isinstance(size, int) or size > 4096:
        raise NotSupported(f"an axis of length {size} is too long for it", "reduce it to 4096")
    if not 0 <= k <= size:
        raise ValueError(f"k is {k}, but the axis has {size} elements")
    if x.dtype is DType.BOOL:
        raise ValueError("booleans have no order")
    rank = x.type.rank
    perm = [*(a for a in range(rank) if a != axis), axis]
    rows = s.transpose(x, perm)
    values, indices = _ranked(s, rows, k, bool(s.integer("largest", 1)))
    back = [int(a) for a in np.argsort(perm)]
    return [s.transpose(values, back), s.transpose(indices, back)]


def _ranked(s: Site, rows: Value, k: int, largest: bool) -> tuple[Value, Value]:
    """The k largest or smallest of the last axis in order, and where they are."""
    lead, size = rows.shape[:-1], rows.shape[-1]
    mine = s.reshape(rows, (*lead, size, 1))
    other = s.reshape(rows, (*lead, 1, size))
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
