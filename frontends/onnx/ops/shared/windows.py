"""Products along one axis with matrices whose rows are zero but for a short window: filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import product
from ...site import Site

Array = NDArray[Any]
MOST_SHARE = 0.25  # of a row, up to which its window alone is read


def windows_of(matrix: Array) -> tuple[Array, Array] | None:
    """Where the window of each row of a matrix [rows, columns] begins, i64[rows], and its elements,
    [rows, width]; None where windows are not much shorter than rows."""
    columns = matrix.shape[1]
    live = matrix != 0
    if not live.size:
        return None
    begin = np.where(live.any(axis=1), live.argmax(axis=1), 0)
    end = np.where(live.any(axis=1), columns - live[:, ::-1].argmax(axis=1), 1)
    width = int((end - begin).max())
    if width > MOST_SHARE * columns:
        return None
    first = np.minimum(begin, columns - width).astype(np.int64)
    inside = np.take_along_axis(matrix, first[:, None] + np.arange(width), axis=1)
    return first, np.ascontiguousarray(inside)


def along_axis(s: Site, matrix: Value, x: Value, axis: int) -> Value:
    """The product of a matrix [out, size] with an axis of x of that size."""
    out, size = matrix.shape
    last = axis == x.type.rank - 1
    windows = None if matrix.data is None or x.type.rank == 1 else windows_of(matrix.data)
    if windows is not None and not (last and x.dtype is DType.F32):  # there, blocks of zeros go
        return _by_windows(s, *windows, x, axis)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    if last:
        flat = s.reshape(x, (product(before), size))
        made = s.emit("matmul", [flat, s.transpose(matrix, (1, 0))])
    else:
        flat = s.reshape(x, (product(before), size, product(after)))
        made = s.emit("matmul", [matrix, flat])
    return s.reshape(made, (*before, out, *after))


def _by_windows(s: Site, first: Array, weights: Array, x: Value, axis: int) -> Value:
    """The same, by what `windows_of` gives, with lanes along another axis than that."""
    rank = x.type.rank
    order = list(range(rank))
    if axis == rank - 1:
        order[-2:] = rank - 1, rank - 2
    x = s.transpose(x, order)
    axis = order.index(axis)
    places = first[:, None] + np.arange(weights.shape[1])
    taps = s.emit("gather", [x, constant(places)], axis=axis, within=True)
    factors = weights.reshape(*weights.shape, *(1,) * (rank - 1 - axis))
    made = s.reduce("sum", s.op_("mul", taps, constant(factors)), [axis + 1], False)
    return s.transpose(made, order)


def row_sums(s: Site, weights: Value) -> Value:
    """Sums of rows, f32[rows, 1]. Constant ones are added one after the other, as ONNX Runtime
    does: their last bit decides between two integers where weights are of fixed point."""
    if weights.data is None or 0 in weights.shape:
        return s.reduce("sum", weights, [1])
    return constant(np.cumsum(weights.data, axis=1, dtype=np.float32)[:, -1:])
