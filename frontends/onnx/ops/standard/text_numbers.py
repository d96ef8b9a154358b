"""Numbers written as text and read from it, as ONNX Runtime does: with the functions of C.

What follows a number is passed over; a text that begins with none ends the run.
"""

from __future__ import annotations

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.ops.text_numbers import FLOATS
from ...containers import Text
from ...site import NotSupported, Site

DIGITS = 20  # of the largest u64
DIGITS_OF_FLOATS = 8  # that ONNX Runtime writes (core/providers/cpu/tensor/cast_op.cc)


def written(s: Site, x: Value) -> Text:
    """The decimal digits of integers, `-` before negative ones; 1 and 0 for bool; floats as `%g`
    writes them, NaN, INF and -INF."""
    if x.dtype in FLOATS:
        return Text(s.emit("write_floats", [x], digits=DIGITS_OF_FLOATS))
    if not (x.dtype.is_integer or x.dtype is DType.BOOL) or x.dtype.is_narrow:
        raise NotSupported(f"{x.dtype} is not written as text", "cast it to f32 first")
    wide = s.reshape(x, (*x.shape, 1))
    bits = s.cast(s.cast(wide, DType.I64) if x.dtype.is_signed else wide, DType.U64)
    never = s.scalar(False, DType.BOOL)
    negative = s.op_("lt", wide, 0) if x.dtype.is_signed else s.expand(never, wide.shape)
    size = s.op_("where", negative, s.op_("sub", s.scalar(0, DType.U64), bits), bits)
    powers = np.array([10**n for n in range(DIGITS)], np.uint64)
    count = s.op_("ge", size, constant(powers[1:]))
    axis = [x.type.rank]
    count = s.op_("add", s.reduce("sum", s.cast(count, DType.I64), axis), 1)
    place = s.iota((*(1,) * x.type.rank, DIGITS), x.type.rank, DType.I64)
    place = s.op_("sub", place, s.cast(negative, DType.I64))
    power = s.op_("sub", s.op_("sub", count, 1), place)
    clamped = s.op_("max", s.op_("min", power, DIGITS - 1), 0)
    divisor = s.emit("gather", [constant(powers), clamped], axis=0)
    digit = s.op_("add", s.op_("mod", s.op_("div", size, divisor), 10), ord("0"))
    byte = s.op_("where", s.op_("lt", place, 0), s.scalar(ord("-"), DType.U64), digit)
    byte = s.op_("where", s.op_("lt", power, 0), s.scalar(0, DType.U64), byte)
    return Text(s.cast(byte, DType.U8))


def read(s: Site, text: Text, dtype: DType) -> Value:
    """The numbers that strings begin with, after spaces; floats are rounded to f64, then to f32,
    then to halves."""
    if not (dtype.is_integer or dtype.is_float or dtype is DType.BOOL) or dtype.is_narrow:
        raise NotSupported(f"text is not read as {dtype}", "read it as float, and convert that")
    read_as = DType.F64
    if not dtype.is_float:
        read_as = DType.I64 if dtype.is_signed or dtype is DType.BOOL else DType.U64
    why = f"a text begins with no number, or with one beyond what {read_as} holds"
    found = s.emit("read_numbers", [text.data], dtype=read_as, what=s.needs(why))
    return s.cast(s.cast(found, DType.F32) if dtype.bits < 32 and dtype.is_float else found, dtype)
