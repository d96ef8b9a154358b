"""Division of integers: processors have it for scalars, and of floats for vectors."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.ir.types import DType
from .builder import F32, F64, Emitter, is_vector, shaped
from .rare_lanes import with_rare_lanes
from .target_module import has_feature, is_bare

HALF_BITS, WORD_BITS = 16, 32  # of integers that an f32, and an f64, divides exactly
F64_INTEGERS = 1 << 53  # up to here an f64 holds every integer
WIDE_CONVERSIONS = "avx512dq"  # has those between vectors of f64 and of integers of 64 bits


def divided(e: Emitter, op: str, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    """ "div", "mod" or "fmod" of integers, which never traps: x / 0 is 0, and so are remainders;
    the quotient wraps for INT_MIN / -1."""
    zero, one = e.constant(0, a.type), e.constant(1, a.type)
    find = _plain if _is_plain(e, a, _known(b, kind), kind) else _by_floats
    bad = e.b.icmp_unsigned("==", b, zero)
    if not kind.is_signed:
        quotient, rest = find(e, a, e.b.select(bad, one, b), kind)
        return e.b.select(bad, zero, quotient if op == "div" else rest)
    minus = e.b.icmp_signed("==", b, e.constant(-1, b.type))
    safe = e.b.select(e.b.or_(bad, minus), one, b)
    quotient, rest = find(e, a, safe, kind)
    if op == "div":
        return e.b.select(bad, zero, e.b.select(minus, e.b.sub(zero, a), quotient))
    if op == "mod":
        opposite = e.b.icmp_signed("<", e.b.xor(rest, safe), zero)
        nonzero = e.b.icmp_signed("!=", rest, zero)
        rest = e.b.select(e.b.and_(opposite, nonzero), e.b.add(rest, safe), rest)
    return e.b.select(e.b.or_(bad, minus), zero, rest)


def _known(b: ir.Value, kind: DType) -> int | None:
    """The divisor, where it is one constant in all lanes."""
    if not isinstance(b, ir.Constant):
        return None
    items = b.constant if is_vector(b) else [b]
    numbers = {item.constant for item in items} if isinstance(items, list) else set[object]()
    number = numbers.pop() if len(numbers) == 1 else None
    if not isinstance(number, int):
        return None
    number &= (1 << kind.bits) - 1
    return number - (1 << kind.bits) if kind.is_signed and number >> (kind.bits - 1) else number


def _is_plain(e: Emitter, a: ir.Value, known: int | None, kind: DType) -> bool:
    """Whether LLVM's division is no slower than one of floats.

    Those by constants are products and shifts, but vectors have no product of 64 bits whose upper
    half is wanted, and not all have conversions of so many.
    """
    if not is_vector(a) or is_bare(e.module):
        return True
    if kind.bits > WORD_BITS and not has_feature(e.module, WIDE_CONVERSIONS):
        return True
    if known is None:
        return False
    size = abs(known)
    return kind.bits <= WORD_BITS or size & (size - 1) == 0 or size > F64_INTEGERS


def _plain(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> tuple[ir.Value, ir.Value]:
    """Quotient and remainder, towards zero, where neither traps."""
    rest = e.b.srem(a, b) if kind.is_signed else e.b.urem(a, b)
    return _plain_quotient(e, a, b, kind), rest


def _by_floats(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> tuple[ir.Value, ir.Value]:
    """As `_plain`."""
    find = _wide_quotient if kind.bits > WORD_BITS else _float_quotient
    quotient = find(e, a, b, kind)
    return quotient, e.b.sub(a, e.b.mul(quotient, b))


def _plain_quotient(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    return e.b.sdiv(a, b) if kind.is_signed else e.b.udiv(a, b)


def _float_quotient(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    """The quotient of floats that hold both, without its fraction.

    From the quotient to the next integer n it is 1 / b or more, which rounding does not reach where
    b n, which is at most a + b, has fewer bits than the float's digits.
    """
    wide = shaped(F32 if kind.bits <= HALF_BITS else F64, a)
    if kind.is_signed:
        quotient = e.b.fdiv(e.b.sitofp(a, wide), e.b.sitofp(b, wide))
        return e.b.fptosi(quotient, a.type)
    return e.b.fptoui(e.b.fdiv(e.b.uitofp(a, wide), e.b.uitofp(b, wide)), a.type)


def _wide_quotient(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    """Of 64 bits: by floats where they hold the integers, else lane by lane."""
    limit = e.constant(F64_INTEGERS, a.type)
    sizes = [_magnitude(e, x) if kind.is_signed else x for x in (a, b)]
    large = e.b.or_(*(e.b.icmp_unsigned(">", size, limit) for size in sizes))
    fast = _corrected_quotient(e, a, b, kind)
    return with_rare_lanes(e, fast, large, lambda: _plain_quotient(e, a, b, kind))


def _magnitude(e: Emitter, x: ir.Value) -> ir.Value:
    """|x|, unsigned."""
    zero = e.constant(0, x.type)
    return e.b.select(e.b.icmp_signed("<", x, zero), e.b.sub(zero, x), x)


def _corrected_quotient(e: Emitter, a: ir.Value, b: ir.Value, kind: DType) -> ir.Value:
    """By floats, which may round a quotient to the next integer, away from zero."""
    quotient = _float_quotient(e, a, b, kind)
    rest = e.b.sub(a, e.b.mul(quotient, b))
    zero, one, minus = (e.constant(n, a.type) for n in (0, 1, -1))
    opposite = e.b.icmp_signed("<", e.b.xor(rest, a), zero)
    beyond = e.b.and_(opposite, e.b.icmp_unsigned("!=", rest, zero))
    apart = e.b.icmp_signed("<", e.b.xor(a, b), zero)
    step = e.b.select(beyond, e.b.select(apart, minus, one), zero)
    return e.b.sub(quotient, step)
