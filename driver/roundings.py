"""How far roundings alone move the results of a model that is quantised, or computed in halves.

Where values are rounded to integers or halves on the way, a difference in the last bit before such
a rounding becomes a whole step behind it, and grows from layer to layer: two engines that both
compute what the model says differ by far more than floats do. What is to be expected is measured:
the reference runs again with every float moved by a few units in its last place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..compiler.ir import Node
from .compare import Difference

Array = np.ndarray[Any, Any]

UNIT = 2.0**-21  # of a float: what some reordered sums of f32 differ by
RUNS = 3  # of the reference with floats moved: the first is what the others are compared with
# two engines differ as two such runs do, but for chance: where few elements make a number, by more
RMS_FACTOR, PEAK_FACTOR = 2.0, 4.0


@dataclass(frozen=True)
class RoundingSpread:
    """How far roundings move the elements of an output. rms: root of the mean square."""

    rms: float
    peak: float


def nudge(seed: int) -> Callable[[Node, Sequence[Array]], list[Array]]:
    """An observer of `Backend.evaluate` that moves every float which a node makes by up to `UNIT`
    of its size, at random."""
    rng = np.random.default_rng(seed)

    def moved(array: Array) -> Array:
        if array.dtype not in (np.float32, np.float64) or not array.size:
            return array
        factors = 1 + UNIT * (2 * np.asarray(rng.random(array.shape, np.float32)) - 1)
        with np.errstate(all="ignore"):
            return np.asarray(array * factors, array.dtype)

    return lambda node, results: [moved(np.asarray(result)) for result in results]


def spreads(runs: Iterable[Mapping[str, Array]]) -> dict[str, RoundingSpread]:
    """By output: how far apart runs of the reference with floats moved are."""
    first, *others = runs
    return {
        name: max((distance(other[name], array) for other in others), key=lambda s: (s.rms, s.peak))
        for name, array in first.items()
    }


def within_roundings(
    differences: Sequence[Difference],
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    found: Mapping[str, RoundingSpread],
) -> list[Difference]:
    """The differences, those that roundings explain told as such. found: see `spreads`."""
    return [
        d if d.agrees or d.name not in found else _judged(d, actual, expected, found[d.name])
        for d in differences
    ]


def _judged(
    difference: Difference,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    spread: RoundingSpread,
) -> Difference:
    name = difference.name
    if name not in actual or actual[name].shape != expected[name].shape:
        return difference
    if actual[name].dtype != expected[name].dtype or expected[name].dtype.kind not in "fiu":
        return difference
    size = distance(actual[name], expected[name])
    if size.rms > RMS_FACTOR * spread.rms or size.peak > PEAK_FACTOR * spread.peak:
        return difference
    return replace(difference, message="", roundings=spread.peak)


def distance(a: Array, b: Array) -> RoundingSpread:
    """How far two arrays are apart; infinite where only one of two elements is a number."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(left - right))
    gap = np.where(np.isfinite(gap), gap, np.inf)
    rms = float(np.sqrt(np.mean(np.square(gap)))) if gap.size else 0.0
    return RoundingSpread(rms, float(gap.max(initial=0.0)))
