"""Reductions along axes. Floats are accumulated in f64 and rounded once; integers wrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..assumptions import assume_at_most
from ..dims import Dim, Sym, dmin, product
from ..graph import Value
from ..types import DType, TensorType
from .common import ANY, NUMBERS, accurate, like, need_axis, need_dtype, widen
from .registry import EXACT, REQUIRED, Array, OpDef, Trait, register


def reduced_shape(shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[Dim, ...]:
    """The shape after reducing `axes`, which stay as 1 when `keepdims`."""
    if keepdims:
        return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in axes)


def _lowest(dtype: np.dtype[Any]) -> Any:
    kind = DType.of(dtype)
    if kind is DType.BOOL:
        return False
    return -np.inf if kind.is_float else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    kind = DType.of(dtype)
    if kind is DType.BOOL:
        return True
    return np.inf if kind.is_float else np.iinfo(dtype).max


def _sum(x: Array, **where: Any) -> Array:
    return np.asarray(np.sum(x, dtype=x.dtype, **where))


def _prod(x: Array, **where: Any) -> Array:
    return np.asarray(np.prod(x, dtype=x.dtype, **where))


def _max(x: Array, **where: Any) -> Array:
    return np.asarray(np.max(x, initial=_lowest(x.dtype), **where))


def _min(x: Array, **where: Any) -> Array:
    return np.asarray(np.min(x, initial=_highest(x.dtype), **where))


def _mean(x: Array, **where: Any) -> Array:
    """Of no elements it is 0, as in ONNX Runtime."""
    real = DType.of(x.dtype).is_float
    total = np.asarray(np.sum(x, dtype=x.dtype if real else np.int64, **where))
    count = max(x.size // max(total.size, 1), 1)
    return np.asarray(total / count if real else np.sign(total) * (np.abs(total) // count))


def _reduction(name: str, fn: Callable[..., Array], allowed: frozenset[DType]) -> None:
    def infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
        x = inputs[0]
        need_dtype(x, allowed, f"the operand of '{name}'")
        axes = attrs["axes"]
        for axis in axes:
            need_axis(axis, x.type.rank)
        if len(set(axes)) != len(axes):
            raise ValueError(f"axes {axes} has an axis twice")
        return [TensorType(x.dtype, reduced_shape(x.shape, axes, attrs["keepdims"]))]

    def evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
        x = args[0]
        with np.errstate(all="ignore"):
            out = fn(accurate(x), axis=attrs["axes"], keepdims=attrs["keepdims"])
            return [out.astype(x.dtype, copy=False)]

    attrs = {"axes": REQUIRED, "keepdims": False, **EXACT}
    register(OpDef(name, infer, evaluate, Trait.REDUCTION, attrs, arity=(1, 1)))


def _infer_arg(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    need_dtype(x, NUMBERS, "the operand")
    axis = need_axis(attrs["axis"], x.type.rank)
    size = x.shape[axis]
    rows = product(dim for other, dim in enumerate(x.shape) if other != axis)
    if size == 0 and isinstance(rows, int) and rows:
        raise ValueError(f"axis {axis} is empty")
    if isinstance(size, Sym) or size == 0:
        assume_at_most(dmin(rows, 1), size)
    return [TensorType(DType.I64, reduced_shape(x.shape, (axis,), attrs["keepdims"]))]


def _arg(name: str, best: np.ufunc) -> None:
    """Where the best element along an axis is. NaN are passed over; 0 where there is no other."""

    def evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
        x, axis = widen(args[0]), attrs["axis"]
        if not x.shape[axis]:
            shape = reduced_shape(x.shape, (axis,), attrs["keepdims"])
            if 0 not in np.delete(x.shape, axis):
                raise RunError(f"axis {axis} is empty")
            return [np.zeros(shape, np.int64)]
        hit = x == best.reduce(x, axis=axis, keepdims=True)
        if attrs["select_last"]:
            last = x.shape[axis] - 1 - np.flip(hit, axis).argmax(axis)
            found = np.where(hit.any(axis), last, 0)
        else:
            found = hit.argmax(axis)
        found = np.asarray(found, dtype=np.int64)
        return [np.expand_dims(found, axis) if attrs["keepdims"] else found]

    attrs = {"axis": REQUIRED, "keepdims": False, "select_last": False}
    traits = Trait.REDUCTION | Trait.PLACE | Trait.DISCRETE
    register(OpDef(name, _infer_arg, evaluate, traits, attrs, arity=(1, 1)))


def _infer_cumulative(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], NUMBERS, "the operand")
    need_axis(attrs["axis"], inputs[0].type.rank)
    return like(inputs[0])


def _cumulative(name: str, fn: Callable[..., Array], neutral: int) -> None:
    def evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
        axis = attrs["axis"]
        x = np.moveaxis(args[0], axis, 0)
        if attrs["reverse"]:
            x = x[::-1]
        wide = accurate(x)
        total = fn(wide, axis=0, dtype=wide.dtype)
        if attrs["exclusive"]:
            total = np.concatenate([np.full_like(total[:1], neutral), total[:-1]])
        if attrs["reverse"]:
            total = total[::-1]
        return [np.asarray(np.moveaxis(total, 0, axis).astype(args[0].dtype), order="C")]

    attrs = {"axis": REQUIRED, "exclusive": False, "reverse": False}
    register(OpDef(name, _infer_cumulative, evaluate, Trait.CUMULATIVE, attrs, arity=(1, 1)))
    # the same by a function of the runtime
    register(OpDef(f"{name}_long", _infer_cumulative, evaluate, attrs=attrs, arity=(1, 1)))


_reduction("reduce_sum", _sum, NUMBERS)
_reduction("reduce_prod", _prod, NUMBERS)
_reduction("reduce_max", _max, ANY)
_reduction("reduce_min", _min, ANY)
_reduction("reduce_mean", _mean, NUMBERS)
_arg("argmax", np.fmax)
_arg("argmin", np.fmin)
_cumulative("cumsum", np.cumsum, 0)
_cumulative("cumprod", np.cumprod, 1)
