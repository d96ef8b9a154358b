"""From service times to machines and money: what one machine serves within a limit, how many are
needed, and what a million inferences cost, on machines that work all the time and at a load."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .estimate import Estimate, Provenance, combined, given
from .loads import OfferedLoad
from .queue_simulation import JOBS, QueueResult, Times, simulate

MILLION = 1e6
HOUR = 3600.0
SEARCH_JOBS = 20_000  # of a simulation while a rate is looked for
_STEPS = 12
_DIGITS = 3  # of the factor by which service times may differ
_SEED = 20261130


@dataclass(frozen=True)
class ServingLayout:
    """How a machine's cores are used: so many instances behind one queue, each with so many
    threads, each taking up to `batch` calls at once."""

    instances: int
    threads: int
    batch: int = 1

    @property
    def cores(self) -> int:
        """Cores that are at work when all instances are."""
        return self.instances * self.threads

    def __str__(self) -> str:
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.instances} x {self.threads} thread(s){batch}"


class ServiceCurve:
    """What one machine does with a layout.

    times: seconds of calls that were measured with all instances at work; of a batch as a whole.
    limit: seconds that the p99 of wait and service may take. All is deterministic.
    """

    def __init__(self, times: Times, layout: ServingLayout, limit: float) -> None:
        self.times, self.layout, self.limit = times, layout, limit
        self.mean = float(np.mean(times))
        self._capacities: dict[float, float] = {}

    @property
    def saturated(self) -> float:
        """Inferences per second where all instances always work on full batches."""
        return self.layout.instances * self.layout.batch / self.mean

    def capacity(self, mean: float | None = None) -> float:
        """Inferences per second that can come, by chance, with the p99 within the limit.

        mean: seconds of a call, if all took so much more or less than was measured.
        """
        factor = 1.0 if mean is None else round(mean / self.mean, _DIGITS)
        if factor not in self._capacities:
            self._capacities[factor] = self._capacity(self.times * factor)
        return self._capacities[factor]

    def _capacity(self, times: Times) -> float:
        if float(np.percentile(times, 99)) > self.limit:
            return 0.0
        low, high = 0.0, self.layout.instances * self.layout.batch / float(np.mean(times))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = self._queue(times, middle, SEARCH_JOBS).p99
            low, high = (middle, high) if found <= self.limit else (low, middle)
        return low

    def p99(self, rate: float, jobs: int = JOBS) -> float:
        """That of wait and service, in seconds, where so many inferences come in a second."""
        return math.inf if rate >= self.saturated else self._queue(self.times, rate, jobs).p99

    def _queue(self, times: Times, rate: float, jobs: int) -> QueueResult:
        layout = self.layout
        return simulate(rate, times, layout.instances, batch=layout.batch, jobs=jobs, seed=_SEED)


@dataclass(frozen=True)
class ServingCost:
    """What a load costs on machines of one kind.

    capacity: inferences per second of one machine, within the limit. replicas: machines that the
    peak needs. saturated, at_load: price of a million inferences, where
    machines always work, and where they are paid all the time. idle: of the latter what is paid for
    waiting. utilisation: share of the time that instances work, at the mean load. p99: seconds, at
    the peak, with the load shared by the machines.
    """

    capacity: float
    replicas: int
    saturated: Estimate
    at_load: Estimate
    idle: Estimate
    utilisation: float
    p99: Estimate


def serving_cost(
    curve: ServiceCurve, service: Estimate, price: Estimate, load: OfferedLoad
) -> ServingCost | None:
    """None where no number of machines keeps the limit: one call alone is later.

    service: seconds of a call, with interval and origin. price: of an hour of a machine.
    """
    capacity = curve.capacity()
    if capacity <= 0:
        return None
    replicas = replicas_for(load.peak, capacity)
    unit = f"{price.unit.partition('/')[0]}/1M"
    rate = curve.layout.instances * curve.layout.batch
    saturated = combined(
        lambda seconds, cost: cost * seconds / rate / HOUR * MILLION, (service, price), unit,
        "price x time / instances",
    )  # fmt: skip

    def paid(seconds: float, cost: float, calls: float) -> float:
        most = curve.capacity(seconds)
        return replicas_for(load.peak, most) * cost / (calls * HOUR) * MILLION if most else math.inf

    calls = given(load.mean, "1/s", load.method)
    method = "machines that a simulated queue needs x price / calls"
    at_load = combined(paid, (service, price, calls), unit, method)
    busy = min(1.0, load.mean * curve.mean / (rate * replicas))
    p99 = Estimate(
        curve.p99(load.peak / replicas), "s", Provenance.MODELLED,
        "queue simulated with service times, arrivals by chance", machine=service.machine,
        date=service.date,
    )  # fmt: skip
    return ServingCost(capacity, replicas, saturated, at_load, at_load * (1 - busy), busy, p99)


def replicas_for(rate: float, capacity: float) -> int:
    """Machines for a rate, where one serves so much."""
    return max(1, math.ceil(rate / capacity - 1e-9))
