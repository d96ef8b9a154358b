"""What every generated Triton module begins with: imports, and functions that expressions call.

Those written here say what one operator means where Triton's own differs: divisions by zero,
shifts by the width, conversions that do not fit, division that rounds down.
"""

from __future__ import annotations

import re

_TEXT = """import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice


@triton.jit
def ts_floordiv(a, b):
    rest = a % b
    return a // b - (rest < 0).to(rest.dtype)


@triton.jit
def ts_mod(a, b):
    rest = a % b
    return tl.where(rest < 0, rest + b, rest)


@triton.jit
def ts_broadcast(a, b):
    return tl.where(a == 1, b, tl.where(b == 1, a, tl.maximum(a, b)))


@triton.jit
def ts_add(a, b):
    return a + b


@triton.jit
def ts_mul(a, b):
    return a * b


@triton.jit
def ts_max(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def ts_min(a, b):
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def ts_sign(x):
    one = tl.full([], 1, x.dtype)
    zero = tl.full([], 0, x.dtype)
    signs = tl.where(x > 0, one, tl.where(x < 0, zero - one, zero))
    return tl.where(x != x, x, signs)


@triton.jit
def ts_float_mod(a, b, rest):
    opposite = (rest < 0) != (b < 0)
    zero = tl.where(b < 0, tl.full([], -0.0, b.dtype), tl.full([], 0.0, b.dtype))
    return tl.where(rest != 0, tl.where(opposite, rest + b, rest), zero)


@triton.jit
def ts_to_integer(x, kind: tl.constexpr, bits: tl.constexpr):
    limit: tl.constexpr = 2.0 ** (bits - 1)
    fits = tl.abs(x) < limit
    number = tl.where(fits, x, tl.full([], 0.0, x.dtype)).to(kind)
    return tl.where(fits, number, tl.full([], -(2 ** (bits - 1)), kind))


@triton.jit
def ts_to_unsigned(x, kind: tl.constexpr, bits: tl.constexpr):
    half: tl.constexpr = 2.0 ** (bits - 1)
    upper = x >= half
    low = ts_to_integer(tl.where(upper, x - half, x), kind, bits)
    return tl.where(upper, low ^ tl.full([], -(2 ** (bits - 1)), kind), low)


@triton.jit
def ts_shl(x, by, bits: tl.constexpr, signed: tl.constexpr):
    fits = (by >= 0) & (by < bits)
    safe = tl.where(fits, by, tl.full([], 0, x.dtype))
    return tl.where(fits, x << safe, tl.full([], 0, x.dtype))


@triton.jit
def ts_shr(x, by, bits: tl.constexpr, signed: tl.constexpr):
    fits = (by >= 0) & (by < bits)
    last = tl.full([], bits - 1, x.dtype)
    if signed:
        return x >> tl.where(fits, by, last)
    return tl.where(fits, x >> tl.where(fits, by, last), tl.full([], 0, x.dtype))


@triton.jit
def ts_integer_div(a, b, signed: tl.constexpr):
    zero = tl.full([], 0, a.dtype)
    one = tl.full([], 1, a.dtype)
    if signed:
        minus = b == -1
        safe = tl.where((b == 0) | minus, one, b)
        value = tl.where(minus, zero - a, a // safe)
    else:
        safe = tl.where(b == 0, one, b)
        value = a // safe
    return tl.where(b == 0, zero, value)


@triton.jit
def ts_integer_fmod(a, b, signed: tl.constexpr):
    one = tl.full([], 1, a.dtype)
    bad = b == 0
    if signed:
        bad = bad | (b == -1)
    return tl.where(bad, tl.full([], 0, a.dtype), a % tl.where(bad, one, b))


@triton.jit
def ts_integer_mod(a, b, signed: tl.constexpr):
    rest = ts_integer_fmod(a, b, signed)
    if signed:
        rest = tl.where(((rest ^ b) < 0) & (rest != 0), rest + b, rest)
    return rest


@triton.jit
def ts_integer_pow(base, power, bits: tl.constexpr, signed: tl.constexpr):
    one = tl.full([], 1, base.dtype)
    zero = tl.full([], 0, base.dtype)
    result = one
    square = base
    for place in tl.static_range(bits):
        bit = (power >> tl.full([], place, power.dtype)) & one
        result = tl.where(bit != 0, result * square, result)
        square = square * square
    if signed:
        minus = zero - one
        odd = (power & one) != 0
        inverse = tl.where(base == one, one, zero)
        inverse = tl.where(base == minus, tl.where(odd, minus, one), inverse)
        result = tl.where(power < 0, inverse, result)
    return result


@triton.jit
def ts_digit(word, place, bits: tl.constexpr):
    raised = word.to(tl.int32, bitcast=True) << (32 - bits - bits * place.to(tl.int32))
    return (raised >> (32 - bits)).to(tl.float32)


@triton.jit
def ts_digits(words, bits: tl.constexpr):
    steps: tl.constexpr = 32 // bits
    places = tl.arange(0, steps)[None, :, None]
    numbers = words.to(tl.int32, bitcast=True)[:, None, :] << (32 - bits - bits * places)
    return tl.reshape(numbers >> (32 - bits), [words.shape[0] * steps, words.shape[1]])


@triton.jit
def ts_of_f8e5m2(x):
    return (x.to(tl.int16) << 8).to(tl.float16, bitcast=True)


@triton.jit
def ts_of_f8e4m3(x):
    size = x.to(tl.int16) & 0x7F
    bits = ((x.to(tl.int16) & 0x80) << 8) | (size << 7)
    number = bits.to(tl.float16, bitcast=True) * tl.full([], 256.0, tl.float16)
    return tl.where(size == 0x7F, tl.full([], float("nan"), tl.float16), number)


@triton.jit
def ts_to_f8(
    x, mantissa: tl.constexpr, bias: tl.constexpr, limit: tl.constexpr, over: tl.constexpr,
    nan: tl.constexpr,
):
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    dropped: tl.constexpr = 23 - mantissa
    rounded = size + ((size >> dropped) & 1) + ((1 << (dropped - 1)) - 1)
    normal = (rounded >> dropped) - ((127 - bias) << mantissa)
    magic = tl.full([], 2.0 ** (1 - bias - mantissa + 23), tl.float32)
    low = (size.to(tl.float32, bitcast=True) + magic).to(tl.int32, bitcast=True)
    subnormal = low - magic.to(tl.int32, bitcast=True)
    code = tl.where(size < ((128 - bias) << 23), subnormal, normal)
    code = tl.where(code > limit, over, code) | ((bits >> 24) & 0x80)
    return tl.where(x != x, nan, code).to(tl.uint8)


@triton.jit
def ts_dot4(a, b):
    total = (a & 255) * ((b << 24) >> 24)
    total += ((a >> 8) & 255) * ((b << 16) >> 24)
    total += ((a >> 16) & 255) * ((b << 8) >> 24)
    return total + ((a >> 24) & 255) * (b >> 24)


@triton.jit
def ts_sdot4(a, b):
    total = ((a << 24) >> 24) * ((b << 24) >> 24)
    total += ((a << 16) >> 24) * ((b << 16) >> 24)
    total += ((a << 8) >> 24) * ((b << 8) >> 24)
    return total + (a >> 24) * (b >> 24)


@triton.jit
def ts_wdot2(a, b):
    return ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16)
"""

_HEAD, *_PARTS = _TEXT.split("\n\n\n")
_FUNCTIONS = {part.split("def ")[1].split("(")[0]: part.strip() for part in _PARTS}
_NAME = re.compile(r"\bts_\w+")


def with_preamble(function: str) -> str:
    """A module that defines a function: with the imports, and what it calls."""
    wanted: set[str] = set()
    pending = set(_NAME.findall(function)) & _FUNCTIONS.keys()
    while pending:
        wanted |= pending
        pending = {n for name in pending for n in _NAME.findall(_FUNCTIONS[name])} - wanted
    used = [text for name, text in _FUNCTIONS.items() if name in wanted]
    return "\n\n\n".join((_HEAD.strip(), *used, function))
