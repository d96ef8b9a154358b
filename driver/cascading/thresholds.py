"""From which confidence on a stage is believed: chosen on some samples, told of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import BudgetError, UsageError
from ..budget.drops import Drop, jackknife_drop, mean_drop
from ..budget.metrics import Metric, Record

Array = np.ndarray[Any, Any]
Thresholds = tuple[float, ...]

MOST_TRIED = 400  # thresholds of a stage
LEAST_SAMPLES = 16


@dataclass(frozen=True)
class JudgedSamples:
    """What the stages of a cascade give for samples. stages: a record of each sample by a metric,
    the smallest stage first; the last one is what others are judged by. confidences: how sure each
    stage but the last is of it (the least of its rows)."""

    metric: Metric
    stages: Sequence[Sequence[Record]]
    confidences: Sequence[Array]

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.stages[-1])

    def part(self, first: int) -> JudgedSamples:
        """Every second sample: from the first (0) or the second (1) on."""
        return JudgedSamples(
            self.metric, [own[first::2] for own in self.stages],
            [own[first::2] for own in self.confidences],
        )  # fmt: skip

    def answering(self, thresholds: Thresholds) -> Array:
        """The stage that answers each sample."""
        found = np.full(self.count, len(thresholds))
        for stage in reversed(range(len(thresholds))):
            found[self.confidences[stage] >= np.float32(thresholds[stage])] = stage
        return found

    def answered(self, thresholds: Thresholds) -> tuple[float, ...]:
        """The share of samples that each stage answers."""
        counts = np.bincount(self.answering(thresholds), minlength=len(self.stages))
        return tuple((counts / self.count).tolist())

    def drop(self, thresholds: Thresholds) -> Drop:
        """What a cascade loses against the last stage alone."""
        rows = enumerate(self.answering(thresholds).tolist())
        mixed, metric = [self.stages[stage][n] for n, stage in rows], self.metric
        last = self.stages[-1]
        score, exact = metric.value(mixed), metric.value(last)
        if metric.figure is None:
            losses = [metric.loss(a, b) for a, b in zip(mixed, last, strict=True)]
            return mean_drop(np.concatenate(losses), score, exact)

        def both(chosen: Sequence[int]) -> tuple[float, float]:
            return (
                metric.value([mixed[n] for n in chosen]),
                metric.value([last[n] for n in chosen]),
            )

        return jackknife_drop(both, metric.loss, len(mixed))


@dataclass(frozen=True)
class ThresholdChoice:
    """thresholds: from which on a stage's answer is taken, of all but the last. answered: share of
    samples that each stage answers; deferred: that the first does not. chosen_answered,
    chosen_drop: on the samples that they were chosen on; the rest: on the others. scores: what each
    stage reaches alone."""

    thresholds: Thresholds
    chosen_answered: tuple[float, ...]
    chosen_drop: float
    answered: tuple[float, ...]
    deferred: float
    drop: Drop
    scores: tuple[float, ...]


def choose_thresholds(
    samples: JudgedSamples, limit: float, costs: Sequence[float]
) -> ThresholdChoice:
    """Thresholds that lose no more than the limit, nor do higher ones of the same stage, for the
    least cost, on every second sample; what they do on the others.

    costs: of each stage, in any unit. The limit is given out in several ways: to the stages in
    equal parts, or to one of them first and what is left to the others in their order; each stage
    gets the lowest threshold within its part. Raises UsageError for too few samples.
    """
    if samples.count < LEAST_SAMPLES:
        raise UsageError(
            f"{samples.count} samples are too few to choose a threshold on some and tell it of "
            "others",
            remedy=f"give {LEAST_SAMPLES} or more, better some hundreds",
        )
    own, count = samples.part(0), len(samples.confidences)
    equal = [(stage, limit * (stage + 1) / count) for stage in range(count)]
    ways = [[*equal, *((stage, limit) for stage in range(count))]]
    for first in range(count) if count > 1 else ():
        order = [first, *(stage for stage in range(count) if stage != first)]
        ways.append([(stage, limit) for stage in order])
    found = [_lowered(own, way) for way in ways]
    return told_of(samples, min(found, key=lambda one: (expected_cost(own, one, costs), one)))


def _lowered(own: JudgedSamples, way: Sequence[tuple[int, float]]) -> Thresholds:
    """Thresholds, each lowered in turn as far as its limit allows."""
    tried = [thresholds_of(one) for one in own.confidences]
    best = [values[-1] for values in tried]
    for stage, limit in way:
        for value in reversed([value for value in tried[stage] if value < best[stage]]):
            lower = (*best[:stage], value, *best[stage + 1 :])
            if own.drop(lower).drop > limit + 1e-12:
                break
            best[stage] = value
    return tuple(best)


def expected_cost(samples: JudgedSamples, thresholds: Thresholds, costs: Sequence[float]) -> float:
    """Of a sample, on average: each stage costs what it does where rows come to it."""
    reached = 1 - np.cumsum([0.0, *samples.answered(thresholds)[:-1]])
    return float(np.dot(reached, costs))


def told_of(samples: JudgedSamples, thresholds: Thresholds) -> ThresholdChoice:
    """What thresholds do on either half. Raises UsageError for less than one sample each."""
    if samples.count < 2:
        raise UsageError(
            "one sample cannot tell what a threshold does",
            remedy="give two or more, better some hundreds, or none: then nothing is told",
        )
    own, others = samples.part(0), samples.part(1)
    answered = others.answered(thresholds)
    return ThresholdChoice(
        tuple(float(np.float32(value)) for value in thresholds), own.answered(thresholds),
        own.drop(thresholds).drop, answered, 1 - answered[0], others.drop(thresholds),
        tuple(samples.metric.value(stage) for stage in others.stages),
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
    """Raise BudgetError where all samples go to the last stage."""
    if choice.chosen_answered[-1] >= 1.0:
        raise BudgetError(
            "the small model answers nothing by itself: whatever it is sure of, it loses more than "
            f"{limit:.4g}",
            remedy="allow a larger --max-accuracy-drop, or take a better small model",
        )
