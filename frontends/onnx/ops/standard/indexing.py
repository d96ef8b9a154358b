"""Gathers and scatters."""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import Dim
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers

Array = np.ndarray[Any, Any]
_REDUCTIONS = ("none", "add", "mul", "max", "min")


def indices_of(s: Site, value: Value) -> Value:
    """Indices as i64 or i32. Raises ValueError for another type."""
    if value.dtype not in (DType.I64, DType.I32):
        raise ValueError(f"indices are {value.dtype}")
    return value


@lowers("Gather")
def gather(s: Site) -> Value:
    x, indices = s.input(0), indices_of(s, s.input(1))
    axis = s.axis(s.integer("axis", 0), x.type.rank)
    _check_range(indices.data, x.shape[axis])
    return s.emit("gather", [x, indices], axis=axis)


def _check_range(data: Array | None, size: Dim) -> None:
    if data is None or not data.size or not isinstance(size, int):
        return
    if data.min() < -size or data.max() >= size:
        raise ValueError(f"indices {data.min()} to {data.max()} for an axis of length {size}")


def _check_tuples(indices: Value, shape: tuple[Dim, ...], batch_dims: int = 0) -> None:
    """The last axis of constant indices holds one index for each of the axes behind the batch's."""
    data = indices.data
    if data is None or not data.ndim:
        return
    for column, size in zip(np.moveaxis(data, -1, 0), shape[max(batch_dims, 0) :], strict=False):
        _check_range(column, size)


def _tuples(s: Site, indices: Value, size: int | None) -> Value:
    """Indices whose last axis, the length of the tuples, is a number: `size` where it is open.

    Raises NotSupported where neither says it: it decides a rank.
    """
    if not indices.type.rank or isinstance(indices.shape[-1], int):
        return indices
    if size is None:
        raise NotSupported(
            "the last axis of the indices decides how many dimensions the result has",
            "pin it (--shape), or declare the result's shape in the model",
        )
    return s.sized(indices, -1, size)


@lowers("GatherElements")
def gather_elements(s: Site) -> Value:
    x, indices = s.input(0), indices_of(s, s.input(1))
    axis = s.axis(s.integer("axis", 0), x.type.rank)
    _check_range(indices.data, x.shape[axis])
    return s.emit("gather_elements", [x, indices], axis=axis)


@lowers("GatherND")
@lowers("GatherND", domain=MICROSOFT)
def gather_nd(s: Site) -> Value:
    x, indices = s.input(0), indices_of(s, s.input(1))
    batch_dims, declared = s.integer("batch_dims", 0), s.declared_rank()
    whole = x.type.rank + indices.type.rank - 1 - batch_dims
    indices = _tuples(s, indices, None if declared is None else whole - declared)
    _check_tuples(indices, x.shape, batch_dims)
    return s.emit("gather_nd", [x, indices], batch_dims=batch_dims)


def _reduction(s: Site) -> str:
    name = s.text("reduction", "none")
    if name not in _REDUCTIONS:
        raise ValueError(f"reduction '{name}' does not exist")
    return name


@lowers("ScatterElements", "Scatter")
def scatter_elements(s: Site) -> Value:
    x, indices, updates = s.input(0), indices_of(s, s.input(1)), s.input(2)
    axis = s.axis(s.integer("axis", 0), x.type.rank)
    _check_range(indices.data, x.shape[axis])
    return s.emit("scatter_elements", [x, indices, updates], axis=axis, reduction=_reduction(s))


@lowers("ScatterND")
def scatter_nd(s: Site) -> Value:
    x, indices, updates = s.input(0), indices_of(s, s.input(1)), s.input(2)
    indices = _tuples(s, indices, x.type.rank + indices.type.rank - 1 - updates.type.rank)
    _check_tuples(indices, x.shape)
    return s.emit("scatter_nd", [x, indices, updates], reduction=_reduction(s))


@lowers("TensorScatter")
def tensor_scatter(s: Site) -> Value:
    """Write `update` into a cache at per-batch positions along an axis (opset 24)."""
    past, update, start = s.input(0), s.input(1), s.optional(2)
    rank = past.type.rank
    axis = s.axis(s.integer("axis", -2), rank)
    if axis == 0:
        raise ValueError("axis 0 is the batch")
    shape = update.shape
    place = s.iota([shape[axis] if a == axis else 1 for a in range(rank)], axis, DType.I64)
    if start is not None:
        s.require_nonzero(s.op_("ge", start, 0), "a position is negative")
        lead = [past.shape[0] if a == 0 else 1 for a in range(rank)]
        place = s.op_("add", place, s.reshape(start, lead))
    if s.text("mode", "linear") == "circular":
        place = s.op_("mod", place, s.reshape(s.emitter.virtual([past.shape[axis]]), ()))
    return s.emit(
        "scatter_elements", [past, s.expand(place, shape), update], axis=axis, reduction="none"
    )
