"""Gathers and scatters. Indices are i64 or i32, may be negative, and are checked at run time.

within: of a gather, whether its indices are known to be in range, and none to be negative: they
are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..assumptions import assume_at_most
from ..graph import Value
from ..types import DType, TensorType
from .common import INDICES, like, need_axis, need_dtype, same_dtype, unify, widen
from .registry import REQUIRED, Array, OpDef, Trait, register

REDUCTIONS = ("none", "add", "mul", "max", "min")


def _checked(indices: Array, size: int, what: str) -> Array:
    """Indices into `size` elements, all made non-negative. Raises RunError when out of range."""
    wrong = (indices < -size) | (indices >= size)
    if wrong.any():
        raise RunError(f"index {indices[wrong].flat[0]} is out of range for {what} of size {size}")
    return np.where(indices < 0, indices + size, indices).astype(np.int64)


def _infer_gather(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, indices = inputs
    need_dtype(indices, INDICES, "the indices")
    axis = need_axis(attrs["axis"], x.type.rank)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return [TensorType(x.dtype, shape)]


def _gather(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    axis = attrs["axis"]
    indices = _checked(args[1], args[0].shape[axis], f"axis {axis}")
    return [np.asarray(np.take(args[0], indices, axis=axis), order="C")]


def _check_elements(x: Value, indices: Value, axis: int) -> None:
    need_dtype(indices, INDICES, "the indices")
    need_axis(axis, x.type.rank)
    if indices.type.rank != x.type.rank:
        raise ValueError(f"indices have rank {indices.type.rank}, not {x.type.rank}")
    for i, (dim, size) in enumerate(zip(indices.shape, x.shape, strict=True)):
        if i != axis and isinstance(dim, int) and isinstance(size, int) and dim > size:
            raise ValueError(f"indices reach to {dim} along axis {i} of size {size}")
        if i != axis:
            assume_at_most(dim, size)


def _infer_gather_elements(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, indices = inputs
    _check_elements(x, indices, attrs["axis"])
    return [TensorType(x.dtype, indices.shape)]


def _positions(indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    """One index array per axis: the element's own position, but `indices` along `axis`."""
    grid: list[Array] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = _checked(indices, size, f"axis {axis}")
    return tuple(grid)


def _gather_elements(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, axis = args[0], attrs["axis"]
    return [np.asarray(x[_positions(args[1], axis, x.shape[axis])], order="C")]


def _infer_gather_nd(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, indices = inputs
    need_dtype(indices, INDICES, "the indices")
    batch = attrs["batch_dims"]
    if indices.type.rank < 1 or not isinstance(indices.shape[-1], int):
        raise ValueError(f"the last axis of the indices, {indices.type}, must be a number")
    if not 0 <= batch < min(x.type.rank, indices.type.rank):
        raise ValueError(f"batch_dims {batch} is not below the ranks of both inputs")
    depth = indices.shape[-1]
    if depth < 1 or depth + batch > x.type.rank:
        raise ValueError(f"{depth} indices and {batch} batch axes for rank {x.type.rank}")
    for a, b in zip(x.shape[:batch], indices.shape[:batch], strict=True):
        unify(a, b, "batch dimensions differ")
    return [TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch + depth :]))]


def _gather_nd(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, indices, batch = args[0], args[1], attrs["batch_dims"]
    grid: list[Array] = list(np.indices(indices.shape[:-1], sparse=True)[:batch])
    for i in range(indices.shape[-1]):
        grid.append(_checked(indices[..., i], x.shape[batch + i], f"axis {batch + i}"))
    return [np.asarray(x[tuple(grid)], order="C")]


def _need_reduction(attrs: dict[str, Any]) -> None:
    if attrs["reduction"] not in REDUCTIONS:
        raise ValueError(f"reduction '{attrs['reduction']}' is not one of {' '.join(REDUCTIONS)}")


def _infer_scatter_elements(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, indices, updates = inputs
    same_dtype([x, updates])
    _need_reduction(attrs)
    _check_elements(x, indices, attrs["axis"])
    if updates.type.rank != indices.type.rank:
        raise ValueError(f"updates have rank {updates.type.rank}, not {indices.type.rank}")
    for a, b in zip(indices.shape, updates.shape, strict=True):
        unify(a, b, "indices and updates differ")
    return like(x)


def _infer_scatter_nd(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, indices, updates = inputs
    same_dtype([x, updates])
    need_dtype(indices, INDICES, "the indices")
    _need_reduction(attrs)
    if indices.type.rank < 1 or not isinstance(indices.shape[-1], int):
        raise ValueError(f"the last axis of the indices, {indices.type}, must be a number")
    depth = indices.shape[-1]
    if not 1 <= depth <= x.type.rank:
        raise ValueError(f"{depth} indices for rank {x.type.rank}")
    wanted = (*indices.shape[:-1], *x.shape[depth:])
    if updates.type.rank != len(wanted):
        raise ValueError(f"updates have rank {updates.type.rank}, not {len(wanted)}")
    for a, b in zip(wanted, updates.shape, strict=True):
        unify(a, b, "the shape of the updates does not fit")
    return like(x)


def _accumulate(x: Array, where: tuple[Array, ...], updates: Array, reduction: str) -> list[Array]:
    """Scatter in row-major order of the updates; of equal indices the last one wins."""
    out = widen(x).copy()
    if reduction == "none":
        out[where] = widen(updates)
        return [out.astype(x.dtype, copy=False)]
    if DType.of(x.dtype) is DType.BOOL:
        functions: dict[str, Any] = {"add": np.logical_or, "mul": np.logical_and}
    else:
        functions = {"add": np.add, "mul": np.multiply}
    table: dict[str, Any] = {**functions, "max": np.maximum, "min": np.minimum}
    with np.errstate(all="ignore"):
        table[reduction].at(out, where, widen(updates))
    return [out.astype(x.dtype, copy=False)]


def _scatter_elements(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, indices, updates = args
    where = _positions(indices, attrs["axis"], x.shape[attrs["axis"]])
    return _accumulate(x, where, updates, attrs["reduction"])


def _scatter_nd(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, indices, updates = args
    where = tuple(
        _checked(indices[..., i], x.shape[i], f"axis {i}") for i in range(indices.shape[-1])
    )
    return _accumulate(x, where, updates, attrs["reduction"])


def _register_all() -> None:
    gather: list[tuple[str, Callable[..., Any], Callable[..., Any], dict[str, Any]]] = [
        ("gather", _infer_gather, _gather, {"axis": REQUIRED, "within": False}),
        ("gather_elements", _infer_gather_elements, _gather_elements, {"axis": REQUIRED}),
        ("gather_nd", _infer_gather_nd, _gather_nd, {"batch_dims": 0}),
    ]
    for name, infer, evaluate, attrs in gather:
        register(OpDef(name, infer, evaluate, Trait.INDEXED | Trait.LOOKUP, attrs, arity=(2, 2)))
    attrs = {"axis": REQUIRED, "reduction": "none"}
    register(
        OpDef(
            "scatter_elements",
            _infer_scatter_elements,
            _scatter_elements,
            Trait.INDEXED,
            attrs,
            arity=(3, 3),
        )
    )
    attrs = {"reduction": "none"}
    kind = Trait.INDEXED
    register(OpDef("scatter_nd", _infer_scatter_nd, _scatter_nd, kind, attrs, arity=(3, 3)))


_register_all()
