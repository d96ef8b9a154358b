"""Scaling of 32-bit sums in integer arithmetic: a real scale is a 31-bit multiplier and a shift.

"double" rounds twice, as TFLite's MultiplyByQuantizedMultiplier does: the high half of the doubled
product is rounded (ties away from zero), then the shift (ties away from zero). "single" rounds
once, half up, as TOSA's apply_scale_32 without double_round and TFLite's single-rounding kernels.
Sources: TOSA 1.0 specification, section "Integer scaling"; gemmlowp, fixedpoint.h; TensorFlow Lite,
quantization_util.cc (QuantizeMultiplier).
"""

from __future__ import annotations

import numpy as np

from .registry import Array

ROUNDINGS = ("single", "double")
_BITS = 31


def multiplier_of(scale: Array) -> tuple[Array, Array]:
    """(multiplier, shift), i64: scale = multiplier * 2 ** -shift, multipliers of 31 bits.

    Scales too small for a shift of 62 become 0.
    """
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    multiplier = np.rint(mantissa * (1 << _BITS)).astype(np.int64)
    over = multiplier == 1 << _BITS
    multiplier = np.where(over, multiplier >> 1, multiplier)
    shift = _BITS - (exponent.astype(np.int64) + over)
    gone = shift > 62
    return np.where(gone, 0, multiplier), np.where(gone, 62, shift)


def scaled(total: Array, scale: Array, rounding: str) -> Array:
    """total (i32) times scale, rounded to i64 by the rule."""
    multiplier, shift = multiplier_of(scale)
    wide = total.astype(np.int64)
    if rounding == "single":
        left = np.maximum(-shift, 0)
        right = np.maximum(shift, 0)
        half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
        once: Array = ((wide << left) * multiplier + half) >> right
        return once
    left, right = np.maximum(_BITS - shift, 0), np.maximum(shift - _BITS, 0)
    return _rounding_shift(_doubling_high(wide << left, multiplier), right)


def mean_scale(count: int) -> float:
    """The f32 next above 1 / count. A sum of so many bytes, rounded once by it, is their mean as
    TOSA's AVG_POOL2D rounds it, whose multiplier is above 1 / count, too: halves away from 0 where
    they are negative, up where they are not."""
    return float(np.nextafter(np.float32(1.0 / count), np.float32(2.0)))


def _doubling_high(a: Array, b: Array) -> Array:
    """The high half of 2 * a * b, rounded to nearest, ties away from zero."""
    product = a * b
    nudge = np.where(product >= 0, np.int64(1 << 30), np.int64(1 - (1 << 30)))
    total = product + nudge
    return np.where(total >= 0, total >> _BITS, -((-total) >> _BITS))


def _rounding_shift(x: Array, exponent: Array) -> Array:
    """x / 2 ** exponent, rounded to nearest, ties away from zero."""
    mask = (np.int64(1) << exponent) - 1
    rest = x & mask
    threshold = (mask >> 1) + (x < 0)
    rounded: Array = (x >> exponent) + (rest > threshold)
    return rounded
