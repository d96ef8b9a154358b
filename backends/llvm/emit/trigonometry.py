"""Sine, cosine and tangent of vectors of f32, as exact as libm's, for arguments of any size.

An f32 below 2^48 is reduced in f64: with a multiple of pi/2 in two parts, of which fused
multiply-adds subtract the first exactly (W. J. Cody and W. Waite, "Software Manual for the
Elementary Functions", 1980). What is larger is rare and goes to libm, lane by lane.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .builder import F64, I64, Emitter, intrinsic_suffix, shaped
from .formats import MAGIC
from .polynomial import polynomial
from .rare_lanes import with_rare_lanes

TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
HALF_PI_HIGH = float.fromhex("0x1.921fb54442d18p0")
HALF_PI_LOW = float.fromhex("0x1.1a62633145c07p-54")
LARGE = float(1 << 48)  # from here on the multiple of pi/2 is not exact
# of sin(r)/r and cos(r) in r^2, highest power first, |r| <= pi/4: FreeBSD's k_sinf.c and k_cosf.c
SINE = (
    float.fromhex("0x16cd878c3b46a7.0p-71"),
    -float.fromhex("0x1a00f9e2cae774.0p-65"),
    float.fromhex("0x111110896efbb2.0p-59"),
    -float.fromhex("0x15555554cbac77.0p-55"),
    1.0,
)
COSINE = (
    float.fromhex("0x199342e0ee5069.0p-68"),
    -float.fromhex("0x16c087e80f1e27.0p-62"),
    float.fromhex("0x155553e1053a42.0p-57"),
    -float.fromhex("0x1ffffffd0c5e81.0p-54"),
    1.0,
)

Slow = Callable[[ir.Value], ir.Value]


def trigonometric(e: Emitter, name: str, x: ir.Value, slow: Slow) -> ir.Value:
    """ "sin", "cos" or "tan" of a vector of f32; slow: the function for large lanes."""
    fast = _reduced_function(e, name, x)
    size = e.call(f"llvm.fabs.{intrinsic_suffix(x.type)}", x.type, [x])
    finite = e.b.fcmp_ordered("<", size, e.constant(float("inf"), x.type))
    large = e.b.and_(finite, e.b.fcmp_ordered(">=", size, e.constant(LARGE, x.type)))
    return with_rare_lanes(e, fast, large, lambda: slow(x))


def _reduced_function(e: Emitter, name: str, x: ir.Value) -> ir.Value:
    """The function of lanes that are not large."""
    kind, integers = shaped(F64, x), shaped(I64, x)

    def const(value: float) -> ir.Constant:
        return e.constant(value, kind)

    wide = e.b.fpext(x, kind)
    biased = e.fma(wide, const(TWO_OVER_PI), const(MAGIC[F64]))
    n = e.b.fsub(biased, const(MAGIC[F64]))
    r = e.fma(n, const(-HALF_PI_LOW), e.fma(n, const(-HALF_PI_HIGH), wide))
    square = e.b.fmul(r, r)
    sine = e.b.fmul(r, polynomial(e, square, SINE))
    cosine = polynomial(e, square, COSINE)
    quadrant = e.b.bitcast(biased, integers)
    if name == "cos":
        quadrant = e.b.add(quadrant, e.constant(1, integers))
    one = e.constant(1, integers)
    odd = e.b.icmp_unsigned("!=", e.b.and_(quadrant, one), e.constant(0, integers))
    value = e.b.select(odd, cosine, sine)
    if name == "tan":
        value = e.b.fdiv(value, e.b.select(odd, e.b.fneg(sine), cosine))
    else:
        second = e.b.shl(e.b.lshr(quadrant, one), e.constant(63, integers))
        bits = e.b.xor(e.b.bitcast(value, integers), second)
        value = e.b.bitcast(bits, kind)
    return e.b.fptrunc(value, x.type)
