"""Numbers as text and text as numbers, as functions of the C library write and read them.

Texts are their bytes, u8 [..., width], with zeros behind the shorter ones. Source of the forms: ISO
C, 7.21.6.1 (`%g`) and 7.22.1 (`strtod`, `strtoll`), in the locale "C".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..graph import Value
from ..types import DType, TensorType
from .common import need_dtype
from .registry import REQUIRED, Array, OpDef, Trait, register

BESIDE_DIGITS = 7  # characters of a float: two signs, the point, letter and digits of the exponent
FLOATS = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16})
NUMBERS = frozenset({DType.I64, DType.U64, DType.F64})
_SPACES = b" \t\n\v\f\r"
_INTEGER = re.compile(rb"(?P<sign>[+-]?)(?P<digits>[0-9]+)")
_DIGITS = 20  # of the largest integer, 2**64 - 1
_FLOAT = re.compile(
    rb"(?P<sign>[+-]?)(?:(?P<name>inf|nan)"
    rb"|0x(?P<hex>[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p(?P<turn>[+-]?)(?P<twos>[0-9]+))?"
    rb"|(?P<digits>[0-9]+\.?[0-9]*|\.[0-9]+)(?:e(?P<tens>[+-]?[0-9]+))?)"
)
_FAR = 1 << 20  # powers of two beyond it make zero or infinity of what is in front of them


def _infer_write(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, digits = inputs[0], attrs["digits"]
    need_dtype(x, FLOATS, "the operand")
    if not 1 <= digits <= 17:
        raise ValueError(f"{digits} digits; a float has 1 to 17")
    return [TensorType(DType.U8, (*x.shape, digits + BESIDE_DIGITS))]


def _write(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, digits = args[0].astype(np.float64), attrs["digits"]
    width = digits + BESIDE_DIGITS
    texts = [_written(number, digits).encode() for number in x.reshape(-1).tolist()]
    rows = np.array(texts, f"S{width}")
    return [rows.view(np.uint8).reshape(*x.shape, width)]


def _written(number: float, digits: int) -> str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    return f"{number:.{digits}g}"


def _infer_read(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    need_dtype(x, frozenset({DType.U8}), "the operand")
    if not x.type.rank:
        raise ValueError("a scalar is no text")
    if attrs["dtype"] not in NUMBERS:
        raise ValueError(f"text is read as i64, u64 or f64, and not as {attrs['dtype']}")
    return [TensorType(attrs["dtype"], x.shape[:-1])]


def _read(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    rows, dtype = args[0], attrs["dtype"]
    found = np.zeros(rows.shape[:-1], dtype.numpy)
    for index in np.ndindex(found.shape):
        text = rows[index].tobytes().partition(b"\0")[0].lstrip(_SPACES)
        number = _read_float(text) if dtype.is_float else _read_integer(text, dtype)
        if number is None:
            raise RunError(attrs["what"])
        found[index] = number
    return [found]


def _read_integer(text: bytes, dtype: DType) -> Any:
    """The number in two's complement; None where the type does not hold it, or there is none."""
    found = _INTEGER.match(text)
    if found is None:
        return None
    number, info = _whole(found["sign"], found["digits"]), np.iinfo(dtype.numpy)
    least = info.min if dtype.is_signed else -info.max
    if not least <= number <= info.max:
        return None
    return dtype.numpy.type(number % (1 << 64)) if not dtype.is_signed else number


def _whole(sign: bytes, digits: bytes) -> int:
    """The integer; one that no type holds for any that has more digits than they."""
    digits = digits.lstrip(b"0") or b"0"
    return int(sign + (digits if len(digits) <= _DIGITS else b"1" + b"0" * _DIGITS))


def _read_float(text: bytes) -> float | None:
    """The nearest f64; None where it is too large, or there is no number."""
    found = _FLOAT.match(text.lower())
    if found is None:
        return None
    sign = -1.0 if found["sign"] == b"-" else 1.0
    if found["name"]:
        return math.copysign(float(found["name"]), sign)
    if found["digits"]:
        nearest = float(found["digits"] + b"e" + (found["tens"] or b"0"))
    else:
        power = _whole(found["turn"] or b"", found["twos"] or b"0")
        nearest = _hexadecimal(found["hex"], power)
    return None if math.isinf(nearest) else sign * nearest


def _hexadecimal(digits: bytes, power: int) -> float:
    text = f"0x{digits.decode()}p{max(-_FAR, min(power, _FAR))}"
    try:
        return float.fromhex(text)
    except OverflowError:
        return math.inf


register(
    OpDef(
        "write_floats",
        _infer_write,
        _write,
        Trait.DISCRETE,
        attrs={"digits": REQUIRED},
        arity=(1, 1),
    )
)
register(
    OpDef(
        "read_numbers",
        _infer_read,
        _read,
        attrs={"dtype": REQUIRED, "what": REQUIRED},
        arity=(1, 1),
    )
)
