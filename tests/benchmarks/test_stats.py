"""Medians, ratios and differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tensmith.benchmarks.stats import (
    difference,
    geometric_mean,
    median_of_rounds,
    percentile,
    speed_ratio,
)


def test_percentile_interpolates() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 0.9) == pytest.approx(4.6)


def test_geometric_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    assert geometric_mean([4.0, 0.25]) == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0]])
def test_geometric_mean_refuses_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="geometric mean"):
        geometric_mean(values)


def test_median_of_rounds_ignores_one_slow_round() -> None:
    assert median_of_rounds([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [50.0, 60.0, 70.0]]) == 2.0


def test_speed_ratio_pairs_rounds() -> None:
    own, peer = [[1.0], [10.0], [1.0]], [[2.0], [20.0], [2.0]]
    assert speed_ratio(own, peer) == 2.0


def test_speed_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        speed_ratio([[1.0]], [[1.0], [2.0]])


def test_difference_is_relative_to_the_peak_of_each_output() -> None:
    found = difference(
        [np.array([100.0, 1.0]), np.array([2.0, 1.02])],
        [np.array([100.0, 1.1]), np.array([2.0, 1.0])],
    )
    assert found.relative == pytest.approx(0.01)
    assert found.reason == "output 1"


@pytest.mark.parametrize(
    ("own", "reference"),
    [
        ([], [np.zeros(1)]),
        ([np.zeros((1, 2))], [np.zeros(2)]),
        ([np.array([1.0, np.nan])], [np.array([1.0, 2.0])]),
        ([np.array([1.0, 2.0])], [np.array([1.0, np.nan])]),
        ([np.array([np.inf, 2.0])], [np.array([-np.inf, 2.0])]),
        ([np.array([1e-9])], [np.array([0.0])]),
    ],
    ids=["count", "shape", "nan", "no nan", "sign of inf", "zero"],
)
def test_difference_without_a_scale_is_infinite(
    own: list[np.ndarray], reference: list[np.ndarray]
) -> None:
    assert difference(own, reference).relative == math.inf


@pytest.mark.parametrize("array", [np.array([1.0, np.nan, np.inf]), np.array([True]), np.zeros(0)])
def test_equal_outputs_do_not_differ(array: np.ndarray) -> None:
    assert difference([array], [array.copy()]).relative == 0.0
