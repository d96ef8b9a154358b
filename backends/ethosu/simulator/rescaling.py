"""Scaling of integers with a shift to the right, in every rounding that the hardware has."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]
_SAFE = 1 << 62
HIGH_BITS = 31  # that double rounding drops first


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


def rescale(
    values: Integers, scale: Any, shift: Any, rounding: ShiftRounding, first: int = HIGH_BITS
) -> Integers:
    """values * scale / 2**shift, exactly, rounded as said; scale and shift may be arrays.

    first: bits that double rounding drops first. Results that 63 bits do not hold are saturated.
    """
    scale = np.asarray(scale, np.int64)
    shift = np.asarray(shift, np.int64)
    largest = _magnitude(values) * _magnitude(scale)
    if largest + (1 << int(shift.max(initial=0))) < _SAFE:
        return _rounded(values * scale, shift, rounding, first)
    exact = np.frompyfunc(_exactly(rounding, first), 3, 1)
    limits = np.iinfo(np.int64)
    return np.asarray(
        np.clip(exact(values, scale, shift), limits.min // 2, limits.max // 2).astype(np.int64)
    )


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


_ROUND: dict[ShiftRounding, Callable[[Integers, Any], Integers]] = {
    ShiftRounding.NATURAL: _natural,
    ShiftRounding.SYMMETRIC: _symmetric,
    ShiftRounding.TRUNCATE: _truncate,
    ShiftRounding.FLOOR: _floor,
}
_SECOND = {ShiftRounding.DOUBLE: _symmetric, ShiftRounding.DOUBLE_UP: _natural}


def _rounded(values: Integers, shift: Any, rounding: ShiftRounding, first: int) -> Integers:
    if rounding in _ROUND:
        return _ROUND[rounding](values, shift)
    rest = np.maximum(shift - first, 0)
    high = _natural(values, np.minimum(shift, first))
    return np.where(rest > 0, _SECOND[rounding](high, rest), high)


def _exactly(rounding: ShiftRounding, first: int) -> Callable[[Any, Any, Any], int]:
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
        if rounding is ShiftRounding.NATURAL or count <= first:
            return nearest(product, count)
        second = away if rounding is ShiftRounding.DOUBLE else nearest
        return second(nearest(product, first), count - first)

    return scaled
