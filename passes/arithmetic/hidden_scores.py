"""What hides a score: how low the number has to be that a mask adds to it, or puts in its place."""

from __future__ import annotations

import ml_dtypes

from ...compiler.ir.types import DType

# A score this low is gone: exp is 0 below -104 in f32 (the least subnormal is 2^-149) and below
# -746 in f64, and what is added to it is lost. Assumed: scores themselves stay far above it.
MASKED = -1e30
# Of the scores: where fewer are left out, all are computed in one piece. Assumed, not measured:
# each block is a kernel of its own, whose start and last rows that saving has to be worth.
LEAST_GAIN = 0.1


def lowest(dtype: DType) -> float:
    """The lowest number of a type of floats that is finite."""
    return float(ml_dtypes.finfo(dtype.numpy).min)


def hides_below(dtype: DType) -> float:
    """What hides a score where the elements of a mask have this type: `MASKED`, or the type's
    lowest number, of which no weight is left either."""
    return max(MASKED, lowest(dtype))
