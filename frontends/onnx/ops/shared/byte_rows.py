"""Strings as rows of bytes, and arithmetic along these: neighbours, counts, cutting into parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.dims import dmax, product
from ...containers import Text
from ...site import Site
from ...text_moves import widened

SPACES = b" \t\n\v\f\r"


@dataclass(frozen=True)
class Strings:
    """data: u8 [rows, width], with at least one zero behind every string; shape: of the strings."""

    data: Value
    shape: tuple[Dim, ...]


def strings_of(s: Site) -> Strings:
    """The first input. Raises ValueError where that is no string."""
    entry = s.entries[0]
    if not isinstance(entry, Text):
        raise ValueError("its input is not strings")
    shape = entry.data.shape[:-1]
    rows = s.reshape(entry.data, (product(shape), entry.data.shape[-1]))
    return Strings(widened(s.emitter, rows, rows.shape[-1] + 1), shape)


def before(s: Site, row: Value, steps: int = 1) -> Value:
    """What stands some bytes earlier in rows [rows, width]; zeros, or false, at the beginning."""
    width = row.shape[1]
    pads = (0, steps, 0, 0)
    longer = s.emit("pad", [row, s.scalar(0, row.dtype)], pads=pads, mode="constant")
    return s.slice(longer, 1, 0, width)


def after(s: Site, row: Value, steps: int = 1) -> Value:
    """What stands some bytes later; zeros, or false, at the end."""
    width = row.shape[1]
    pads = (0, 0, 0, steps)
    longer = s.emit("pad", [row, s.scalar(0, row.dtype)], pads=pads, mode="constant")
    return s.slice(longer, 1, steps, width + steps)


def running(s: Site, flags: Value) -> Value:
    """How many are true up to each byte, it included: i64 [rows, width]."""
    return s.emit("cumsum", [s.cast(flags, DType.I64)], axis=1)


def total(s: Site, flags: Value) -> Value:
    """How many are true in each row: i64 [rows, 1]."""
    return s.reduce("sum", s.cast(flags, DType.I64), [1])


def begins_character(s: Site, row: Value) -> Value:
    """Whether a byte is the first of a character in UTF-8 (RFC 3629): not 0b10......"""
    return s.op_("and", s.op_("ne", row, 0), s.op_("ne", s.op_("bitand", row, 0xC0), 0x80))


def cut(s: Site, strings: Strings, number: Value, counts: Value, missing: str = "") -> Text:
    """The parts of each string: [..., as many as the string with most parts has].

    number: i64 [rows, width], to which part a byte belongs, -1 to none; the bytes of a part lie
    side by side, and one without bytes is empty. counts: i64 [rows, 1], of parts. missing: what
    stands behind the parts of strings that have fewer.
    """
    rows, width = strings.data.shape
    (many,) = s.dims(_greatest(s, counts))
    last = s.reshape(s.emitter.virtual([width - 1]), ())
    places = s.expand(s.iota((1, width), 1, DType.I64), (rows, width))
    start = _by_part(s, number, many, places, last, "min")
    ones = s.expand(s.scalar(1, DType.I64), (rows, width))
    length = _by_part(s, number, many, ones, s.scalar(0, DType.I64), "add")
    (longest,) = s.dims(_greatest(s, length))
    step = s.iota((1, 1, longest), 2, DType.I64)
    index = s.op_("min", s.op_("add", start, step), last)
    flat = s.reshape(index, (rows, many * longest))
    bytes_ = s.reshape(
        s.emit("gather_elements", [strings.data, flat], axis=1), (rows, many, longest)
    )
    bytes_ = s.op_("where", s.op_("lt", step, length), bytes_, 0)
    if missing:
        rest = constant(np.frombuffer(missing.encode(), np.uint8).copy())
        there = s.op_("lt", s.iota((1, many, 1), 1, DType.I64), s.reshape(counts, (rows, 1, 1)))
        wide = dmax(longest, rest.shape[0])
        bytes_ = widened(s.emitter, bytes_, wide)
        bytes_ = s.op_("where", there, bytes_, widened(s.emitter, rest, wide))
    return Text(s.reshape(bytes_, (*strings.shape, many, bytes_.shape[-1])))


def _by_part(
    s: Site, number: Value, many: Dim, values: Value, initial: Value, reduction: str
) -> Value:
    """The values of the bytes of each part put together: [rows, many, 1]; `initial` where there
    are none. Bytes of no part go to a column behind the others."""
    rows = number.shape[0]
    beyond = s.reshape(s.emitter.virtual([many]), ())
    index = s.op_("where", s.op_("lt", number, 0), beyond, number)
    found = s.emit(
        "scatter_elements",
        [s.expand(initial, (rows, many + 1)), index, values],
        axis=1,
        reduction=reduction,
    )
    return s.reshape(s.slice(found, 1, 0, many), (rows, many, 1))


def _greatest(s: Site, counts: Value) -> Value:
    """The greatest of some counts, 0 where there are none: i64 [1]."""
    flat = s.reshape(counts, (product(counts.shape),))
    some = s.emit("concat", [flat, constant(np.zeros(1, np.int64))], axis=0)
    return s.reduce("max", some, [0])
