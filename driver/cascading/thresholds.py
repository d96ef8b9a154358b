"""From which confidence on a small model is believed: chosen on some samples, told of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import BudgetError, UsageError
from ..budget.drops import Drop, jackknife_drop, mean_drop
from ..budget.metrics import Metric, Record

Array = np.ndarray[Any, Any]

MOST_TRIED = 400  # thresholds
LEAST_SAMPLES = 16


@dataclass(frozen=True)
class JudgedSamples:
    """What two models give for samples: a record of each by a metric, and how sure the small one
    is of it (the least of its rows)."""

    metric: Metric
    small: Sequence[Record]
    large: Sequence[Record]
    confidences: Array

    def part(self, first: int) -> JudgedSamples:
        """Every second sample: from the first (0) or the second (1) on."""
        return JudgedSamples(
            self.metric, self.small[first::2], self.large[first::2], self.confidences[first::2]
        )

    def mixed(self, threshold: float) -> list[Record]:
        """The records of a cascade."""
        deferred = self.confidences < np.float32(threshold)
        rows = zip(self.small, self.large, deferred, strict=True)
        return [large if late else small for small, large, late in rows]

    def deferred(self, threshold: float) -> float:
        """The share of samples that the large model sees."""
        return float(np.mean(self.confidences < np.float32(threshold)))

    def drop(self, threshold: float) -> Drop:
        """What a cascade loses against the large model alone."""
        mixed, metric = self.mixed(threshold), self.metric
        score, exact = metric.value(mixed), metric.value(self.large)
        if metric.figure is None:
            losses = [metric.loss(a, b) for a, b in zip(mixed, self.large, strict=True)]
            return mean_drop(np.concatenate(losses), score, exact)

        def both(chosen: Sequence[int]) -> tuple[float, float]:
            return (
                metric.value([mixed[n] for n in chosen]),
                metric.value([self.large[n] for n in chosen]),
            )

        return jackknife_drop(both, metric.loss, len(mixed))


@dataclass(frozen=True)
class ThresholdChoice:
    """threshold: from which on the small model's answer is taken. chosen_deferred, chosen_drop: on
    the samples that it was chosen on; deferred, drop: on the others."""

    threshold: float
    chosen_deferred: float
    chosen_drop: float
    deferred: float
    drop: Drop
    small: float
    large: float


def choose_threshold(samples: JudgedSamples, limit: float) -> ThresholdChoice:
    """The lowest threshold from which on no higher one loses more than the limit, on every second
    sample; what it does on the others.

    Raises UsageError for too few samples.
    """
    count = len(samples.confidences)
    if count < LEAST_SAMPLES:
        raise UsageError(
            f"{count} samples are too few to choose a threshold on some and tell it of others",
            remedy=f"give {LEAST_SAMPLES} or more, better some hundreds",
        )
    own = samples.part(0)
    tried = thresholds_of(own.confidences)
    best = tried[-1]
    for threshold in reversed(tried):
        if own.drop(threshold).drop > limit + 1e-12:
            break
        best = threshold
    return told_of(samples, best)


def told_of(samples: JudgedSamples, threshold: float) -> ThresholdChoice:
    """What a threshold does on either half."""
    own, others = samples.part(0), samples.part(1)
    metric = samples.metric
    return ThresholdChoice(
        float(np.float32(threshold)), own.deferred(threshold), own.drop(threshold).drop,
        others.deferred(threshold), others.drop(threshold), metric.value(others.small),
        metric.value(others.large),
    )  # fmt: skip


def thresholds_of(confidences: Array) -> list[float]:
    """Values that part samples, ascending: from below all to above all."""
    known = np.unique(confidences.astype(np.float64))
    if len(known) > MOST_TRIED:
        known = np.unique(np.quantile(known, np.linspace(0, 1, MOST_TRIED)))
    middles = (known[1:] + known[:-1]) / 2
    below, above = known[0] - 1.0, np.nextafter(np.float32(known[-1]), np.float32(np.inf))
    return [float(below), *middles.tolist(), float(above)]


def check_useful(choice: ThresholdChoice, limit: float) -> None:
    """Raise BudgetError where nearly all samples go to the large model."""
    if choice.chosen_deferred >= 1.0:
        raise BudgetError(
            "the small model answers nothing by itself: whatever it is sure of, it loses more than "
            f"{limit:.4g}",
            remedy="allow a larger --max-accuracy-drop, or take a better small model",
        )
