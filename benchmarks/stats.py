"""Statistics of a comparison: pure functions of lists and arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of `values` do not exceed, linearly interpolated."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), share))


def geometric_mean(values: Sequence[float]) -> float:
    """Raises ValueError when `values` is empty or one is not positive."""
    if not values or min(values) <= 0:
        raise ValueError(f"geometric mean of {list(values)}")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def median_of_rounds(rounds: Sequence[Sequence[float]]) -> float:
    """Median over the rounds of the median within a round."""
    return median(median(seconds) for seconds in rounds)


def speed_ratio(own: Sequence[Sequence[float]], peer: Sequence[Sequence[float]]) -> float:
    """How many times faster `own` is than `peer`: median over the rounds of the ratio of their
    medians in the same round. What slows the machine for a while slows both, and cancels."""
    pairs = zip(own, peer, strict=True)
    return median(median(theirs) / median(ours) for ours, theirs in pairs)


@dataclass(frozen=True)
class Deviation:
    """How far outputs are from the reference.

    relative: largest over the outputs of max|a-b| / max|b|; inf where shapes, count, or the places
    of values that are not finite disagree. reason: which output, or why it is inf.
    """

    relative: float
    reason: str


def difference(outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Deviation:
    """Compare the outputs of an engine with those of the reference engine, in model order."""
    if len(outputs) != len(reference):
        return Deviation(math.inf, f"{len(outputs)} outputs instead of {len(reference)}")
    worst = Deviation(0.0, "equal")
    for index, (own, other) in enumerate(zip(outputs, reference, strict=True)):
        if own.shape != other.shape:
            return Deviation(math.inf, f"output {index}: shape {own.shape}, not {other.shape}")
        a, b = own.astype(np.float64), other.astype(np.float64)
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return Deviation(math.inf, f"output {index}: infinities or NaN elsewhere")
        gap = float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))
        if math.isnan(gap):
            return Deviation(math.inf, f"output {index}: infinities or NaN elsewhere")
        peak = float(np.max(np.abs(b[finite]), initial=0.0))
        relative = 0.0 if gap == 0 else gap / peak if peak else math.inf
        if relative > worst.relative:
            worst = Deviation(relative, f"output {index}")
    return worst
