"""Intervals of paired drops, and budgets as users write them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tensmith.compiler.errors import UsageError
from tensmith.driver.budget.drops import Drop, Limit, jackknife_drop, limit_of, mean_drop


@pytest.mark.parametrize(
    ("given", "amount", "text"),
    [("0.5%", 0.005, "0.5%"), ("0.005", 0.005, "0.005"), (0.02, 0.02, "0.02"), (0, 0.0, "0"),
     (" 30 dB", 30.0, "30 dB"), ("1e-3", 0.001, "0.001")],
)  # fmt: skip
def test_limits(given: str | float, amount: float, text: str) -> None:
    found = Limit.of(given)
    assert found.amount == pytest.approx(amount)
    assert str(found) == text


@pytest.mark.parametrize("given", ["much", "-1%", "1 percent", -0.1, math.nan, math.inf, "", True])
def test_no_limits(given: str | float) -> None:
    with pytest.raises(UsageError, match="accuracy drop"):
        Limit.of(given)


def test_limits_in_the_unit_of_a_metric() -> None:
    half = Limit.of("50%")
    assert limit_of(half, "top1", 0.8, relative=False) == 0.5
    assert limit_of(half, "mae", -4.0, relative=True) == 2.0
    assert limit_of(Limit.of(0.1), "mae", 4.0, relative=True) == 0.1
    assert limit_of(Limit.of("20dB"), "snr", 0.0, relative=False) == pytest.approx(0.01)
    with pytest.raises(UsageError, match="the metric is top1"):
        limit_of(Limit.of("20dB"), "top1", 0.8, relative=False)


def test_right_and_wrong_answers() -> None:
    """Agresti and Min: 9 lost, 3 won of 200; (9.5 - 3.5) / 202, and its standard error."""
    losses = np.zeros(200)
    losses[:9], losses[9:12] = 1, -1
    found = mean_drop(losses, 0.87, 0.9)
    assert found.drop == pytest.approx(0.03)
    spread = math.sqrt(13 - 36 / 202) / 202
    assert found.low == pytest.approx(6 / 202 - 1.6449 * spread)
    assert found.high == pytest.approx(6 / 202 + 1.6449 * spread)
    assert found.meets(0.03)
    assert not found.meets(0.029)
    assert not found.proves(0.05)
    assert found.proves(0.07)


def test_answers_that_all_stay_prove_what_their_number_can() -> None:
    few, many = (mean_drop(np.zeros(n), 1.0, 1.0) for n in (100, 1000))
    assert few.drop == many.drop == 0
    assert many.high < few.high < 0.02
    assert not few.proves(0.005)
    assert many.proves(0.005)
    rows = few.rows_to_prove(0.005)
    assert rows is not None
    assert 100 < rows < 2000
    assert few.rows_to_prove(0.0) is None


def test_means_of_numbers() -> None:
    """The quantile of Student's distribution for 95 % and 9 degrees of freedom is 1.833."""
    losses = np.arange(10) / 10
    found = mean_drop(losses, 1.0, 0.5)
    half = 1.833 * np.std(losses, ddof=1) / math.sqrt(10)
    assert found.high - found.drop == pytest.approx(half, rel=1e-3)
    assert found.drop - found.low == pytest.approx(half, rel=1e-3)
    single = mean_drop(np.array([0.25]), 1.0, 0.75)
    assert (single.drop, single.high) == (0.25, math.inf)
    assert not single.proves(1.0)


def test_intervals_hold_what_they_say() -> None:
    """Of 400 sets drawn with a true drop of 2 points, 90 % and more have it in their interval."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        drawn = rng.choice([1.0, 0.0, -1.0], size=300, p=[0.03, 0.96, 0.01])
        found = mean_drop(drawn, 0.0, 0.0)
        inside += found.low <= 0.02 <= found.high
    assert 0.88 <= inside / 400 <= 0.97


def test_figures_that_are_no_means() -> None:
    """For a mean, leaving one out at a time gives the usual standard error."""
    scores, exact = np.arange(12) / 12, np.ones(12)

    def both(chosen):
        return float(np.mean(scores[list(chosen)])), float(np.mean(exact[list(chosen)]))

    found = jackknife_drop(both, lambda score, exact: exact - score, 12)
    usual = mean_drop(exact - scores, 0.0, 0.0)
    assert found.drop == pytest.approx(usual.drop)
    assert found.high == pytest.approx(usual.high)
    single = jackknife_drop(both, lambda score, exact: exact - score, 1)
    assert single.high == math.inf


def test_drops_travel_as_json() -> None:
    found = mean_drop(np.array([0.0, 1.0]), 0.5, 1.0, whole=False)
    assert Drop(**found.to_json()) == found
