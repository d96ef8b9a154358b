"""The cost model puts kernels in the order of the times that were measured of them."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import measured_kernels
import numpy as np

RANKS = 0.95  # rank correlation over all kernels, at least
APART = 1.15  # times that differ by this factor are not noise
ORDERED = 0.8  # share of such pairs of choices for one kernel that are ordered as they are


@cache
def pairs() -> list[tuple[str, str, float, float]]:
    """(graph, key, predicted seconds, measured seconds) of every kernel that was measured."""
    found = []
    for entry in measured_kernels.load():
        predicted = entry.predictions()
        for key, microseconds in entry.microseconds.items():
            assert key in predicted, f"{entry.graph}: no such kernel: measure again"
            found.append((entry.graph, key, predicted[key], microseconds * 1e-6))
    return found


def ranks(numbers: list[float]) -> np.ndarray:
    """Of numbers among each other; equal ones share the mean of theirs."""
    all_ = np.array(numbers)
    return (all_[:, None] > all_).sum(1) + (all_[:, None] == all_).sum(1) / 2


def test_kernels_are_ranked() -> None:
    """Spearman's rank correlation."""
    _, _, predicted, measured = zip(*pairs(), strict=True)
    assert len(predicted) >= 50
    assert np.corrcoef(ranks(predicted), ranks(measured))[0, 1] >= RANKS


def test_choices_of_one_kernel_are_ranked() -> None:
    score: list[float] = []
    for one, other in combinations(pairs(), 2):
        if one[:2] == other[:2] and max(a := one[3], b := other[3]) >= APART * min(a, b):
            predicted = one[2] - other[2]
            score.append(0.5 if not predicted else float((predicted > 0) == (a > b)))
    assert len(score) >= 20
    assert np.mean(score) >= ORDERED
