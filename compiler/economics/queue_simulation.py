"""Queues simulated event by event, fed with service times that were measured."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Times = np.ndarray[Any, np.dtype[np.float64]]

JOBS = 100_000  # of a simulation
SETTLING = 0.05  # share of jobs at the beginning that are not counted: the queue starts empty
_STEPS = 16  # of a search for a rate


@dataclass(frozen=True)
class QueueResult:
    """Latencies (wait and service) of a simulation, in the unit of the service times.

    utilisation: share of the time that servers work.
    """

    mean: float
    p50: float
    p99: float
    utilisation: float


def poisson_arrivals(rate: float, jobs: int, rng: np.random.Generator) -> Times:
    """Moments at which calls come by chance, `rate` of them in a unit of time."""
    return np.cumsum(rng.exponential(1.0 / rate, jobs))


def latencies(arrivals: Times, services: Times, servers: int) -> Times:
    """Wait and service of each call: servers share one queue, first come first served."""
    if servers == 1:
        return _one_server(arrivals, services)
    free = [0.0] * servers
    found = np.empty(len(arrivals))
    for n, (arrival, service) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        end = max(arrival, free[0]) + service
        heapq.heapreplace(free, end)
        found[n] = end - arrival
    return found


def _one_server(arrivals: Times, services: Times) -> Times:
    """By Lindley's recursion: the end of a call is the latest of all that could hold it up."""
    done = np.cumsum(services)
    starts = np.maximum.accumulate(arrivals - (done - services))
    return starts + done - arrivals


def batch_latencies(
    arrivals: Times, service: Callable[[int], float], most: int, servers: int = 1
) -> Times:
    """Of servers that each take all that waits, up to `most` calls at once.

    service: time of a batch of so many.
    """
    free = [0.0] * servers
    found = np.empty(len(arrivals))
    first = 0
    while first < len(arrivals):
        start = max(free[0], float(arrivals[first]))
        last = int(np.searchsorted(arrivals, start, side="right"))
        last = min(max(last, first + 1), first + most)
        end = start + service(last - first)
        heapq.heapreplace(free, end)
        found[first:last] = end - arrivals[first:last]
        first = last
    return found


def simulate(
    rate: float, measured: Times, servers: int, *, jobs: int = JOBS, seed: int = 0
) -> QueueResult:
    """Calls that come by chance; each takes one of the measured service times.

    Raises ValueError where there are no times, or no rate.
    """
    if not len(measured) or rate <= 0 or servers < 1:
        raise ValueError(f"{len(measured)} service times, {rate} calls, {servers} servers")
    rng = np.random.default_rng(seed)
    arrivals = poisson_arrivals(rate, jobs, rng)
    services = rng.choice(measured, jobs)
    counted = latencies(arrivals, services, servers)[int(SETTLING * jobs) :]
    return _result(counted, rate * float(np.mean(measured)) / servers)


def _result(counted: Times, utilisation: float) -> QueueResult:
    p50, p99 = np.percentile(counted, (50, 99))
    return QueueResult(float(np.mean(counted)), float(p50), float(p99), min(1.0, utilisation))


def highest_rate(
    measured: Times, servers: int, limit: float, *, jobs: int = JOBS, seed: int = 0
) -> float:
    """The highest rate at which the p99 of wait and service stays within a limit; 0 where even a
    call that does not wait is later. The same chance in every step: p99 grows with the rate."""
    if float(np.percentile(measured, 99)) > limit:
        return 0.0
    low, high = 0.0, servers / float(np.mean(measured))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = simulate(middle, measured, servers, jobs=jobs, seed=seed)
        low, high = (middle, high) if found.p99 <= limit else (low, middle)
    return low
