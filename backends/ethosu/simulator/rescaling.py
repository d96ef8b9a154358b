"""Scaling of integers with a shift to the right, in every rounding that the hardware has."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]
_SAFE = 1 << 62
_HIGH_BITS = 31  # that double rounding drops first


class ShiftRounding(Enum):
    """How a shift to the right rounds.

    NATURAL: to nearest, halves up. DOUBLE: first 31 bits, to nearest, halves up, then the rest, to
    nearest, halves away from zero (shifts of up to 31 as NATURAL): gemmlowp's, which TFLite has.
    DOUBLE_UP: the same with halves up in both steps. SYMMETRIC: to nearest, halves away from zero.
    """

    DOUBLE = "double"
    NATURAL = "natural"
    TRUNCATE = "toward zero"
    DOUBLE_UP = "double, halves up"
    SYMMETRIC = "symmetric"
    FLOOR = "down"


def rescale(values: Integers, scale: Any, shift: Any, rounding: ShiftRounding) -> Integers:
    """values * scale / 2**shift, exactly, rounded as said; scale and shift may be arrays."""
    scale = np.asarray(scale, np.int64)
    shift = np.asarray(shift, np.int64)
    largest = _magnitude(values) * _magnitude(scale)
    if largest + (1 << int(shift.max(initial=0))) < _SAFE:
        return _ROUND[rounding](values * scale, shift)
    exact = np.frompyfunc(_exactly(rounding), 3, 1)
    return np.asarray(exact(values, scale, shift).astype(np.int64))


def _magnitude(values: Integers) -> int:
    """The largest absolute value."""
    return max(abs(int(values.min(initial=0))), abs(int(values.max(initial=0))))


def _half(shift: Any) -> Any:
    """What rounds to nearest: 2**(shift - 1), or 0."""
    return (np.left_shift(1, shift, dtype=np.int64)) >> 1


def _natural(values: Integers, shift: Any) -> Integers:
    return np.asarray((values + _half(shift)) >> shift)


def _symmetric(values: Integers, shift: Any) -> Integers:
    half = _half(shift)
    return np.asarray(np.where(values < 0, -(half - values >> shift), values + half >> shift))


def _truncate(values: Integers, shift: Any) -> Integers:
    return np.asarray(np.where(values < 0, -(-values >> shift), values >> shift))


def _floor(values: Integers, shift: Any) -> Integers:
    return np.asarray(values >> shift)


def _twice(second: Callable[[Integers, Any], Integers]) -> Callable[[Integers, Any], Integers]:
    def rounded(values: Integers, shift: Any) -> Integers:
        rest = np.maximum(shift - _HIGH_BITS, 0)
        high = _natural(values, np.minimum(shift, _HIGH_BITS))
        return np.where(rest > 0, second(high, rest), high)

    return rounded


_ROUND: dict[ShiftRounding, Callable[[Integers, Any], Integers]] = {
    ShiftRounding.NATURAL: _natural,
    ShiftRounding.SYMMETRIC: _symmetric,
    ShiftRounding.TRUNCATE: _truncate,
    ShiftRounding.FLOOR: _floor,
    ShiftRounding.DOUBLE: _twice(_symmetric),
    ShiftRounding.DOUBLE_UP: _twice(_natural),
}


def _exactly(rounding: ShiftRounding) -> Callable[[Any, Any, Any], int]:
    """The same for Python's integers, where 64 bits do not hold the product."""

    def nearest(value: int, shift: int) -> int:
        return value + (1 << shift >> 1) >> shift

    def away(value: int, shift: int) -> int:
        return -nearest(-value, shift) if value < 0 else nearest(value, shift)

    def scaled(value: Any, scale: Any, shift: Any) -> int:
        product, count = int(value) * int(scale), int(shift)
        if rounding is ShiftRounding.FLOOR:
            return product >> count
        if rounding is ShiftRounding.TRUNCATE:
            return -(-product >> count) if product < 0 else product >> count
        if rounding is ShiftRounding.SYMMETRIC:
            return away(product, count)
        if rounding is ShiftRounding.NATURAL or count <= _HIGH_BITS:
            return nearest(product, count)
        second = away if rounding is ShiftRounding.DOUBLE else nearest
        return second(nearest(product, _HIGH_BITS), count - _HIGH_BITS)

    return scaled
