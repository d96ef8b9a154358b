"""Queues: formulas beside a simulation, and a table of utilisations that were simulated before."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.compiler.economics.queue_simulation import (
    batch_latencies,
    latencies,
    poisson_arrivals,
    simulate,
)
from tensmith.compiler.economics.queueing import (
    DeterministicQueue,
    batch_latency,
    highest_utilisation,
    pollaczek_khinchine,
)

# The highest utilisation at which the p99 of wait and service is at most so many service times, by
# simulations of 120,000 calls: servers -> limit -> utilisation.
LIMITS = (1.5, 2.0, 3.0, 5.0, 10.0)
TABLE = {
    1: (0.02, 0.13, 0.32, 0.56, 0.78),
    2: (0.14, 0.36, 0.58, 0.76, 0.89),
    4: (0.38, 0.60, 0.77, 0.88, 0.94),
    8: (0.63, 0.78, 0.88, 0.94, 0.98),
    16: (0.79, 0.89, 0.94, 0.97, 0.99),
}
ONE = np.ones(1)


@pytest.mark.parametrize("servers", TABLE)
def test_the_table_of_utilisations(servers: int) -> None:
    found = [highest_utilisation(servers, limit) for limit in LIMITS]
    assert found == pytest.approx(TABLE[servers], abs=0.0125)


def _check_point(servers: int, limit: float, jobs: int) -> None:
    """Mean within 3 %, p99 within 5 %, at the utilisation of the table."""
    utilisation = highest_utilisation(servers, limit)
    queue = DeterministicQueue(servers, utilisation)
    found = simulate(utilisation * servers, ONE, servers, jobs=jobs)
    assert 1 + queue.mean_wait() == pytest.approx(found.mean, rel=0.03)
    assert 1 + queue.wait_percentile(0.99) == pytest.approx(found.p99, rel=0.05)
    assert found.utilisation == pytest.approx(utilisation)


# The nearer to full, the longer a simulation takes to show its tail.
_BUSY = 0.8
_CELLS = [(c, limit, load) for c in TABLE for limit, load in zip(LIMITS, TABLE[c], strict=True)]


@pytest.mark.parametrize(("servers", "limit"), [cell[:2] for cell in _CELLS if cell[2] < _BUSY])
def test_formulas_are_what_a_simulation_gives(servers: int, limit: float) -> None:
    _check_point(servers, limit, 300_000)


@pytest.mark.slow
@pytest.mark.parametrize(("servers", "limit"), [cell[:2] for cell in _CELLS if cell[2] >= _BUSY])
def test_formulas_of_busy_servers_are_what_a_long_simulation_gives(
    servers: int, limit: float
) -> None:
    _check_point(servers, limit, 12_000_000)


def test_one_server_has_the_wait_of_pollaczek_and_khinchine() -> None:
    for load in (0.1, 0.5, 0.9, 0.99):
        exact = pollaczek_khinchine(load, 1.0, 0.0)
        assert DeterministicQueue(1, load).mean_wait() == pytest.approx(exact, rel=1e-6)
    assert pollaczek_khinchine(1.0, 1.0, 0.0) == float("inf")


@pytest.mark.parametrize("cv", [0.2, 0.5, 1.0])
def test_varied_services_wait_as_pollaczek_and_khinchine_say(cv: float) -> None:
    rng = np.random.default_rng(5)
    services = rng.gamma(1 / cv**2, cv**2, 200_000)
    mean, spread = float(services.mean()), float(services.std() / services.mean())
    found = simulate(0.7, services, 1, jobs=1_000_000)
    assert found.mean - mean == pytest.approx(pollaczek_khinchine(0.7, mean, spread), rel=0.03)


def test_the_tail_of_one_server() -> None:
    """P(wait > t) is C exp(-d t), d of load * (e^d - 1) = d and C = (1 - load) / (load e^d - 1)."""
    load, decay = 0.7, 0.7678
    for _ in range(100):
        decay -= (load * np.expm1(decay) - decay) / (load * np.exp(decay) - 1)
    scale = (1 - load) / (load * np.exp(decay) - 1)
    found = DeterministicQueue(1, load).wait_percentile(0.99)
    assert found == pytest.approx(np.log(scale / 0.01) / decay, rel=0.001)


def test_one_queue_carries_more_than_several() -> None:
    """With a limit of three service times eight servers behind one queue do 2.7 times as much."""
    shared, own = highest_utilisation(8, 3.0), highest_utilisation(1, 3.0)
    assert shared / own == pytest.approx(2.73, abs=0.03)


@pytest.mark.parametrize("load", [0.6, 0.8])
@pytest.mark.parametrize("slope", [0.2, 0.5])
def test_batches_that_take_all_that_waits(load: float, slope: float) -> None:
    setup = 1.0 - slope
    rate = load / slope
    rng = np.random.default_rng(1)
    arrivals = poisson_arrivals(rate, 200_000, rng)
    found = batch_latencies(arrivals, lambda n: slope * n + setup, most=1 << 20)
    assert batch_latency(rate, slope, setup) == pytest.approx(found.mean(), rel=0.06)


def test_a_cap_on_batches_ends_at_its_own_capacity() -> None:
    """16 calls in 0.2 * 16 + 0.8: above 4 calls a second the queue grows without end."""
    rng = np.random.default_rng(2)
    service = {n: 0.2 * n + 0.8 for n in range(1, 17)}.__getitem__
    calm = batch_latencies(poisson_arrivals(3.6, 40_000, rng), service, most=16)
    burst = batch_latencies(poisson_arrivals(4.4, 40_000, rng), service, most=16)
    assert calm.mean() < 12 < 100 < burst.mean()


def test_several_servers_take_batches_in_turns() -> None:
    arrivals = np.array([0.0, 0.1, 0.2, 0.3])
    found = batch_latencies(arrivals, lambda n: float(n), most=2, servers=2)
    assert found.tolist() == pytest.approx([1.0, 1.0, 2.8, 2.7])  # the pair waits for the first


def test_one_server_and_the_events_of_one_agree() -> None:
    rng = np.random.default_rng(3)
    arrivals, services = poisson_arrivals(0.8, 500, rng), rng.random(500) * 2
    free, ends = 0.0, []
    for arrival, service in zip(arrivals, services, strict=True):
        free = max(free, arrival) + service
        ends.append(free - arrival)
    assert latencies(arrivals, services, 1) == pytest.approx(np.array(ends))


@pytest.mark.parametrize(("servers", "load"), [(0, 0.5), (1, 0.0), (1, 1.0)])
def test_queues_that_cannot_be(servers: int, load: float) -> None:
    with pytest.raises(ValueError, match="utilisation"):
        DeterministicQueue(servers, load)
    with pytest.raises(ValueError, match="servers"):
        simulate(1.0, ONE, 0)
    assert highest_utilisation(2, 0.9) == 0.0
