"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .....compiler.ir import Dim, DType, Value
from ...site import Site
from ...table import lowers
from ..shared.run_time import around_axis, axes_of_rank, is_known, split_axes, without_axes

_AXES_INPUT = {"ReduceSum": 13}  # the opset in which `axes` became an input; 18 for the others


@dataclass(frozen=True)
class _Reduction:
    """What to reduce. axes None: nothing. shape: of the result, where `keep` does not say it."""

    x: Value
    axes: list[int] | None
    keep: bool
    shape: tuple[Dim, ...] | None = None


def _reduction(s: Site, since: int) -> _Reduction:
    """The axes from the attribute or the input; those that a run chooses make axes of their own."""
    x, keep = s.input(0), bool(s.integer("keepdims", 1))
    rank = x.type.rank
    if s.opset < since:
        return _Reduction(x, _axes(s, s.ints("axes", range(rank)), rank), keep)
    given = s.optional(1)
    if given is not None and not is_known(s, given):
        given = given if keep else axes_of_rank(s, given, rank)
        every = not s.integer("noop_with_empty_axes", 0)
        grid, axes = split_axes(s, x, given, none_is_all=every)
        kept = tuple(grid.shape[0::2]) if keep else without_axes(s, x, given)
        return _Reduction(grid, axes, False, kept)
    chosen = [] if given is None or given.type.elements == 0 else s.numbers(given, "axes")
    if not chosen and s.integer("noop_with_empty_axes", 0):
        return _Reduction(x, None, keep)
    return _Reduction(x, _axes(s, chosen or range(rank), rank), keep)


def _axes(s: Site, given: Sequence[int], rank: int) -> list[int]:
    """Axes to reduce, of which one may be listed twice."""
    return sorted({s.axis(axis, rank) for axis in given})


_SIMPLE = {
    "ReduceSum": "sum",
    "ReduceProd": "prod",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
}


@lowers(*_SIMPLE)
def reduce_(s: Site) -> Value:
    what = _reduction(s, _AXES_INPUT.get(s.op, 18))
    return _shaped(s, what, _reduced(s, _SIMPLE[s.op], what, what.x))


def _reduced(s: Site, kind: str, what: _Reduction, x: Value) -> Value:
    return x if what.axes is None else s.reduce(kind, x, what.axes, what.keep)


def _shaped(s: Site, what: _Reduction, result: Value) -> Value:
    return result if what.shape is None else s.reshape(result, what.shape)


@lowers("ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
def reduce_of_function(s: Site) -> Value:
    what = _reduction(s, 18)
    x, kind = what.x, s.op.removeprefix("Reduce")
    if kind == "LogSumExp" and what.axes:
        return _shaped(s, what, _log_sum_exp(s, x, what.axes, what.keep))
    inner = x
    if kind in ("SumSquare", "L2"):
        inner = s.op_("mul", x, x)
    elif kind == "L1":
        inner = s.op_("abs", x)
    elif kind == "LogSumExp":
        return _shaped(s, what, x)
    total = _shaped(s, what, _reduced(s, "sum", what, inner))
    if kind == "L2":
        return _floating(s, "sqrt", total)
    return _floating(s, "log", total) if kind.startswith("Log") else total


def _floating(s: Site, op: str, x: Value) -> Value:
    if x.dtype.is_float:
        return s.op_(op, x)
    return s.cast(s.op_(op, s.cast(x, DType.F64)), x.dtype)


def _log_sum_exp(s: Site, x: Value, axes: list[int], keep: bool) -> Value:
    """log(sum(exp(x))) around the largest element; where that is infinite it is the answer.

    Of integers exp is an integer, too, as in ONNX Runtime: 0 but for the largest.
    """
    top = s.reduce("max", x, axes)
    if x.dtype.is_float:
        finite = s.op_("where", s.op_("isinf", top), 0.0, top)
        total = s.reduce("sum", s.op_("exp", s.op_("sub", x, finite)), axes, True)
        out = s.op_("add", s.op_("log", total), finite)
    else:
        many = s.reduce("sum", s.cast(s.op_("eq", x, top), DType.F64), axes, True)
        out = s.op_("add", s.cast(s.op_("log", many), x.dtype), top)
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


@lowers("CumSum", "CumProd")
def cumulative(s: Site) -> Value:
    x, given = s.input(0), s.counted(s.input(1), 1)
    attrs = {
        "exclusive": bool(s.integer("exclusive", 0)),
        "reverse": bool(s.integer("reverse", 0)),
    }
    op = s.op.lower()
    if not is_known(s, given):
        rows = s.emit(op, [around_axis(s, x, given)], axis=1, **attrs)
        return s.reshape(rows, x.shape)
    (axis,) = s.numbers(given, "axis")
    return s.emit(op, [x], axis=s.axis(axis, x.type.rank), **attrs)
