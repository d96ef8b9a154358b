"""Conversion between element types."""

from __future__ import annotations

import ml_dtypes
from onnx import TensorProto

from .....compiler.ir import DType, Value
from ...containers import Content, Text
from ...reading.tensors import dtype_of
from ...site import Site
from ...table import lowers
from .text_numbers import read, written

_FEW_BITS = frozenset({DType.I4, DType.U4, DType.I2, DType.U2})
_NARROW_FLOATS = frozenset(d for d in DType if d.is_narrow and d.value.startswith("f"))
_ROUND_MODES = ("up", "down", "nearest")


def convert(s: Site, x: Value, dtype: DType, saturate: bool = True, rounding: str = "up") -> Value:
    """x with another element type, as Cast defines it.

    saturate: numbers too large for an 8-bit float become its largest, else infinity or NaN.
    rounding: of f8e8m0fnu.
    """
    if dtype is DType.F8E8M0FNU:
        return _exponent(s, s.cast(x, DType.F32), saturate, rounding)
    if saturate and dtype.is_narrow and dtype.value.startswith("f8"):
        largest = float(ml_dtypes.finfo(dtype.numpy).max)
        wide = s.cast(x, DType.F32)
        x = s.op_("max", s.op_("min", wide, largest), -largest)
    if dtype in _FEW_BITS and (x.dtype.is_float or x.dtype in _NARROW_FLOATS):
        x = _to_nearest(s, s.cast(x, DType.F32) if x.dtype.is_narrow else x)
    return s.cast(x, dtype)


def _to_nearest(s: Site, x: Value) -> Value:
    """Whole numbers, halves away from 0: how ONNX Runtime makes integers of few bits of floats. The
    standard leaves the rounding open."""
    size = s.op_("abs", x)
    whole = s.op_("floor", size)
    up = s.op_("ge", s.op_("sub", size, whole), 0.5)
    whole = s.op_("add", whole, s.cast(up, x.dtype))
    return s.op_("where", s.op_("lt", x, 0.0), s.op_("neg", whole), whole)


def _exponent(s: Site, x: Value, saturate: bool, rounding: str) -> Value:
    """The power of two that a number is rounded to, as the 8 bits of its exponent.

    The sign is dropped; infinity and NaN are NaN (255), as is what rounds up to 2**128, unless
    `saturate` makes that the largest, 2**127.
    """
    if rounding not in _ROUND_MODES:
        raise ValueError(f"round_mode '{rounding}' is not one of {' '.join(_ROUND_MODES)}")
    size = s.op_("abs", x)
    bits = s.emit("bitcast", [size], dtype=DType.U32)
    exponent = s.op_("shr", bits, 23)
    fraction = s.op_("bitand", bits, 0x7FFFFF)
    if rounding == "up":
        more = s.op_("ne", fraction, 0)
    elif rounding == "nearest":
        more = s.op_("and", s.op_("ge", fraction, 0x400000), s.op_("gt", size, 2.0**-127))
    else:
        more = s.op_("lt", fraction, 0)
    rounded = s.op_("add", exponent, s.cast(more, DType.U32))
    rounded = s.op_("min", rounded, 254 if saturate else 255)
    exponent = s.op_("where", s.op_("eq", exponent, 255), exponent, rounded)
    return s.emit("bitcast", [s.cast(exponent, DType.U8)], dtype=DType.F8E8M0FNU)


@lowers("Cast")
def cast(s: Site) -> Content:
    early = s.opset < 6
    code = TensorProto.DataType.Value(s.text("to")) if early else s.integer("to")
    entry = s.entries[0]
    if code == TensorProto.STRING:
        return entry if isinstance(entry, Text) else written(s, s.input(0))
    if isinstance(entry, Text):
        return read(s, entry, dtype_of(code))
    if early:
        return s.cast(s.input(0), dtype_of(code))
    saturate = bool(s.integer("saturate", 1))
    return convert(s, s.input(0), s.dtype("to"), saturate, s.text("round_mode", "up"))


@lowers("CastLike")
def cast_like(s: Site) -> Content:
    entry, like = s.entries[:2]
    if isinstance(like, Text):
        return entry if isinstance(entry, Text) else written(s, s.input(0))
    if isinstance(entry, Text):
        return read(s, entry, s.input(1).dtype)
    saturate = bool(s.integer("saturate", 1))
    return convert(s, s.input(0), s.input(1).dtype, saturate, s.text("round_mode", "up"))


@lowers("BitCast")
def bit_cast(s: Site) -> Value:
    x, dtype = s.input(0), s.dtype("to")
    if x.dtype is DType.BOOL:
        x = s.cast(x, DType.U8)
    if dtype is DType.BOOL:
        return s.cast(s.emit("bitcast", [x], dtype=DType.U8), DType.BOOL)
    return s.emit("bitcast", [x], dtype=dtype)
