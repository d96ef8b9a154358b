"""Scales of results whose range an operator itself limits.

A scale is a power of two below that which holds all results, as small as what calibration shows
permits: what reaches more than half of the range keeps the whole of it.
"""

from __future__ import annotations

from collections.abc import Mapping

Scale = tuple[float, int]  # and the zero point
_WHOLE: Mapping[str, Scale] = {  # that hold all results
    "softmax": (2.0**-8, -128),
    "sigmoid": (2.0**-8, -128),
    "tanh": (2.0**-7, 0),
}
_LEAST: Mapping[str, float] = {  # of softmax, so that reciprocals of sums have 7 bits or more
    "softmax": 2.0**-15,
    "sigmoid": 2.0**-60,
    "tanh": 2.0**-60,
}


def whole_scale(op: str) -> Scale | None:
    """(scale, zero point) that hold all results of an operator as i8; None where nothing does."""
    return _WHOLE.get(op)


def fitting_scale(op: str, low: float, high: float) -> Scale | None:
    """(scale, zero point) that hold results of an operator from `low` to `high` as i8; None where
    nothing holds all of them."""
    whole = _WHOLE.get(op)
    if whole is None:
        return None
    scale, zero = whole
    while scale > _LEAST[op] and _holds(scale / 2, zero, low, high):
        scale /= 2
    return scale, zero


def _holds(scale: float, zero: int, low: float, high: float) -> bool:
    return (-128 - zero) * scale <= low and high <= (127 - zero) * scale
