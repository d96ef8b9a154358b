"""Places of numbers in a list that is known when compiling."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...site import Site
from .perfect_hash import perfect_hash

Array = np.ndarray[Any, Any]
DENSE = 8  # entries of a table for each key
MAX_KEY = 1 << 30
BISECTED = 32  # keys, up to which halving the list reads no more tables than a hash does
_WORD = 32  # bits
_WORDS = {DType.I32: 1, DType.F32: 1, DType.I64: 2, DType.F64: 2}  # of those that are hashed


def lie_close(keys: Array) -> bool:
    """Whether a table from the least to the greatest key is not mostly empty, and within an i32."""
    if keys.dtype not in (np.int32, np.int64) or not len(keys):
        return False
    low, high = int(keys.min()), int(keys.max())
    return high - low < DENSE * len(keys) and -MAX_KEY < low <= high < MAX_KEY


def bisect(s: Site, x: Value, table: Array) -> Value:
    """The index of the last entry of a sorted table that is not above x (0 if there is none)."""
    low = s.expand(s.scalar(0, DType.I32), x.shape)
    step = 1 << (len(table).bit_length() - 1)
    while step:
        probe = s.op_("min", s.op_("add", low, step), len(table) - 1)
        low = s.op_("where", s.op_("le", _at(s, table, probe), x), probe, low)
        step >>= 1
    return low


def without_denormals(keys: Array) -> Array:
    """Keys as compiled code compares them: floats below the normal ones are 0, and -0 is.

    Some may be equal after it, which were not."""
    if keys.dtype not in (np.float32, np.float64):
        return keys
    flushed = np.where(np.abs(keys) < np.finfo(keys.dtype).tiny, keys.dtype.type(0), keys)
    return np.asarray(flushed)


def denormals_flushed(s: Site, x: Value) -> Value:
    """The same of numbers of a run, whatever it is that runs."""
    if x.dtype not in (DType.F32, DType.F64):
        return x
    tiny = float(np.finfo(x.dtype.numpy).tiny)
    return s.op_("where", s.op_("lt", s.op_("abs", x), tiny), 0.0, x)


def place_among_numbers(s: Site, x: Value, keys: Array) -> Value:
    """The index (i32) at which each number is among sorted different keys, none of them NaN nor
    denormal; of a number that is no key, that of any.
    """
    words = _WORDS.get(x.dtype, 0)
    if len(keys) <= BISECTED or not words:
        return bisect(s, x, keys)
    kept = np.ascontiguousarray(keys + keys.dtype.type(0))  # makes 0 of -0, which equals it
    parts = kept.view(f"<u{_WORD // 8}").reshape(len(keys), words).T

    def hashes(factors: Array) -> Array:
        return np.asarray((factors[:, :, None] * parts).sum(1, dtype=np.uint32))

    factors, found = perfect_hash((words,), hashes)
    given = [s.cast(part, DType.U32) for part in _words(s, x)]
    first, second = (
        functools.reduce(
            lambda a, b: s.op_("add", a, b),
            [s.op_("mul", part, int(a)) for part, a in zip(given, line, strict=True)],
        )
        for line in factors
    )
    return found.find(s, first, second)


def _words(s: Site, x: Value) -> list[Value]:
    """The bits of numbers, from the lowest on, in words of 32; -0 as 0."""
    if x.dtype.is_float:
        x = s.op_("where", s.op_("eq", x, 0.0), 0.0, x)
    if _WORDS[x.dtype] == 1:
        return [s.emit("bitcast", [x], dtype=DType.U32)]
    bits = s.emit("bitcast", [x], dtype=DType.U64)
    return [s.op_("bitand", bits, (1 << _WORD) - 1), s.op_("shr", bits, _WORD)]


def number_among(s: Site, x: Value, keys: Array) -> Value:
    """1 + the place (i32) of each integer among sorted different keys; 0 for one that is none."""
    if not len(keys):
        return s.expand(s.scalar(0, DType.I32), x.shape)
    wide = s.cast(x, DType.I64)
    if lie_close(keys):
        low, high = int(keys[0]), int(keys[-1])
        table = np.zeros(high - low + 3, np.int32)
        table[keys - low + 1] = np.arange(1, len(keys) + 1)
        inside = s.op_("min", s.op_("max", wide, low - 1), high + 1)
        return _at(s, table, s.op_("sub", inside, low - 1))
    place = place_among_numbers(s, wide, keys)
    hit = s.op_("eq", _at(s, keys, place), wide)
    return s.op_("where", hit, s.op_("add", place, 1), 0)


def _at(s: Site, table: Array, index: Value) -> Value:
    return s.emit("gather", [constant(np.ascontiguousarray(table)), index], axis=0)
