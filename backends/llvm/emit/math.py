"""Vector approximations of transcendental functions on f32; other types call libm per lane.

Each holds to a few units in the last place over the whole range (see tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from . import doubles
from .builder import CONTRACT, F32, F64, I1, I32, Emitter, intrinsic_suffix, is_vector, shaped
from .constants import undefined
from .formats import LEAST_NORMAL, MAGIC
from .inverse_trigonometry import acos, asin, atan
from .power import power
from .remainder import remainder
from .target_module import is_bare
from .trigonometry import trigonometric

LOG2_E = float.fromhex("0x1.715476p0")
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62E430p-1"), float.fromhex("-0x1.05C610p-29")

LIBM = {
    "exp": "exp", "log": "log", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
    "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "asinh", "acosh": "acosh", "atanh": "atanh", "erf": "erf", "pow": "pow",
    "fmod": "fmod",
}  # fmt: skip


def _element(value: ir.Value) -> ir.Type:
    return value.type.element if is_vector(value) else value.type


def _horner(e: Emitter, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """Polynomial in x, highest power first."""
    result: ir.Value = e.constant(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        result = e.in_step(e.fma(result, x, e.constant(coefficient, x.type)))
    return result


def per_lane(e: Emitter, name: str, args: Sequence[ir.Value]) -> ir.Value:
    """Call libm's function on every lane (the f32 variant for f32)."""
    element = _element(args[0])
    if name == "pow":
        args = [_flushed(e, args[0]), *args[1:]]
    symbol = LIBM[name] + ("f" if element == F32 else "")
    if not is_vector(args[0]):
        return e.call(symbol, element, list(args))
    result: ir.Value = undefined(args[0].type)
    for lane in range(args[0].type.count):
        index = ir.Constant(I32, lane)
        scalars = [e.b.extract_element(arg, index) for arg in args]
        result = e.b.insert_element(result, e.call(symbol, element, scalars), index)
    return result


def _flushed(e: Emitter, x: ir.Value) -> ir.Value:
    """x with zeros of its sign for denormals.

    libm's power scales these by a product, which is zero where denormals count as zeros, and goes
    on with its bits as those of a normal number.
    """
    suffix, zero = intrinsic_suffix(x.type), e.constant(0.0, x.type)
    denormal = e.b.fcmp_ordered(
        "<", intrinsic(e, "fabs", x), e.constant(LEAST_NORMAL[_element(x)], x.type)
    )
    return e.b.select(denormal, e.call(f"llvm.copysign.{suffix}", x.type, [zero, x]), x)


def exp(e: Emitter, x: ir.Value) -> ir.Value:
    """exp of any f32."""
    kind = x.type
    low = e.b.fcmp_ordered("<", x, e.constant(-87.336543, kind))
    high = e.b.fcmp_ordered(">", x, e.constant(88.722835, kind))
    result = e.b.select(low, e.constant(0.0, kind), _normal_exp(e, x))
    result = e.b.select(high, e.constant(float("inf"), kind), result)
    return e.b.select(e.b.fcmp_unordered("uno", x, x), x, result)


def _normal_exp(e: Emitter, x: ir.Value) -> ir.Value:
    """exp where the result is a normal number; of NaN anything.

    Cody-Waite reduction by ln 2 in two parts and a degree-5 polynomial. Coefficients: minimax on
    [-ln2/2, ln2/2] as published in XNNPACK's rr2-p5 kernels.
    """
    kind, integers = x.type, shaped(I32, x)
    n, n_biased, t = _reduced(e, x, 1.0, MAGIC[F32])
    t = e.in_step(e.fma(n, e.constant(-LN2_LOW, kind), t))
    mantissa = _reduced_exp(e, t, 1.0)
    exponent = e.b.shl(e.b.bitcast(n_biased, integers), e.constant(23, integers))
    # times 2^n, added to its bits: 2^128 would overflow
    return e.b.bitcast(e.b.add(e.b.bitcast(mantissa, integers), exponent), kind)


def _reduced(
    e: Emitter, x: ir.Value, sign: float, magic: float
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(n, n + magic, t) so that sign * x = n ln2 + sign * t, but for the low part of ln 2."""
    kind = x.type
    n_biased = e.in_step(e.fma(x, e.constant(sign * LOG2_E, kind), e.constant(magic, kind)))
    n = e.in_step(e.b.fsub(n_biased, e.constant(magic, kind)))
    return n, n_biased, e.in_step(e.fma(n, e.constant(-sign * LN2_HIGH, kind), x))


def _reduced_exp(e: Emitter, t: ir.Value, sign: float) -> ir.Value:
    """exp(sign * t) for |t| <= ln2 / 2."""
    hexes = ("0x1.0F9F9Cp-7", "0x1.573A1Ap-5", "0x1.555A80p-3", "0x1.FFFDC6p-2", "0x1.FFFFF6p-1")
    powers = range(len(hexes), 0, -1)
    signed = [sign**k * float.fromhex(h) for k, h in zip(powers, hexes, strict=True)]
    return _horner(e, t, [*signed, 1.0])


def log(e: Emitter, x: ir.Value) -> ir.Value:
    """Natural logarithm: mantissa in [sqrt(1/2), sqrt(2)) and the polynomial of Cephes' logf."""
    kind, integers = x.type, shaped(I32, x)

    def const(value: float) -> ir.Constant:
        return e.constant(value, kind)

    tiny = e.b.fcmp_ordered("<", x, const(1.17549435e-38))
    scaled = e.b.select(tiny, e.b.fmul(x, const(8388608.0)), x)
    bits = e.b.bitcast(scaled, integers)
    shifted = e.b.sub(bits, e.constant(0x3F3504F3, integers))  # sqrt(1/2)
    exponent = e.b.ashr(shifted, e.constant(23, integers))
    mantissa_bits = e.b.sub(bits, e.b.shl(exponent, e.constant(23, integers)))
    n = e.b.sitofp(exponent, kind)
    n = e.b.select(tiny, e.b.fsub(n, const(23.0)), n)
    m = e.b.fsub(e.b.bitcast(mantissa_bits, kind), const(1.0))
    square = e.b.fmul(m, m)
    poly = _horner(
        e, m,
        [7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
         -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1],
    )  # fmt: skip
    y = e.b.fmul(e.b.fmul(poly, m), square)
    y = e.fma(n, const(-2.12194440e-4), y)
    y = e.fma(square, const(-0.5), y)
    result = e.fma(n, const(0.693359375), e.b.fadd(m, y))
    result = e.b.select(e.b.fcmp_ordered("==", x, const(0.0)), const(float("-inf")), result)
    infinite = e.b.fcmp_ordered("==", x, const(float("inf")))
    result = e.b.select(infinite, x, result)
    invalid = e.b.fcmp_unordered("<", x, const(0.0))
    return e.b.select(invalid, const(float("nan")), result)


def _rational(
    e: Emitter,
    x: ir.Value,
    limit: float,
    factor: float,
    odd: Sequence[float],
    even: Sequence[float],
) -> ir.Value:
    """x * P(x^2) / Q(x^2) with x clamped to +-limit, coefficients highest power first.

    factor: a power of two for both polynomials, with which tiny products do not underflow.
    """
    kind = x.type
    upper, lower = e.constant(limit, kind), e.constant(-limit, kind)
    c = e.b.select(e.b.fcmp_ordered(">", x, upper), upper, x)
    c = e.b.select(e.b.fcmp_ordered("<", c, lower), lower, c)
    square = e.b.fmul(c, c)
    top = e.b.fmul(c, _horner(e, square, [factor * a for a in odd]))
    return e.b.fdiv(top, _horner(e, square, [factor * a for a in even]))


def tanh(e: Emitter, x: ir.Value) -> ir.Value:
    """tanh by the 13/6 rational approximation that Eigen uses.

    Clamped where it becomes 1 with fused multiply-adds: what saturates is compared and rounded.
    """
    return _rational(
        e, x, 8.035959243774414, 256,
        [-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
         1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03],
        [1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03],
    )  # fmt: skip


def erf(e: Emitter, x: ir.Value) -> ir.Value:
    """erf by the 13/8 rational approximation that Eigen uses (clamped at +-4)."""
    return _rational(
        e, x, 4.0, -64,
        [-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06,
         -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03,
         -1.60960333262415e-02],
        [-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03,
         -7.37332916720468e-03, -1.42647390514189e-02],
    )  # fmt: skip


def sigmoid(e: Emitter, x: ir.Value) -> ir.Value:
    """1 / (1 + exp(-x))."""
    one = e.constant(1.0, x.type)
    if _element(x) != F32:
        raised = per_lane(e, "exp", [e.b.fneg(x)])
        return e.b.fdiv(one, e.b.fadd(one, raised, flags=CONTRACT))
    # within these bounds exp(-x) and 2^n are normal numbers, and beyond them the result stays
    low, high = e.constant(-88.0, x.type), e.constant(87.0, x.type)
    bounded = e.b.select(e.b.fcmp_ordered(">", low, x), low, x)
    bounded = e.b.select(e.b.fcmp_ordered("<", high, bounded), high, bounded)
    # As in `_normal_exp`, of -x, but with ln 2 in one part, which is wrong by 1.9e-9 n: less than
    # a unit in the last place until n is 30 and the result 1e-9, and four of them at the end.
    # MAGIC + 127, the exponent's bias: n is in place as 2^n's.
    _, n_biased, t = _reduced(e, bounded, -1.0, MAGIC[F32] + 127)
    integers = shaped(I32, x)
    bits = e.b.shl(e.b.bitcast(n_biased, integers), e.constant(23, integers))
    power = e.in_step(e.b.bitcast(bits, x.type))
    return e.b.fdiv(one, e.in_step(e.fma(_reduced_exp(e, t, -1.0), power, one)))


VECTORISED: dict[str, Callable[[Emitter, ir.Value], ir.Value]] = {
    "exp": exp, "log": log, "tanh": tanh, "erf": erf, "sigmoid": sigmoid,
    "asin": asin, "acos": acos, "atan": atan,
}  # fmt: skip


def unary(e: Emitter, name: str, x: ir.Value) -> ir.Value:
    """A transcendental function of one argument."""
    if name == "sigmoid":
        return sigmoid(e, x)
    if name in VECTORISED and _element(x) == F32:
        return VECTORISED[name](e, x)
    if name in ("sin", "cos", "tan") and is_vector(x) and _element(x) == F32:
        return trigonometric(e, name, x, lambda large: per_lane(e, name, [large]))
    if name == "tanh" and is_vector(x) and _element(x) == F64 and not is_bare(e.module):
        return doubles.tanh(e, x)
    return per_lane(e, name, [x])


def raised(e: Emitter, x: ir.Value, y: ir.Value) -> ir.Value:
    """x to the power of y."""
    if is_vector(x) and _element(x) == F32 and not is_bare(e.module):
        return power(e, x, y, lambda: per_lane(e, "pow", [x, y]))
    return per_lane(e, "pow", [x, y])


def fmod(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """The remainder with the dividend's sign."""
    if is_vector(a) and _element(a) == F32 and not is_bare(e.module):
        return remainder(e, a, b, lambda: per_lane(e, "fmod", [a, b]))
    return per_lane(e, "fmod", [a, b])


def intrinsic(e: Emitter, name: str, x: ir.Value) -> ir.Value:
    """An LLVM floating-point intrinsic of one argument ("sqrt", "floor", "roundeven", ...)."""
    return e.call(f"llvm.{name}.{intrinsic_suffix(x.type)}", x.type, [x])


def quotient(e: Emitter, x: ir.Value, divisor: ir.Value, inverse: ir.Value) -> ir.Value:
    """x / divisor, rounded once, by the rounded inverse of the divisor; all finite.

    The first correction gives one of the two numbers next to the quotient, the second, of such a
    one, the nearest (Markstein, "Computation of elementary functions on the IBM RISC System/6000
    processor", 1990; theorem 7). Where remainders are too small for a float, the quotient of a
    divisor of 2^-100 or more is below 1/4.
    """
    if not is_vector(x):
        return e.b.fdiv(x, divisor)
    result = e.b.fmul(x, inverse)
    for _ in range(2):
        rest = e.fma(e.b.fneg(result), divisor, x)
        result = e.fma(rest, inverse, result)
    return result


def is_class(e: Emitter, x: ir.Value, kind: str) -> ir.Value:
    """Lane-wise isnan or isinf, as i1."""
    if kind == "isnan":
        return e.b.fcmp_unordered("uno", x, x)
    return e.b.fcmp_ordered("==", intrinsic(e, "fabs", x), e.constant(float("inf"), x.type))


__all__ = ["I1", "VECTORISED", "intrinsic", "is_class", "per_lane", "unary"]
