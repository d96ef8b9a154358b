"""Arc sine, cosine and tangent of vectors of f32, to three units in the last place.

Intervals and polynomials are those of Cephes' asinf.c and atanf.c (S. L. Moshier, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from .builder import I32, Emitter, intrinsic_suffix, shaped

HALF_PI, QUARTER_PI = math.pi / 2, math.pi / 4
LARGE, MIDDLE = math.tan(3 * math.pi / 8), math.tan(math.pi / 8)
# of (f(x) - x) / x^3 in x^2, highest power first
ARC_TANGENT = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
ARC_SINE = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)


def _intrinsic(e: Emitter, name: str, *args: ir.Value) -> ir.Value:
    kind = args[0].type
    return e.call(f"llvm.{name}.{intrinsic_suffix(kind)}", kind, list(args))


def _odd(e: Emitter, x: ir.Value, square: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """x + x^3 P(x^2)."""
    result: ir.Value = e.constant(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        result = e.in_step(e.fma(result, square, e.constant(coefficient, x.type)))
    return e.fma(e.b.fmul(result, square), x, x)


def atan(e: Emitter, x: ir.Value) -> ir.Value:
    """Arc tangent: of what is left of a multiple of pi/4, which one division brings into
    [-tan(pi/8), tan(pi/8)]."""
    kind = x.type
    one, size = e.constant(1.0, kind), _intrinsic(e, "fabs", x)
    large = e.b.fcmp_ordered(">", size, e.constant(LARGE, kind))
    middle = e.b.fcmp_ordered(">", size, e.constant(MIDDLE, kind))
    top = e.b.select(middle, e.b.fsub(size, one), size)
    top = e.b.select(large, e.constant(-1.0, kind), top)
    bottom = e.b.select(middle, e.b.fadd(size, one), one)
    bottom = e.b.select(large, size, bottom)
    turned = e.b.select(middle, e.constant(QUARTER_PI, kind), e.constant(0.0, kind))
    turned = e.b.select(large, e.constant(HALF_PI, kind), turned)
    rest = e.b.fdiv(top, bottom)
    found = _odd(e, rest, e.b.fmul(rest, rest), ARC_TANGENT)
    return _intrinsic(e, "copysign", e.b.fadd(turned, found), x)


def asin(e: Emitter, x: ir.Value) -> ir.Value:
    """Arc sine; NaN outside of [-1, 1]."""
    kind = x.type
    far, part = _half(e, x)
    end = e.fma(e.constant(-2.0, kind), part, e.constant(HALF_PI, kind))
    return _intrinsic(e, "copysign", e.b.select(far, end, part), x)


def acos(e: Emitter, x: ir.Value) -> ir.Value:
    """Arc cosine; NaN outside of [-1, 1]."""
    kind = x.type
    far, part = _half(e, x)
    negative = e.b.icmp_signed("<", e.b.bitcast(x, shaped(I32, x)), e.constant(0, shaped(I32, x)))
    twice = e.b.fadd(part, part)
    end = e.b.select(negative, e.b.fsub(e.constant(math.pi, kind), twice), twice)
    signed = _intrinsic(e, "copysign", part, x)
    return e.b.select(far, end, e.b.fsub(e.constant(HALF_PI, kind), signed))


def _half(e: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Whether |x| is above 1/2; asin(sqrt((1 - |x|) / 2)) where it is, asin(|x|) where not."""
    kind = x.type
    size, half = _intrinsic(e, "fabs", x), e.constant(0.5, kind)
    far = e.b.fcmp_ordered(">", size, half)
    rest = e.fma(e.b.fneg(half), size, half)
    square = e.b.select(far, rest, e.b.fmul(size, size))
    root = e.b.select(far, _intrinsic(e, "sqrt", rest), size)
    return far, _odd(e, root, square, ARC_SINE)
