"""Powers of vectors of f32, by logarithms and powers of two in f64."""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from .builder import F32, F64, I32, I64, Emitter, intrinsic_suffix, shaped
from .formats import LEAST_NORMAL, MAGIC, MANTISSA_BITS
from .polynomial import polynomial
from .rare_lanes import with_rare_lanes

SQRT_HALF_BITS = 0x3F3504F3
MOST_EXPONENT = 126.0  # of results that are normal numbers for sure
# log2 m = z times this in z^2, z = (m - 1) / (m + 1): to 2^-39 for m within a factor of sqrt 2 of 1
LOGARITHM = tuple(2 / (math.log(2) * (2 * k + 1)) for k in range(6, -1, -1))
# 2^f, |f| <= 1/2: to 2^-27
EXPONENTIAL = tuple(math.log(2) ** k / math.factorial(k) for k in range(7, -1, -1))


def power(e: Emitter, x: ir.Value, y: ir.Value, slow: Callable[[], ir.Value]) -> ir.Value:
    """x to the power of y where x is zero or a positive normal number, and so is the result.

    slow: libm's of all lanes, which the others take.
    """
    kind = shaped(F64, x)
    exponent = e.b.fmul(e.b.fpext(y, kind), _logarithm(e, x))
    biased = e.b.fadd(exponent, e.constant(MAGIC[F64], kind))
    whole = e.b.fsub(biased, e.constant(MAGIC[F64], kind))
    mantissa = polynomial(e, e.b.fsub(exponent, whole), EXPONENTIAL)
    integers = shaped(I64, x)
    shift = e.b.shl(e.b.bitcast(biased, integers), e.constant(MANTISSA_BITS[F64], integers))
    scaled = e.b.bitcast(e.b.add(e.b.bitcast(mantissa, integers), shift), kind)
    fast = e.b.fptrunc(scaled, x.type)
    size = e.call(f"llvm.fabs.{intrinsic_suffix(kind)}", kind, [exponent])
    usual = e.b.fcmp_ordered("<", size, e.constant(MOST_EXPONENT, kind))
    infinity, nothing = (e.constant(value, x.type) for value in (float("inf"), 0.0))
    usual = e.b.and_(usual, e.b.fcmp_ordered(">=", x, e.constant(LEAST_NORMAL[F32], x.type)))
    usual = e.b.and_(usual, e.b.fcmp_ordered("<", x, infinity))
    bits = e.b.bitcast(x, shaped(I32, x))
    zero = e.b.icmp_unsigned("==", bits, e.constant(0, bits.type))
    zero = e.b.and_(zero, e.b.fcmp_ordered(">", y, nothing))
    fast = e.b.select(zero, nothing, fast)
    return with_rare_lanes(e, fast, e.b.not_(e.b.or_(usual, zero)), slow)


def _logarithm(e: Emitter, x: ir.Value) -> ir.Value:
    """log2 of positive normal numbers, f64."""
    kind, integers = shaped(F64, x), shaped(I32, x)
    bits = e.b.bitcast(x, integers)
    shifted = e.b.sub(bits, e.constant(SQRT_HALF_BITS, integers))
    exponent = e.b.ashr(shifted, e.constant(MANTISSA_BITS[F32], integers))
    rest = e.b.sub(bits, e.b.shl(exponent, e.constant(MANTISSA_BITS[F32], integers)))
    m = e.b.fpext(e.b.bitcast(rest, x.type), kind)
    one = e.constant(1.0, kind)
    z = e.b.fdiv(e.b.fsub(m, one), e.b.fadd(m, one))
    series = polynomial(e, e.b.fmul(z, z), LOGARITHM)
    return e.fma(z, series, e.b.sitofp(exponent, kind))
