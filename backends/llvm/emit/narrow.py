"""Conversion of 8-, 4- and 2-bit elements, which lie one to a byte, in integer arithmetic.

Formats: OCP 8-bit floating point (OFP8) 1.0, OCP microscaling formats (MX) 1.0, and for the "fnuz"
kinds Noune et al., "8-bit numerical formats for deep neural networks". Rounding is to nearest, ties
to even; what is too large becomes the format's infinity, NaN or, where it has neither, its largest
number.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ....compiler.ir.types import DType
from .builder import F32, I8, I32, Emitter, shaped


@dataclass(frozen=True)
class _Format:
    """mantissa: its bits. limit: largest finite code. over, nan: what overflow and NaN become.

    infinity: code of infinity, if there is one. sign: the sign bit.
    """

    mantissa: int
    bias: int
    limit: int
    over: int
    nan: int
    infinity: int | None = None
    sign: int = 0x80

    @property
    def unsigned_zero(self) -> bool:
        """Whether the code of -0 is NaN instead."""
        return self.nan == self.sign


_FLOATS = {
    DType.F8E4M3FN: _Format(3, 7, 0x7E, 0x7F, 0x7F),
    DType.F8E4M3FNUZ: _Format(3, 8, 0x7F, 0x80, 0x80),
    DType.F8E5M2: _Format(2, 15, 0x7B, 0x7C, 0x7E, infinity=0x7C),
    DType.F8E5M2FNUZ: _Format(2, 16, 0x7F, 0x80, 0x80),
    DType.F4E2M1FN: _Format(1, 1, 0x7, 0x7, 0x0, sign=0x8),
}
_INTEGERS = {DType.I4: (4, True), DType.U4: (4, False), DType.I2: (2, True), DType.U2: (2, False)}


def carrier(dtype: DType) -> DType:
    """The type that holds every value of a narrow one, and that conversions go through."""
    return DType.I8 if dtype in _INTEGERS else DType.F32


def widened(e: Emitter, x: ir.Value, dtype: DType) -> ir.Value:
    """Elements of a narrow type in their carrier type."""
    if dtype in _INTEGERS:
        bits, signed = _INTEGERS[dtype]
        unused = e.constant(8 - bits, x.type)
        return (e.b.ashr if signed else e.b.lshr)(e.b.shl(x, unused), unused)
    integers, floats = shaped(I32, x), shaped(F32, x)
    code = e.b.zext(x, integers)

    def const(value: int) -> ir.Constant:
        return e.constant(value, integers)

    def equals(value: int) -> ir.Value:
        return e.b.icmp_unsigned("==", code, const(value))

    nan = e.constant(float("nan"), floats)
    if dtype is DType.F8E8M0FNU:
        bits = e.b.select(equals(0), const(1 << 22), e.b.shl(code, const(23)))
        return e.b.select(equals(255), nan, e.b.bitcast(bits, floats))
    form = _FLOATS[dtype]
    size = e.b.and_(code, const(form.sign - 1))
    rebiased = e.b.add(size, const((127 - form.bias) << form.mantissa))
    normal = e.b.bitcast(e.b.shl(rebiased, const(23 - form.mantissa)), floats)
    unit = e.constant(2.0 ** (1 - form.bias - form.mantissa), floats)
    subnormal = e.b.fmul(e.b.uitofp(size, floats), unit)
    tiny = e.b.icmp_unsigned("<", size, const(1 << form.mantissa))
    value = e.b.select(tiny, subnormal, normal)
    if form.infinity is not None:
        above = e.b.icmp_unsigned(">=", size, const(form.infinity))
        infinite = e.b.icmp_unsigned("==", size, const(form.infinity))
        value = e.b.select(above, nan, value)
        value = e.b.select(infinite, e.constant(float("inf"), floats), value)
    negative = e.b.icmp_unsigned("!=", e.b.and_(code, const(form.sign)), const(0))
    value = e.b.select(negative, e.b.fneg(value), value)
    if form.infinity is None and form.nan:
        code = e.b.and_(code, const(form.nan)) if form.nan == 0x7F else code
        value = e.b.select(equals(form.nan), nan, value)
    return value


def narrowed(e: Emitter, x: ir.Value, dtype: DType) -> ir.Value:
    """Elements of the carrier type as a narrow one."""
    if dtype in _INTEGERS:
        return e.b.and_(x, e.constant((1 << _INTEGERS[dtype][0]) - 1, x.type))
    integers, octets = shaped(I32, x), shaped(I8, x)

    def const(value: int) -> ir.Constant:
        return e.constant(value, integers)

    bits = e.b.bitcast(x, integers)
    size = e.b.and_(bits, const(0x7FFFFFFF))
    unordered = e.b.fcmp_unordered("uno", x, x)
    if dtype is DType.F8E8M0FNU:
        half_up = e.b.lshr(e.b.add(bits, const(1 << 22)), const(23))
        bad = e.b.or_(unordered, e.b.icmp_unsigned(">", half_up, const(254)))
        return e.b.trunc(e.b.select(bad, const(255), half_up), octets)
    form = _FLOATS[dtype]
    dropped = 23 - form.mantissa
    even = e.b.and_(e.b.lshr(size, const(dropped)), const(1))
    rounded = e.b.add(size, e.b.add(even, const((1 << (dropped - 1)) - 1)))
    normal = e.b.sub(e.b.lshr(rounded, const(dropped)), const((127 - form.bias) << form.mantissa))
    # below the smallest normal number the sum with this one has the unit of the subnormals
    magic = e.constant(2.0 ** (1 - form.bias - form.mantissa + 23), x.type)
    sum_bits = e.b.bitcast(e.b.fadd(e.b.bitcast(size, x.type), magic), integers)
    subnormal = e.b.sub(sum_bits, e.b.bitcast(magic, integers))
    tiny = e.b.icmp_unsigned("<", size, const((128 - form.bias) << 23))
    code = e.b.select(tiny, subnormal, normal)
    over = e.b.icmp_signed(">", code, const(form.limit))
    sign = e.b.and_(e.b.lshr(bits, const(31)), const(1))
    sign = e.b.mul(sign, const(form.sign))
    signed = e.b.or_(e.b.select(over, const(form.over), code), sign)
    if form.unsigned_zero:
        signed = e.b.select(e.b.icmp_unsigned("==", code, const(0)), const(0), signed)
        signed = e.b.select(over, const(form.over), signed)
    return e.b.trunc(e.b.select(unordered, const(form.nan), signed), octets)
