"""What hides a score: how low the number has to be that a mask adds to it, or puts in its place."""

from __future__ import annotations

import ml_dtypes

from ...compiler.ir.types import DType

MASKED = -1e30  # a score this low is gone in f32 and below, whatever is added to it
LEAST_GAIN = 0.1  # of the scores: where fewer are left out, all are computed in one piece


def lowest(dtype: DType) -> float:
    """The lowest number of a type of floats that is finite."""
    return float(ml_dtypes.finfo(dtype.numpy).min)


def hides_below(dtype: DType) -> float:
    """What hides a score where the elements of a mask have this type: `MASKED`, or the type's
    lowest number, of which no weight is left either."""
    return max(MASKED, lowest(dtype))
