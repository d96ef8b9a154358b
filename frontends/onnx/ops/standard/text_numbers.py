"""Numbers written as text and read from it, as the C library's `strtoll` and `strtod` do.

Source: ISO C, 7.22.1 (numeric conversion functions), which ONNX Runtime calls. What follows a
number is passed over; a text that begins with none, or with one of too many digits, ends the run,
and so does a float in hexadecimal.
"""

from __future__ import annotations

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Text
from ...site import NotSupported, Site
from ..shared.byte_rows import SPACES, Strings, after, before, running, strings_of, total

DIGITS = 20  # of the largest u64
EXACT = 19  # digits of any number that a u64 holds
POWERS = 400  # of ten: beyond these every f64 is zero or infinite


def written(s: Site, x: Value) -> Text:
    """The decimal digits of integers, `-` before negative ones; 1 and 0 for bool."""
    if not (x.dtype.is_integer or x.dtype is DType.BOOL) or x.dtype.is_narrow:
        raise NotSupported(
            f"{x.dtype} is not written as text", "make strings of numbers outside of the model"
        )
    wide = s.reshape(x, (*x.shape, 1))
    bits = s.cast(s.cast(wide, DType.I64) if x.dtype.is_signed else wide, DType.U64)
    never = s.scalar(False, DType.BOOL)
    negative = s.op_("lt", wide, 0) if x.dtype.is_signed else s.expand(never, wide.shape)
    size = s.op_("where", negative, s.op_("sub", s.scalar(0, DType.U64), bits), bits)
    powers = np.array([10**n for n in range(DIGITS)], np.uint64)
    count = s.op_("ge", size, constant(powers[1:]))
    axis = [x.type.rank]
    count = s.op_("add", s.reduce("sum", s.cast(count, DType.I64), axis), 1)
    place = s.iota((*(1,) * x.type.rank, DIGITS), x.type.rank, DType.I64)
    place = s.op_("sub", place, s.cast(negative, DType.I64))
    power = s.op_("sub", s.op_("sub", count, 1), place)
    clamped = s.op_("max", s.op_("min", power, DIGITS - 1), 0)
    divisor = s.emit("gather", [constant(powers), clamped], axis=0)
    digit = s.op_("add", s.op_("mod", s.op_("div", size, divisor), 10), ord("0"))
    byte = s.op_("where", s.op_("lt", place, 0), s.scalar(ord("-"), DType.U64), digit)
    byte = s.op_("where", s.op_("lt", power, 0), s.scalar(0, DType.U64), byte)
    return Text(s.cast(byte, DType.U8))


def read(s: Site, dtype: DType) -> Value:
    """The numbers that strings begin with, after spaces. Floats of up to 15 digits and powers of
    ten up to 22 are exact in f64, others may be off by a unit in its last place."""
    strings = strings_of(s)
    if not (dtype.is_integer or dtype.is_float or dtype is DType.BOOL) or dtype.is_narrow:
        raise NotSupported(f"text is not read as {dtype}", "read it as float, and convert that")
    number = _float(s, strings) if dtype.is_float else _integer(s, strings, dtype)
    return s.reshape(s.cast(number, dtype), strings.shape)


def _among(s: Site, row: Value, letters: bytes) -> Value:
    """Where a byte is one of some: bool [rows, width]."""
    found = s.op_("eq", row, letters[0])
    for letter in letters[1:]:
        found = s.op_("or", found, s.op_("eq", row, letter))
    return found


def _prefix(s: Site, flags: Value) -> Value:
    """Where flags have been true from the first byte on."""
    broken = running(s, s.op_("not", flags))
    return s.op_("eq", broken, 0)


def _sign(s: Site, row: Value, begin: Value) -> tuple[Value, Value]:
    """Whether a minus stands where `begin` says (bool [rows, 1]), and where what follows begins."""
    minus = s.op_("and", begin, s.op_("eq", row, ord("-")))
    signed = s.op_("and", begin, _among(s, row, b"+-"))
    begin = s.op_("or", before(s, signed), s.op_("and", begin, s.op_("not", signed)))
    return s.op_("gt", total(s, minus), 0), begin


def _start(s: Site, row: Value) -> Value:
    """The first byte that is no space: one flag in every row."""
    blank = _prefix(s, _among(s, row, SPACES))
    first = s.op_("eq", s.iota((1, row.shape[1]), 1, DType.I64), 0)
    return s.op_("and", s.op_("or", before(s, blank), first), s.op_("not", blank))


def _run(s: Site, flags: Value, begin: Value) -> Value:
    """The flags that follow each other from a begin on."""
    since = s.op_("gt", running(s, begin), 0)
    broken = running(s, s.op_("and", since, s.op_("not", flags)))
    return s.op_("and", since, s.op_("eq", broken, 0))


def _counting(s: Site, row: Value, digits: Value) -> Value:
    """The digits but for leading zeros."""
    filled = s.op_("and", digits, s.op_("ne", row, ord("0")))
    return s.op_("and", digits, s.op_("gt", running(s, filled), 0))


def _value(s: Site, row: Value, digits: Value) -> Value:
    """The number that digits make: u64 [rows, 1]. More than `EXACT` digits end the run."""
    digit = s.op_("where", digits, s.op_("sub", s.cast(row, DType.U64), ord("0")), 0)
    counting = _counting(s, row, digits)
    s.require_nonzero(
        s.op_("le", total(s, counting), EXACT), f"a number has more than {EXACT} digits"
    )
    power = s.op_("sub", total(s, counting), running(s, counting))
    table = constant(np.array([10**n for n in range(EXACT)], np.uint64))
    clamped = s.op_("max", s.op_("min", power, EXACT - 1), 0)
    factor = s.emit("gather", [table, clamped], axis=0)
    return s.reduce("sum", s.op_("mul", digit, factor), [1])


def _integer(s: Site, strings: Strings, dtype: DType) -> Value:
    """Numbers in two's complement: u64 [rows, 1]. Where the result has a sign, or is bool, one that
    an i64 does not hold ends the run."""
    row = strings.data
    negative, begin = _sign(s, row, _start(s, row))
    digits = _run(s, _digits(s, row), begin)
    s.require_nonzero(s.op_("gt", total(s, digits), 0), "a text begins with no number")
    value = _value(s, row, digits)
    if dtype.is_signed or dtype is DType.BOOL:
        most = s.scalar(np.iinfo(np.int64).max, DType.U64)
        beyond = s.op_("gt", value, s.op_("add", most, s.cast(negative, DType.U64)))
        s.require_nonzero(s.op_("not", beyond), "a number is beyond what an i64 holds")
    value = s.op_("where", negative, s.op_("sub", s.scalar(0, DType.U64), value), value)
    return s.cast(value, DType.I64) if dtype.is_signed else value


def _digits(s: Site, row: Value) -> Value:
    return s.op_("and", s.op_("ge", row, ord("0")), s.op_("le", row, ord("9")))


def _float(s: Site, strings: Strings) -> Value:
    row = strings.data
    negative, begin = _sign(s, row, _start(s, row))
    isdigit = _digits(s, row)
    s.require_nonzero(
        s.op_("eq", total(s, _hexadecimal(s, row, begin)), 0),
        "a float in hexadecimal is not read; write it with decimal digits",
    )
    whole = _run(s, isdigit, begin)
    behind = s.op_("and", s.op_("or", before(s, whole), begin), s.op_("not", whole))
    point = s.op_("and", behind, s.op_("eq", row, ord(".")))
    part = _run(s, isdigit, before(s, point))
    digits = s.op_("or", whole, part)
    last = s.op_("or", digits, point)
    mark = s.op_("and", s.op_("and", before(s, last), s.op_("not", last)), _among(s, row, b"eE"))
    down, power_begin = _sign(s, row, before(s, mark))
    power_digits = _run(s, isdigit, power_begin)
    power = s.cast(s.op_("min", _value(s, row, power_digits), POWERS * 2), DType.I64)
    power = s.op_("where", down, s.op_("neg", power), power)
    surplus = s.op_("gt", running(s, _counting(s, row, digits)), EXACT)
    power = s.op_("add", power, total(s, s.op_("and", whole, surplus)))
    kept = s.op_("not", surplus)
    power = s.op_("sub", power, total(s, s.op_("and", part, kept)))
    value = s.cast(_value(s, row, s.op_("and", digits, kept)), DType.F64)
    value = _scaled(s, value, power)
    infinite, nan = _named(s, row, begin, b"inf"), _named(s, row, begin, b"nan")
    there = s.op_("or", s.op_("or", infinite, nan), s.op_("gt", total(s, digits), 0))
    s.require_nonzero(there, "a text begins with no number")
    value = s.op_("where", infinite, float("inf"), value)
    value = s.op_("where", nan, float("nan"), value)
    return s.op_("where", negative, s.op_("neg", value), value)


def _hexadecimal(s: Site, row: Value, begin: Value) -> Value:
    """Where a number as C writes it in hexadecimal begins: `0x` and a digit, a point before it or
    not (ISO C, 7.22.1.3)."""
    lower = s.op_("bitor", row, 0x20)
    letter = s.op_("and", s.op_("ge", lower, ord("a")), s.op_("le", lower, ord("f")))
    digit = s.op_("or", _digits(s, row), letter)
    point = s.op_("and", s.op_("eq", row, ord(".")), after(s, digit))
    marked = s.op_("and", s.op_("eq", lower, ord("x")), after(s, s.op_("or", digit, point)))
    return s.op_("and", s.op_("and", begin, s.op_("eq", row, ord("0"))), after(s, marked))


def _scaled(s: Site, value: Value, power: Value) -> Value:
    """value * 10**power in two steps, none of which overflows or vanishes before the other."""
    for _ in range(2):
        step = s.op_("max", s.op_("min", power, 300), -300)
        table = constant(np.array([float(f"1e{n}") for n in range(301)]))
        factor = s.emit("gather", [table, s.op_("abs", step)], axis=0)
        up = s.op_("gt", step, 0)
        value = s.op_("where", up, s.op_("mul", value, factor), s.op_("div", value, factor))
        power = s.op_("sub", power, step)
    return value


def _named(s: Site, row: Value, begin: Value, name: bytes) -> Value:
    """Whether a name, in any case, stands at the begin: bool [rows, 1]."""
    found = begin
    for step, letter in enumerate(name):
        here = after(s, row, step) if step else row
        found = s.op_("and", found, s.op_("eq", s.op_("bitor", here, 0x20), letter))
    return s.op_("gt", total(s, found), 0)
