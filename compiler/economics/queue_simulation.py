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


@dataclass(frozen=True)
class QueueResult:
    """Latencies (wait and service) of a simulation, in the unit of the service times.

    utilisation: share of the time that servers work, on full batches.
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
    rate: float,
    measured: Times,
    servers: int,
    *,
    batch: int = 1,
    jobs: int = JOBS,
    seed: int = 0,
) -> QueueResult:
    """Calls that come by chance at servers that share one queue.

    Each takes one of the measured service times; with a batch above 1 a server takes up to so many
    calls that wait, for one such time. Raises ValueError where there are no times, or no rate.
    """
    if not len(measured) or rate <= 0 or servers < 1 or batch < 1:
        raise ValueError(f"{len(measured)} service times, {rate} calls, {servers} servers")
    rng = np.random.default_rng(seed)
    arrivals = poisson_arrivals(rate, jobs, rng)
    services = rng.choice(measured, jobs)
    if batch == 1:
        found = latencies(arrivals, services, servers)
    else:
        drawn = iter(services.tolist())
        found = batch_latencies(arrivals, lambda _: next(drawn), batch, servers)
    counted = found[int(SETTLING * jobs) :]
    p50, p99 = np.percentile(counted, (50, 99))
    utilisation = min(1.0, rate * float(np.mean(measured)) / servers / batch)
    return QueueResult(float(np.mean(counted)), float(p50), float(p99), utilisation)
