"""Which candidates come next: a function of what was measured, and of a seed.

Spaces are small (some hundred candidates) and the base is good, so that a simple order does: single
decisions first, one kind of decision after the other; then what a linear model of the times expects
to be fast, and the neighbours of the best so far. A predicted time does not rank neighbours (rank
correlation about 0, measured); a backend's cost model rejects what cannot win, no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ScheduleError
from .history import PastTask
from .race import scores, verdict_from
from .task import BASE, Candidate, Task, Tunable

FEWEST_ROWS = 8  # of measured times, for a model of them
RIDGE = 1.0  # the penalty, in units of standardised features


class CandidateSpace:
    """The candidates of a model's tasks, each made once."""

    def __init__(self, tunable: Tunable) -> None:
        self.tunable = tunable
        self._every: dict[str, Sequence[Candidate]] = {}
        self._known: dict[tuple[str, str], Candidate | None] = {}

    def every(self, task: Task) -> Sequence[Candidate]:
        """All of a task, the base first."""
        if task.key not in self._every:
            self._every[task.key] = self._noted(task, self.tunable.candidates(task))
        return self._every[task.key]

    def base(self, task: Task) -> Candidate:
        """What a compilation takes by itself."""
        return self.tunable.base(task)

    def near(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those a single decision away from one."""
        return self._noted(task, self.tunable.neighbours(task, candidate))

    def of(self, task: Task, choice: Mapping[str, Any]) -> Candidate | None:
        """The candidate of a choice that was written down; None for one that this code cannot
        take."""
        key = task.key, Candidate(choice).key
        if key not in self._known:
            try:
                self._known[key] = self.tunable.candidate(task, choice)
            except ScheduleError:
                self._known[key] = None
        return self._known[key]

    def _noted(self, task: Task, found: Sequence[Candidate]) -> Sequence[Candidate]:
        self._known |= {(task.key, one.key): one for one in found}
        return found


def next_candidates(
    space: CandidateSpace,
    past: PastTask,
    choices: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[Mapping[str, Any]],
    seed: str,
    size: int,
    *,
    inexact: bool = False,
) -> list[Candidate]:
    """The base, what was confirmed so far, and up to `size` that were not tried; [] for none left.

    choices: of what was built, by key. seeds: choices that did well elsewhere. inexact: those too
    whose results differ from the base's in the order of sums.
    """
    task = past.task
    every = [one for one in space.every(task) if one.exact or inexact]
    if not every:
        return []
    base = every[BASE]
    verdict = verdict_from(past, choices)
    best = space.of(task, verdict.choice) if verdict and verdict.is_gain else None
    leader = best or _leader(space, past, choices) or base
    near = [one for one in space.near(task, leader) if one.exact or inexact]
    given = [space.of(task, choice) for choice in seeds]
    others = [one for one in given if one is not None and (one.exact or inexact)]
    order = _order(past, every, near, base, _measured(space, past, choices), seed)
    found: dict[str, Candidate] = {}
    for one in (*others, *order):
        if len(found) < size and one.key not in past.tried and one.key != base.key:
            found.setdefault(one.key, one)
    return [base, *([best] if best else []), *found.values()] if found else []


def _order(
    past: PastTask,
    every: Sequence[Candidate],
    near: Sequence[Candidate],
    base: Candidate,
    rows: Sequence[tuple[Candidate, float]],
    seed: str,
) -> list[Candidate]:
    """All candidates, those first that are most likely to be fast."""
    drawn = random.Random(f"{seed}:{past.task.key}:{len(past.batches)}")
    if len(rows) < FEWEST_ROWS:
        return _by_kind([one for one in every if one.steps <= 1], base, drawn) + _by_kind(
            [one for one in every if one.steps > 1], base, drawn
        )
    known = {one.key for one, _ in rows}
    pool = {one.key: one for one in (*near, *every) if one.key not in known}
    expected = _expected(rows, list(pool.values()), base)
    ranked = sorted(pool.values(), key=lambda one: (expected[one.key], one.key))
    near_keys = {one.key for one in near}
    beside = [one for one in ranked if one.key in near_keys]
    others = _by_kind(list(pool.values()), base, drawn)
    return _in_turn(ranked, beside, others)


def _by_kind(
    candidates: Sequence[Candidate], base: Candidate, drawn: random.Random
) -> list[Candidate]:
    """One after another of every kind: of those that differ from the base in the same fields; of a
    kind those first that are expected to be fast, and kinds by their fastest."""
    kinds: dict[tuple[str, ...], list[Candidate]] = {}
    for one in candidates:
        kinds.setdefault(tuple(sorted(changed(base.choice, one.choice))), []).append(one)
    for own in kinds.values():
        drawn.shuffle(own)
        own.sort(key=_expectation)
    return _in_turn(*sorted(kinds.values(), key=lambda own: _expectation(own[0])))


def _expectation(one: Candidate) -> float:
    return one.expected


def _in_turn(*lists: Sequence[Candidate]) -> list[Candidate]:
    """The first of each list, then the second of each; each candidate once."""
    found: dict[str, Candidate] = {}
    for number in range(max(map(len, lists), default=0)):
        for own in lists:
            if number < len(own):
                found.setdefault(own[number].key, own[number])
    return list(found.values())


def changed(one: object, other: object, path: str = "") -> Iterable[str]:
    """Names of the fields in which two choices differ, those of lists without the number."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from changed(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(one, list) and isinstance(other, list) and _holds_objects(one):
        for own, its in zip(one, other, strict=False):
            yield from changed(own, its, path)
        if len(one) != len(other):
            yield path
    elif one != other:
        yield path


def _holds_objects(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], Mapping)


def _leader(
    space: CandidateSpace, past: PastTask, choices: Mapping[str, Mapping[str, Any]]
) -> Candidate | None:
    """What has raced best, confirmed or not; None where nothing beat the base."""
    best = (1.0, "")
    for batch in past.batches:
        for position, score in scores(batch).items():
            if position != BASE and (score, batch.built[position].candidate) < best:
                best = score, batch.built[position].candidate
    return space.of(past.task, choices[best[1]]) if best[1] else None


def _measured(
    space: CandidateSpace, past: PastTask, choices: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Candidate, float]]:
    """Candidates with their times as shares of the base's."""
    found: dict[str, tuple[Candidate, float]] = {}
    for batch in past.batches:
        for position, score in sorted(scores(batch).items()):
            key = batch.built[position].candidate
            one = space.of(past.task, choices[key])
            if one is not None and score > 0:
                found[key] = (one, score)
    return list(found.values())


def _expected(
    rows: Sequence[tuple[Candidate, float]], pool: Sequence[Candidate], base: Candidate
) -> dict[str, float]:
    """Logarithms of the expected times: what other tasks say, put right by ridge regression on
    features.

    Source: Hoerl and Kennard, Ridge Regression, Technometrics 12 (1970).
    """
    origin = np.array(base.features, dtype=float)
    measured = np.array([np.array(one.features) - origin for one, _ in rows], dtype=float)
    wanted = np.array([np.array(one.features) - origin for one in pool], dtype=float)
    if not origin.size or not len(pool):
        return {one.key: one.expected for one in pool}
    scale = measured.std(axis=0)
    scale[scale == 0] = 1.0
    left = measured / scale
    values = np.array([math.log(score) - one.expected for one, score in rows])
    normal = left.T @ left + RIDGE * np.eye(left.shape[1])
    weights = np.linalg.solve(normal, left.T @ values)
    residuals = (wanted / scale @ weights).tolist()
    return {one.key: one.expected + own for one, own in zip(pool, residuals, strict=True)}


def left_over(space: CandidateSpace, past: PastTask, *, inexact: bool = False) -> bool:
    """Whether there are candidates that were not tried."""
    return any(
        one.key not in past.tried and (one.exact or inexact) for one in space.every(past.task)
    )
