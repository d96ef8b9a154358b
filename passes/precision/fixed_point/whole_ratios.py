"""Scales of what is added up, in the ratio of small whole numbers.

One of both scales is changed for that, by no more than `MOST_CHANGE`: at the ends of a range half a
step on both sides of zero, a step on one side alone. The sum is then one of whole numbers times
bytes, which a convolution can compute to the bit.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from .operands import MOST

MOST_CHANGE = 1 / 254  # of a scale: half a step at 127 steps from zero


def whole_ratio(ratio: float, most: int = MOST) -> Fraction:
    """The nearest fraction of whole numbers up to the most; 0 where that is nearest. ratio:
    positive."""
    near = Fraction(min(ratio, 1 / ratio)).limit_denominator(most)
    return near if ratio <= 1 or not near else 1 / near


def scale_in_ratio(scale: float, other: float) -> float:
    """A scale near to one, whose ratio to another is that of whole numbers up to 127, the smallest
    ones that change it by no more than half of `MOST_CHANGE`: the fewer numbers a sum may be, the
    fewer are near to halves, which are rounded otherwise by anything that is a little off. Where
    none do, the nearest one, or itself, if that changes it by more than `MOST_CHANGE`."""
    for most in range(1, MOST + 1):
        found = float(np.float32(other * float(whole_ratio(scale / other, most))))
        if abs(found / scale - 1) <= MOST_CHANGE / 2:
            return found
    return found if abs(found / scale - 1) <= MOST_CHANGE else scale
