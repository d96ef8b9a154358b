"""How much worse a model is than another on the same samples, with an interval; and budgets.

Samples are paired: what both get right or wrong says nothing of the difference between them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...compiler.errors import UsageError

Array = np.ndarray[Any, Any]

NORMAL = 1.6449  # quantile of 95 %: an interval of 90 % has it as both bounds
JACKKNIFE_GROUPS = 20
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?(?:e-?\d+)?|\.\d+)\s*(%|dB)?\s*", re.IGNORECASE)
_REMEDY = "such as 0.5% or 0.005; of the metric snr also in decibels, such as 30dB"


@dataclass(frozen=True)
class Limit:
    """The most that a metric may get worse. share: of what "%" stands for; else in its own unit."""

    amount: float
    percent: bool = False
    decibels: bool = False

    @classmethod
    def of(cls, given: str | float) -> Limit:
        """What a text such as "0.5%", "0.005" or "30dB", or a number, says.

        Raises UsageError for anything else, and for what is less than 0.
        """
        if isinstance(given, int | float) and not isinstance(given, bool):
            if not math.isfinite(given) or given < 0:
                raise UsageError(f"an accuracy drop of {given} cannot be allowed", remedy=_REMEDY)
            return cls(float(given))
        found = _NUMBER.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            raise UsageError(f"{given!r} is not an accuracy drop", remedy=f"give one {_REMEDY}")
        amount, unit = float(found[1]), (found[2] or "").lower()
        return cls(amount / 100 if unit == "%" else amount, unit == "%", unit == "db")

    def in_unit(self, exact: float, relative: bool) -> float:
        """In the unit of a metric. exact: the figure in f32; relative: percents are of that."""
        if self.decibels:
            return float(10.0 ** (-self.amount / 10.0))
        return self.amount * abs(exact) if self.percent and relative else self.amount

    def __str__(self) -> str:
        if self.decibels:
            return f"{self.amount:g} dB"
        return f"{self.amount * 100:g}%" if self.percent else f"{self.amount:g}"


def limit_of(given: Limit, metric: str, exact: float, relative: bool) -> float:
    """The most that the figure of a metric may drop, in its unit.

    Raises UsageError for decibels of another metric than snr.
    """
    if given.decibels and metric != "snr":
        raise UsageError(
            f"a drop of {given} is one of the metric snr, and the metric is {metric}",
            remedy="give --metric snr, or a drop such as 0.5%",
        )
    return given.in_unit(exact, relative)


@dataclass(frozen=True)
class Drop:
    """How much worse a figure is than that of f32.

    drop: positive where it is worse; low, high: bounds of an interval of 90 %: with 95 % confidence
    the drop of further samples of this kind is not above `high`. score, exact: both figures. rows:
    how many results were compared. whole: whether all were; else the search had seen enough.
    """

    drop: float
    low: float
    high: float
    score: float
    exact: float
    rows: int
    whole: bool = True

    def meets(self, limit: float) -> bool:
        """Whether the measured drop is within a limit."""
        return self.drop <= limit + 1e-12

    def proves(self, limit: float) -> bool:
        """Whether the data show, with 95 % confidence, that the drop is within a limit."""
        return self.high <= limit + 1e-12

    def rows_to_prove(self, limit: float) -> int | None:
        """How many results, about, would show that; None where the drop is not within it, or where
        one result says nothing of how much they differ."""
        if self.drop >= limit or not math.isfinite(self.high):
            return None
        return math.ceil(self.rows * ((self.high - self.drop) / (limit - self.drop)) ** 2)

    def to_json(self) -> dict[str, Any]:
        """For journals and reports."""
        return asdict(self)


def _quantile(rows: int) -> float:
    """That of Student's distribution for 95 % (Abramowitz and Stegun, 26.7.5)."""
    z, v = NORMAL, max(rows - 1, 1)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)


def mean_drop(losses: Array, score: float, exact: float, *, whole: bool = True) -> Drop:
    """Of what each result lost. Where results are right or wrong (losses of -1, 0 and 1) the
    interval is that of A. Agresti and Y. Min, "Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine 24 (2005): half a result more in each cell."""
    count, mean = len(losses), float(np.mean(losses))
    if np.isin(losses, (-1.0, 0.0, 1.0)).all():
        worse, better = (float(np.sum(losses == sign)) + 0.5 for sign in (1.0, -1.0))
        total = count + 2.0
        centre = (worse - better) / total
        spread = math.sqrt(max(worse + better - (worse - better) ** 2 / total, 0.0)) / total
        half, low = NORMAL * spread, 0.0
        low, high = min(mean, centre - half), max(mean, centre + half)
        return Drop(mean, low, high, score, exact, count, whole)
    if count < 2:
        return Drop(mean, -math.inf, math.inf, score, exact, count, whole)
    half = _quantile(count) * float(np.std(losses, ddof=1)) / math.sqrt(count)
    return Drop(mean, mean - half, mean + half, score, exact, count, whole)


def jackknife_drop(
    both: Callable[[Sequence[int]], tuple[float, float]],
    loss: Callable[[float, float], float],
    count: int,
    *,
    whole: bool = True,
) -> Drop:
    """Of a figure that is no mean: by leaving out one of up to 20 groups of samples at a time.

    both: the figures of some samples, (score, exact). loss: the drop that two figures make. See P.
    Kott, "The delete-a-group jackknife", Journal of Official Statistics 17 (2001).
    """
    every = range(count)
    score, exact = both(every)
    drop = loss(score, exact)
    groups = min(count, JACKKNIFE_GROUPS)
    if groups < 2:
        return Drop(drop, -math.inf, math.inf, score, exact, count, whole)
    parts = [loss(*both([i for i in every if i % groups != g])) for g in range(groups)]
    spread = math.sqrt((groups - 1) / groups * float(np.sum((np.array(parts) - drop) ** 2)))
    half = _quantile(groups) * spread
    return Drop(drop, drop - half, drop + half, score, exact, count, whole)
