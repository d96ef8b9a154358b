"""Emission of the pointwise core operators, alike for scalars and vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.ops.packed import DIGITS
from ....compiler.ir.types import DType
from ....compiler.kernel.instruction import DOTS
from . import math
from .builder import CONTRACT, F32, I1, I32, Emitter, intrinsic_suffix, scalar_type, shaped
from .digits import digit
from .division import divided
from .dot import dot
from .narrow import carrier, narrowed, widened
from .rounding import nearest_integer, round_even
from .target_module import BFLOAT, has_instruction

I16 = ir.IntType(16)
HALVES = (DType.F16, DType.BF16)
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
BOUNDS = {"at_least": "gt", "at_most": "lt"}
_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul"}
_BITS = {"and": "and_", "or": "or_", "xor": "xor", "bitand": "and_", "bitor": "or_",
         "bitxor": "xor"}  # fmt: skip
_ROUNDING = {"floor": "floor", "ceil": "ceil", "sqrt": "sqrt"}
_TRANSCENDENTAL = frozenset(math.LIBM) - {"pow", "fmod"} | {"sigmoid"}


def apply(
    e: Emitter,
    op: str,
    args: Sequence[ir.Value],
    kinds: Sequence[DType],
    dtype: DType,
    exact: bool = False,
) -> ir.Value:
    """The value of a pointwise operator.

    kinds: element types of the arguments. dtype: element type of the result. exact: a sum or a
    product is rounded by itself. Half-precision
    floats are computed in f32 and rounded. Raises InternalError for an operator without an
    emission.
    """
    if op == "cast":
        return cast(e, args[0], kinds[0], dtype)
    if op == "bitcast":
        return bitcast(e, args[0], dtype)
    if op == "where":
        return e.b.select(args[0], args[1], args[2])
    if op == "fma":
        return e.fma(*args)
    if op == "quotient":
        return math.quotient(e, *args)
    if op in DOTS:
        zero = e.constant(identity("sum", dtype), shaped(scalar_type(dtype), args[0]))
        return dot(e, op, "", zero, args[0], args[1])
    if op in DIGITS:
        return digit(e, op, *args)
    kind = kinds[0]
    if kind in HALVES:
        wide = [cast(e, arg, kind, DType.F32) for arg in args]
        result_type = DType.F32 if dtype is kind else dtype
        result = apply(e, op, wide, [DType.F32] * len(args), result_type, exact)
        return cast(e, result, result_type, dtype)
    if op in BOUNDS:
        return e.b.select(_compare(e, BOUNDS[op], args[0], args[1], kind), args[0], args[1])
    if op in COMPARISONS:
        return _compare(e, op, args[0], args[1], kind)
    if op in _BITS:
        return getattr(e.b, _BITS[op])(args[0], args[1])
    if kind.is_float:
        return _float(e, op, args, () if exact else CONTRACT)
    return _int(e, op, args, kind)


def _compare(e: Emitter, op: str, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    sign = COMPARISONS[op]
    if kind.is_float:
        return e.b.fcmp_unordered(sign, a, b) if op == "ne" else e.b.fcmp_ordered(sign, a, b)
    return (e.b.icmp_signed if kind.is_signed else e.b.icmp_unsigned)(sign, a, b)


def _float(e: Emitter, op: str, args: Sequence[ir.Value], flags: tuple[str, ...]) -> ir.Value:
    x = args[0]
    if op in _FLOAT:
        result: ir.Value = getattr(e.b, _FLOAT[op])(x, args[1], flags=flags)
        return result
    if op in _ROUNDING:
        return math.intrinsic(e, _ROUNDING[op], x)
    if op == "round":
        return round_even(e, x)
    if op == "rint":
        return nearest_integer(e, x)
    if op in _TRANSCENDENTAL:
        return math.unary(e, op, x)
    if op == "pow":
        return math.raised(e, *args)
    if op == "fmod":
        return math.fmod(e, *args)
    if op in ("isnan", "isinf"):
        return math.is_class(e, x, op)
    if op in ("max", "min"):
        return _extreme(e, op, x, args[1])
    zero = e.constant(0.0, x.type)
    if op == "neg":
        return e.b.fneg(x)
    if op == "abs":
        return math.intrinsic(e, "fabs", x)
    if op == "sign":
        positive = e.b.uitofp(e.b.fcmp_ordered(">", x, zero), x.type)
        negative = e.b.uitofp(e.b.fcmp_ordered("<", x, zero), x.type)
        result = e.b.fsub(positive, negative)
        return e.b.select(e.b.fcmp_unordered("uno", x, x), x, result)
    if op == "mod":
        return _float_mod(e, x, args[1])
    raise InternalError(f"no float code for the operator '{op}'")


def _float_mod(e: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """The remainder with the divisor's sign, also of a zero."""
    zero = e.constant(0.0, a.type)
    rest = math.fmod(e, a, b)
    nonzero = e.b.fcmp_unordered("!=", rest, zero)
    opposite = e.b.xor(e.b.fcmp_ordered("<", rest, zero), e.b.fcmp_ordered("<", b, zero))
    moved = e.b.select(opposite, e.b.fadd(rest, b), rest)
    name = f"llvm.copysign.{intrinsic_suffix(a.type)}"
    return e.b.select(nonzero, moved, e.call(name, a.type, [zero, b]))


def _extreme(e: Emitter, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """max or min where a NaN on either side wins, as in numpy.

    Each comparison keeps a NaN on the left, as one vmaxps or vminps does; a constant on the right
    is no NaN. Beside a constant zero, LLVM makes one instruction of the ordered one alone.
    """
    if isinstance(b, ir.Constant) and not _holds_nan(b):
        return e.b.select(e.b.fcmp_ordered("<" if op == "max" else ">", a, b), b, a)
    result = e.b.select(e.b.fcmp_unordered(">" if op == "max" else "<", a, b), a, b)
    return e.b.select(e.b.fcmp_unordered("uno", b, b), b, result)


def _holds_nan(constant: ir.Constant) -> bool:
    value = constant.constant
    if isinstance(value, list):
        return any(_holds_nan(element) for element in value)
    return bool(value != value)


def _int(e: Emitter, op: str, args: Sequence[ir.Value], kind: DType) -> ir.Value:
    x = args[0]
    if op in _INTEGER:
        result: ir.Value = getattr(e.b, _INTEGER[op])(x, args[1])
        return result
    zero = e.constant(0, x.type)
    compare = e.b.icmp_signed if kind.is_signed else e.b.icmp_unsigned
    if op in ("max", "min"):
        return e.b.select(compare(">" if op == "max" else "<", x, args[1]), x, args[1])
    if op == "neg":
        return e.b.sub(zero, x)
    if op == "abs":
        return e.b.select(compare("<", x, zero), e.b.sub(zero, x), x) if kind.is_signed else x
    if op == "sign":
        one = e.constant(1, x.type)
        positive = e.b.select(compare(">", x, zero), one, zero)
        return e.b.select(compare("<", x, zero), e.constant(-1, x.type), positive)
    if op in ("not", "bitnot"):
        return e.b.not_(x)
    if op in ("shl", "shr"):
        return _shift(e, op, x, args[1], kind)
    if op in ("div", "mod", "fmod"):
        return divided(e, op, x, args[1], kind)
    if op == "pow":
        return _integer_power(e, x, args[1], kind)
    raise InternalError(f"no integer code for the operator '{op}'")


def _shift(e: Emitter, op: str, x: ir.Value, by: ir.Value, kind: DType) -> ir.Value:
    """A shift that leaves only sign bits when it is by the width (as unsigned) or more."""
    last = e.constant(kind.bits - 1, x.type)
    fits = e.b.icmp_unsigned("<=", by, last)
    safe = e.b.select(fits, by, last)
    if op == "shr" and kind.is_signed:
        return e.b.ashr(x, safe)
    shifted = e.b.shl(x, safe) if op == "shl" else e.b.lshr(x, safe)
    return e.b.select(fits, shifted, e.constant(0, x.type))


def _integer_power(e: Emitter, base: ir.Value, power: ir.Value, kind: DType) -> ir.Value:
    """base ** power, wrapping, by repeated squaring; 1 / base ** -power truncated."""
    one, zero = e.constant(1, base.type), e.constant(0, base.type)

    def step(_: object, carried: list[ir.Value]) -> list[ir.Value]:
        result, square, left = carried
        odd = e.b.icmp_unsigned("!=", e.b.and_(left, one), zero)
        result = e.b.select(odd, e.b.mul(result, square), result)
        return [result, e.b.mul(square, square), e.b.lshr(left, one)]

    result = e.loop(0, kind.bits, 1, [one, base, power], step)[0]
    if not kind.is_signed:
        return result
    minus = e.constant(-1, base.type)
    odd = e.b.icmp_unsigned("!=", e.b.and_(power, one), zero)
    inverse = e.b.select(e.b.icmp_signed("==", base, one), one, zero)
    of_minus = e.b.select(odd, minus, one)
    inverse = e.b.select(e.b.icmp_signed("==", base, minus), of_minus, inverse)
    return e.b.select(e.b.icmp_signed("<", power, zero), inverse, result)


def cast(e: Emitter, x: ir.Value, source: DType, target: DType) -> ir.Value:
    """Convert elements: to bool is `!= 0`; float to integer as `_truncated` says."""
    if source is target:
        return x
    if source.is_narrow:
        return cast(e, widened(e, x, source), carrier(source), target)
    if target.is_narrow:
        return narrowed(e, cast(e, x, source, carrier(target)), target)
    if source in HALVES:
        wide = _from_bfloat(e, x) if source is DType.BF16 else e.b.fpext(x, shaped(F32, x))
        return cast(e, wide, DType.F32, target)
    type_ = shaped(scalar_type(target), x)
    if target is DType.BOOL:
        zero = e.constant(0.0 if source.is_float else 0, x.type)
        if source.is_float:
            return e.b.fcmp_unordered("!=", x, zero)
        return e.b.icmp_unsigned("!=", x, zero)
    if target in HALVES and source is not DType.F32:
        return cast(e, cast(e, x, source, DType.F32), DType.F32, target)
    if target is DType.BF16:
        return _to_bfloat(e, x)
    if source.is_float and target.is_float:
        return e.b.fpext(x, type_) if target.bits > source.bits else e.b.fptrunc(x, type_)
    if source.is_float and not target.is_float:
        return _truncated(e, x, target)
    if target.is_float:
        return e.b.sitofp(x, type_) if source.is_signed else e.b.uitofp(x, type_)
    if source is DType.BOOL or target.bits > source.bits:
        return e.b.sext(x, type_) if source.is_signed else e.b.zext(x, type_)
    return e.b.trunc(x, type_) if target.bits < source.bits else x


def _truncated(e: Emitter, x: ir.Value, target: DType) -> ir.Value:
    """A float as an integer, towards zero; what does not fit as C on x86 has it.

    There a conversion to a signed integer gives the least number for what it cannot hold; smaller
    types have the low bits of an i32, and unsigned ones are made of two halves.
    """
    if target in (DType.U32, DType.U64):
        half = e.constant(2.0 ** (target.bits - 1), x.type)
        upper = e.b.fcmp_ordered(">=", x, half)
        low = _held(e, e.b.select(upper, e.b.fsub(x, half), x), target.bits)
        sign = e.constant(-(2 ** (target.bits - 1)), low.type)
        return e.b.select(upper, e.b.xor(low, sign), low)
    whole = _held(e, x, max(32, target.bits))
    return whole if target.bits >= 32 else e.b.trunc(whole, shaped(scalar_type(target), x))


def _held(e: Emitter, x: ir.Value, bits: int) -> ir.Value:
    """A float as a signed integer of so many bits, the least of them where it does not fit.

    LLVM's conversions that saturate go lane by lane, and its plain ones leave that undefined.
    """
    kind = shaped(ir.IntType(bits), x)
    fits = e.b.fcmp_ordered(
        "<", math.intrinsic(e, "fabs", x), e.constant(2.0 ** (bits - 1), x.type)
    )
    number = e.b.fptosi(e.b.select(fits, x, e.constant(0.0, x.type)), kind)
    return e.b.select(fits, number, e.constant(-(2 ** (bits - 1)), kind))


def _from_bfloat(e: Emitter, x: ir.Value) -> ir.Value:
    """The bits of a bf16 as an f32."""
    wide = e.b.zext(x, shaped(I32, x))
    return e.b.bitcast(e.b.shl(wide, e.constant(16, wide.type)), shaped(F32, x))


def bitcast(e: Emitter, x: ir.Value, target: DType) -> ir.Value:
    """The same bits as elements of another type of that size."""
    return e.b.bitcast(x, shaped(scalar_type(target), x))


def _to_bfloat(e: Emitter, x: ir.Value) -> ir.Value:
    """An f32 as the bits of a bf16: to nearest, ties to even, NaNs stay quiet NaNs.

    Where the target has an instruction for it, denormal numbers become zero (Intel SDM vol. 2,
    VCVTNEPS2BF16), as they do in arithmetic; elsewhere they are rounded as the others.
    """
    wide, narrow = shaped(I32, x), shaped(I16, x)
    if has_instruction(e.module, "bf16") or has_instruction(e.module, "bfcvt"):
        return e.b.bitcast(e.b.fptrunc(x, shaped(BFLOAT, x)), narrow)

    def const(value: int) -> ir.Constant:
        return e.constant(value, wide)

    bits = e.b.bitcast(x, wide)
    even = e.b.and_(e.b.lshr(bits, const(16)), const(1))
    rounded = e.b.add(bits, e.b.add(even, const(0x7FFF)))
    quiet = e.b.or_(bits, const(0x400000))
    chosen = e.b.select(e.b.fcmp_unordered("uno", x, x), quiet, rounded)
    return e.b.trunc(e.b.lshr(chosen, const(16)), narrow)


Combine = Callable[[ir.Value, ir.Value], ir.Value]


def identity(kind: str, dtype: DType) -> float | int | bool:
    """The neutral element of a reduction."""
    if kind in ("sum", "prod"):
        value = 0 if kind == "sum" else 1
        return float(value) if dtype.is_float else value
    low = kind in ("max", "argmax")
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    if dtype is DType.BOOL:
        return 0 if low else 1
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)) if low else (1 << (dtype.bits - 1)) - 1
    return 0 if low else (1 << dtype.bits) - 1


def combine(e: Emitter, kind: str, a: ir.Value, b: ir.Value, dtype: DType) -> ir.Value:
    """One step of a reduction: accumulator a with element b."""
    op = {"sum": "add", "prod": "mul"}.get(kind, kind)
    if dtype is DType.BOOL:
        return apply(e, "or" if kind == "max" else "and", [a, b], [dtype, dtype], dtype)
    return apply(e, op, [b, a] if op in ("max", "min") else [a, b], [dtype, dtype], dtype)


__all__ = ["I1", "Combine", "apply", "cast", "combine", "identity"]
