"""Shape arithmetic: what core operators do to small integer tensors whose elements are dims.

An array of elements is a numpy object array of dims (booleans are 0 and 1). A function here gives
the elements of a core operator's result, or None when it cannot be said before run time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ...compiler.ir import DType
from ...compiler.ir.dims import Dim, dmax, dmin, floordiv, is_nonnegative, mod, product

Elements = np.ndarray[Any, Any]
MAX_ELEMENTS = 1024


class Undecided(Exception):
    """The result depends on values that are known at run time only.

    dims: expressions of which one being >= 0 would decide it.
    """

    def __init__(self, *dims: Dim) -> None:
        super().__init__()
        self.dims = dims


def elements(values: Any, shape: tuple[int, ...] | None = None) -> Elements:
    """An object array of dims from a (nested) sequence or array of them."""
    array = np.array(values, dtype=object)
    return array if shape is None else array.reshape(shape)


def apply(
    op: str, attrs: dict[str, Any], inputs: Sequence[Elements], dtype: DType
) -> Elements | None:
    """Elements of the result of core operator `op` with result type `dtype`, or None.

    Raises Undecided where it is the sign of an expression that is not known.
    """
    if not (dtype.is_integer or dtype is DType.BOOL):
        return None
    if op in _POINTWISE:
        arrays = np.broadcast_arrays(*inputs)
        fn = np.frompyfunc(_POINTWISE[op], len(inputs), 1)
        return np.asarray(fn(*arrays), dtype=object)
    if op == "cast":
        return _cast(inputs[0], dtype)
    if op in _REDUCE:
        return _reduce(_REDUCE[op], inputs[0], attrs)
    if op in _MOVE:
        return np.asarray(_MOVE[op](inputs, attrs), dtype=object)
    return None


def truncated_div(a: Dim, b: Dim) -> Dim:
    """a / b rounded towards zero, as integer division in ONNX is."""
    if isinstance(b, int) and b < 0:
        return -truncated_div(a, -b)
    if b == 0 or not is_nonnegative(b):
        raise Undecided(b)
    if is_nonnegative(a):
        return floordiv(a, b)
    return floordiv(dmax(a, 0), b) - floordiv(dmax(-a, 0), b)


def compare(a: Dim, b: Dim) -> int | None:
    """The sign of a - b when it is certain (-1, 0 or 1), else None."""
    difference = a - b
    if isinstance(difference, int):
        return (difference > 0) - (difference < 0)
    if is_nonnegative(difference - 1):
        return 1
    return -1 if is_nonnegative(-difference - 1) else None


def _at_least(a: Dim, b: Dim) -> int:
    if is_nonnegative(a - b):
        return 1
    if is_nonnegative(b - a - 1):
        return 0
    raise Undecided(a - b, b - a - 1)


def _equal(a: Dim, b: Dim) -> int:
    sign = compare(a, b)
    if sign is None:
        raise Undecided(a - b - 1, b - a - 1)
    return int(sign == 0)


def _constant(value: Any) -> int:
    if not isinstance(value, (int, np.integer)):
        raise Undecided
    return int(value)


def _mod(a: Dim, b: Dim) -> Dim:
    if b == 0 or not (is_nonnegative(a) and is_nonnegative(b)):
        raise Undecided(a, b)
    return mod(a, b)


def _abs(a: Dim) -> Dim:
    return a if is_nonnegative(a) else dmax(a, -a)


def _where(condition: Dim, a: Dim, b: Dim) -> Dim:
    if a == b:
        return a
    return a if _constant(condition) else b


def _cast(x: Elements, dtype: DType) -> Elements:
    if dtype is DType.BOOL:
        fn = np.frompyfunc(lambda value: 1 - _equal(value, 0), 1, 1)
        return np.asarray(fn(x), dtype=object)
    return x


def _reduce(fn: Callable[[Dim, Dim], Dim], x: Elements, attrs: dict[str, Any]) -> Elements:
    axes = tuple(sorted(attrs["axes"]))
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose([*kept, *axes]).reshape([x.shape[axis] for axis in kept] + [-1])
    if rows.shape[-1] == 0:
        raise Undecided
    out = np.empty(rows.shape[:-1], dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = reduce(fn, rows[index])
    if attrs["keepdims"]:
        return out.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim)])
    return out


def _slice(inputs: Sequence[Elements], attrs: dict[str, Any]) -> Elements:
    x = inputs[0]
    spans = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    for axis, span in enumerate(spans):
        start, stop, step = map(_constant, span)
        x = np.take(x, list(range(start, stop, step)), axis=axis)
    return x


def _shape(attrs: dict[str, Any]) -> list[int]:
    return [_constant(dim) for dim in attrs["shape"]]


def _indices(x: Elements) -> Any:
    return np.vectorize(_constant, otypes=[np.int64])(x) if x.size else np.zeros(x.shape, np.int64)


def _iota(inputs: Sequence[Elements], attrs: dict[str, Any]) -> Elements:
    shape = _shape(attrs)
    if product(shape) > MAX_ELEMENTS:  # type: ignore[operator]
        raise Undecided
    axis = attrs["axis"]
    steps = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(steps, shape).astype(object)


_POINTWISE: dict[str, Callable[..., Dim]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": truncated_div,
    "mod": _mod,
    "min": dmin,
    "max": dmax,
    "neg": operator.neg,
    "abs": _abs,
    "eq": _equal,
    "ne": lambda a, b: 1 - _equal(a, b),
    "ge": _at_least,
    "gt": lambda a, b: _at_least(a, b + 1),
    "le": lambda a, b: _at_least(b, a),
    "lt": lambda a, b: _at_least(b, a + 1),
    "not": lambda a: 1 - _constant(a),
    "and": lambda a, b: _constant(a) & _constant(b),
    "or": lambda a, b: _constant(a) | _constant(b),
    "where": _where,
}
_REDUCE: dict[str, Callable[[Dim, Dim], Dim]] = {
    "reduce_sum": operator.add,
    "reduce_prod": operator.mul,
    "reduce_max": dmax,
    "reduce_min": dmin,
}
_MOVE: dict[str, Callable[[Sequence[Elements], dict[str, Any]], Any]] = {
    "reshape": lambda xs, attrs: xs[0].reshape(_shape(attrs)),
    "transpose": lambda xs, attrs: xs[0].transpose(attrs["perm"]),
    "broadcast_to": lambda xs, attrs: np.broadcast_to(xs[0], _shape(attrs)),
    "concat": lambda xs, attrs: np.concatenate(xs, axis=attrs["axis"]),
    "slice": _slice,
    "gather": lambda xs, attrs: np.take(xs[0], _indices(xs[1]), axis=attrs["axis"]),
    "iota": _iota,
}
MOVES = frozenset(_MOVE) - {"iota"}
