"""Functions of vectors of f64."""

from __future__ import annotations

from llvmlite import ir

from .builder import F64, I64, Emitter, intrinsic_suffix, shaped
from .formats import MAGIC, MANTISSA_BITS
from .polynomial import polynomial

LOG2_E = float.fromhex("0x1.71547652b82fep0")
LN2_HIGH, LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6
# of Cephes' exp.c and tanh.c, highest power first
EXP_ODD = (1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
EXP_EVEN = (
    3.00198505138664455042e-6,
    2.52448340349684104192e-3,
    2.27265548208155028766e-1,
    2.0,
)
TANH_ABOVE = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_BELOW = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)
SMALL = 0.625  # up to here tanh is a rational function
SATURATED = 22.0  # from here on it is 1


def _normal_exp(e: Emitter, x: ir.Value) -> ir.Value:
    """exp where the result is a normal number."""
    kind, integers = x.type, shaped(I64, x)
    biased = e.fma(x, e.constant(LOG2_E, kind), e.constant(MAGIC[F64], kind))
    n = e.b.fsub(biased, e.constant(MAGIC[F64], kind))
    r = e.fma(n, e.constant(-LN2_LOW, kind), e.fma(n, e.constant(-LN2_HIGH, kind), x))
    square = e.b.fmul(r, r)
    odd = e.b.fmul(r, polynomial(e, square, EXP_ODD))
    part = e.b.fdiv(odd, e.b.fsub(polynomial(e, square, EXP_EVEN), odd))
    mantissa = e.fma(part, e.constant(2.0, kind), e.constant(1.0, kind))
    exponent = e.b.shl(e.b.bitcast(biased, integers), e.constant(MANTISSA_BITS[F64], integers))
    return e.b.bitcast(e.b.add(e.b.bitcast(mantissa, integers), exponent), kind)


def tanh(e: Emitter, x: ir.Value) -> ir.Value:
    """tanh, to two units in the last place."""
    kind, suffix = x.type, intrinsic_suffix(x.type)

    def const(value: float) -> ir.Constant:
        return e.constant(value, kind)

    size = e.call(f"llvm.fabs.{suffix}", kind, [x])
    square = e.b.fmul(x, x)
    ratio = e.b.fdiv(polynomial(e, square, TANH_ABOVE), polynomial(e, square, TANH_BELOW))
    small = e.fma(e.b.fmul(x, square), ratio, x)
    bounded = e.b.select(e.b.fcmp_ordered(">", size, const(SATURATED)), const(SATURATED), size)
    raised = _normal_exp(e, e.b.fadd(bounded, bounded))
    rest = e.b.fdiv(const(2.0), e.b.fadd(raised, const(1.0)))
    near = e.b.fcmp_ordered("<", size, const(SMALL))
    value = e.b.select(near, small, e.b.fsub(const(1.0), rest))
    return e.call(f"llvm.copysign.{suffix}", kind, [value, x])
