"""Machines and money for a load: figures that can be found by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.compiler.economics.estimate import Estimate, Provenance, given
from tensmith.compiler.economics.loads import OfferedLoad
from tensmith.compiler.economics.pareto import frontier, ranks
from tensmith.compiler.economics.power import BUILDING, carbon_of, server_power
from tensmith.compiler.economics.queueing import highest_utilisation
from tensmith.compiler.economics.serving import (
    ServiceCurve,
    ServingLayout,
    replicas_for,
    serving_cost,
)

TIMES = np.full(64, 0.01)
SERVICE = Estimate(0.01, "s", Provenance.MEASURED, "runs in turns", (0.009, 0.011), "zen4")
PRICE = given(0.36, "USD/h", "list")
LOAD = OfferedLoad((100.0, 300.0), "trace")


def test_capacity_is_that_of_the_queue() -> None:
    curve = ServiceCurve(TIMES, ServingLayout(4, 1), limit=0.03)
    assert curve.saturated == pytest.approx(400)
    assert curve.capacity() == pytest.approx(400 * highest_utilisation(4, 3.0), rel=0.03)
    assert curve.capacity(0.02) < curve.capacity() / 2  # twice as slow, and waits count double
    assert curve.p99(curve.capacity()) == pytest.approx(0.03, rel=0.1)
    assert curve.p99(400) == float("inf")


def test_batches_are_what_waits() -> None:
    """A batch of four takes as long as one: capacity is beyond that of single calls."""
    single = ServiceCurve(TIMES, ServingLayout(1, 1), limit=0.03)
    four = ServiceCurve(TIMES, ServingLayout(1, 1, batch=4), limit=0.03)
    assert four.saturated == 4 * single.saturated
    assert 3 * single.capacity() < four.capacity() < 400


def test_costs_of_a_load() -> None:
    curve = ServiceCurve(TIMES, ServingLayout(2, 1), limit=0.05)
    found = serving_cost(curve, SERVICE, PRICE, LOAD)
    assert found is not None
    assert found.replicas == 2  # 300 / (200 * .76) is just below two
    assert found.saturated.value == pytest.approx(0.36 / (200 * 3600) * 1e6)
    assert found.at_load.value == pytest.approx(2 * 0.36 / (200 * 3600) * 1e6)
    assert found.utilisation == pytest.approx(200 * 0.01 / 4)
    assert found.idle.value == pytest.approx(found.at_load.value / 2)
    assert found.saturated.interval == pytest.approx((0.45, 0.55))
    assert found.at_load.kind is Provenance.MEASURED
    assert found.at_load.unit == "USD/1M"
    assert found.at_load.high > found.at_load.value  # slower calls need a third machine
    assert found.p99.value < 0.05


def test_what_is_later_alone_costs_nothing_at_all() -> None:
    curve = ServiceCurve(TIMES, ServingLayout(2, 1), limit=0.009)
    assert serving_cost(curve, SERVICE, PRICE, LOAD) is None
    batch = ServiceCurve(TIMES, ServingLayout(2, 1, batch=4), limit=0.009)
    assert batch.capacity() == 0.0


def test_modelled_times_make_modelled_costs() -> None:
    guess = Estimate(0.01, "s", Provenance.MODELLED, "cost model", machine="x86-64-v3")
    curve = ServiceCurve(TIMES, ServingLayout(2, 1), limit=0.05)
    found = serving_cost(curve, guess, PRICE, LOAD)
    assert found is not None
    assert f"{found.at_load:.2f}".startswith("~")


def test_whole_machines() -> None:
    assert [replicas_for(rate, 10.0) for rate in (1, 10, 10.001, 25)] == [1, 1, 2, 3]


def test_power_and_carbon_of_servers() -> None:
    idle, busy = server_power(2, 8, 0.0), server_power(2, 8, 1.0)
    assert busy.value - idle.value == pytest.approx(2 * (3.5 - 0.74) * BUILDING)
    assert busy.kind is Provenance.MODELLED
    assert busy.interval == pytest.approx((busy.value / 2, busy.value * 1.5))
    energy = Estimate(3.6e6, "J", Provenance.MODELLED, "model")
    assert carbon_of(energy, given(52.0, "g/kWh", "grid")).value == pytest.approx(52.0)


def test_the_frontier_keeps_what_nothing_dominates() -> None:
    points = [(1.0, 5.0), (2.0, 2.0), (2.0, 2.0), (3.0, 1.0), (3.0, 4.0), (1.0, 6.0)]
    assert frontier(points) == [0, 1, 3]
    assert frontier([]) == []
    assert ranks([3.0, 1.0, 2.0, 1.0]) == [3, 0, 2, 1]
