"""Integers that hold the order of an element and its place, of which no two are equal.

Their greatest and least are where the greatest and least elements are.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .graph import Value, constant
from .types import DType

KEY_BITS = 32  # of an element's order, and of its place, which lies below that


class Emit(Protocol):
    """Appends an operator with one output, as importers and rewrites do."""

    def __call__(
        self, op: str, inputs: list[Value], attrs: dict[str, object] | None = None, /
    ) -> Value: ...


def may_be_placed(dtype: DType, size: object) -> bool:
    """Whether keys hold elements of a type and the places along an axis of a size."""
    return dtype.bits <= KEY_BITS and isinstance(size, int) and 0 < size < 1 << (KEY_BITS - 1)


def ordered(emit: Emit, x: Value, nan: int | None = None) -> Value:
    """Integers in the order of floats, both zeros being one: i64 of f64, otherwise i32.

    nan: what stands for NaN; by default what is above all numbers.
    """
    wide = x if x.dtype in (DType.F32, DType.F64) else emit("cast", [x], {"dtype": DType.F32})
    kind = DType.I64 if x.dtype is DType.F64 else DType.I32
    zero, most = _number(0, wide.dtype), _number(np.iinfo(kind.numpy).max, kind)
    plain = emit("where", [emit("eq", [wide, zero]), zero, wide])
    bits = emit("bitcast", [plain], {"dtype": kind})
    negative = emit("lt", [bits, _number(0, kind)])
    order = emit("where", [negative, emit("bitxor", [bits, most]), bits])
    invalid = most if nan is None else _number(nan, kind)
    return emit("where", [emit("isnan", [wide]), invalid, order])


def placed_keys(
    emit: Emit, x: Value, axis: int, *, backwards: bool, nan: int | None = None
) -> Value:
    """i64 in the order of the elements, and of their places along an axis where these are equal.

    x: such as `may_be_placed`. backwards: the first place is the greatest. nan: see `ordered`.
    """
    size = x.shape[axis]
    keys = emit("cast", [ordered(emit, x, nan) if x.dtype.is_float else x], {"dtype": DType.I64})
    if x.dtype is DType.U32:
        keys = emit("sub", [keys, _number(1 << (KEY_BITS - 1))])
    shape = tuple(size if place == axis else 1 for place in range(x.type.rank))
    place = emit("iota", [], {"shape": shape, "axis": axis, "dtype": DType.I64})
    if backwards:
        place = emit("sub", [_number(_known(size) - 1), place])
    return emit("bitor", [emit("shl", [keys, _number(KEY_BITS)]), place])


def order_in(emit: Emit, keys: Value) -> Value:
    """i64: what `placed_keys` wrote for elements."""
    return emit("shr", [keys, _number(KEY_BITS)])


def places_in(emit: Emit, keys: Value, size: object, *, backwards: bool) -> Value:
    """i64: the places along an axis of a size that `placed_keys` wrote, which never are beyond it,
    whatever the keys."""
    last = _number(_known(size) - 1)
    found = emit("bitand", [keys, _number((1 << KEY_BITS) - 1)])
    if backwards:
        found = emit("sub", [last, found])
    return emit("max", [emit("min", [found, last]), _number(0)])


def _known(size: object) -> int:
    assert isinstance(size, int)
    return size


def _number(value: float, dtype: DType = DType.I64) -> Value:
    return constant(np.asarray(value, dtype.numpy))
