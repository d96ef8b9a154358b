"""What paired measurements prove: medians with intervals, and sign tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

CONFIDENCE = 0.95


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds that hold the median of what the values are drawn from, at 95 % or more.

    Of few values (under six) they are the least and the greatest, which hold it less often; of none
    they are infinite. Source: order statistics; W. J. Conover, Practical Nonparametric Statistics,
    3rd ed., section 3.2.
    """
    if not values:
        return -math.inf, math.inf
    ordered, count = sorted(values), len(values)
    outside = 0
    while 2 * at_most(outside, count) <= 1 - CONFIDENCE:
        outside += 1
    outside = max(0, outside - 1)
    return ordered[outside], ordered[count - 1 - outside]


def at_most(wins: int, count: int) -> float:
    """How probable so many or fewer heads are of `count` throws of a fair coin."""
    return float(sum(math.comb(count, n) for n in range(wins + 1)) / 2**count)


def sign_test(wins: int, count: int) -> float:
    """How probable so many or more wins are where both are equally fast."""
    return at_most(count - wins, count)


def spread(values: Sequence[float]) -> float:
    """How far values lie from their median, in the median; 0 of none."""
    if not values:
        return 0.0
    middle = median(values)
    return median(abs(value - middle) for value in values)
