"""Remainders of vectors of f32, by f64: exact where the quotient has few bits."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from .builder import F64, Emitter, intrinsic_suffix, shaped
from .rare_lanes import with_rare_lanes

# quotients below this, times a divisor of 24 bits, are exact in f64
MOST_QUOTIENT = float(1 << 29)


def remainder(e: Emitter, a: ir.Value, b: ir.Value, slow: Callable[[], ir.Value]) -> ir.Value:
    """fmod(a, b): a less the multiple of b next to it towards zero. slow: libm's, of all lanes."""
    kind = shaped(F64, a)

    def size(x: ir.Value) -> ir.Value:
        return e.call(f"llvm.fabs.{intrinsic_suffix(x.type)}", x.type, [x])

    above, below = size(e.b.fpext(a, kind)), size(e.b.fpext(b, kind))
    quotient = e.b.fdiv(above, below)
    whole = e.call(f"llvm.trunc.{intrinsic_suffix(kind)}", kind, [quotient])
    rest = e.fma(e.b.fneg(whole), below, above)
    # a quotient that is rounded up to an integer leaves less than nothing
    negative = e.b.fcmp_ordered("<", rest, e.constant(0.0, kind))
    rest = e.b.select(negative, e.b.fadd(rest, below), rest)
    narrow = e.b.fptrunc(rest, a.type)
    fast = e.call(f"llvm.copysign.{intrinsic_suffix(a.type)}", a.type, [narrow, a])
    finite = e.b.fcmp_ordered("<", below, e.constant(float("inf"), kind))
    small = e.b.fcmp_ordered("<", quotient, e.constant(MOST_QUOTIENT, kind))
    return with_rare_lanes(e, fast, e.b.not_(e.b.and_(finite, small)), slow)
