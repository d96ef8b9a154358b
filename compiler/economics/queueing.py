"""Queues in formulas: what arrives by chance (Poisson) at servers that share one queue.

Times are in units of the caller's choice; rates are one over that unit.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

_TAIL = 1e-15  # of the number in the system, that is left out
_DAMPING = 1e-4  # of the circle that the generating function is inverted on
_STEPS = 60  # of a bisection: more than a float has bits


def pollaczek_khinchine(rate: float, mean: float, cv: float) -> float:
    """Mean wait of M/G/1. mean, cv: of the service time, its standard deviation over its mean.

    Infinite where more arrives than is served. Source: L. Kleinrock, Queueing Systems 1, (5.68).
    """
    load = rate * mean
    return math.inf if load >= 1 else load * (1 + cv * cv) / (2 * (1 - load)) * mean


def batch_latency(rate: float, slope: float, setup: float) -> float:
    """Upper bound of the mean latency where a server takes all that waits at once.

    A batch of n takes `slope * n + setup`. Infinite where more arrives than is served. Source:
    Y. Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching", Performance
    Evaluation 147 (2021), theorem 2. A cap on batches makes it worse: simulate that.
    """
    load = rate * slope
    if load >= 1:
        return math.inf
    return 1.5 * setup / (1 - load) + slope / 2 * (2 + load) / (1 - load * load)


class DeterministicQueue:
    """M/D/c: `servers` that each serve one call in one unit of time, at a utilisation below 1.

    The number in the system by its generating function (Crommelin 1932), whose roots and
    coefficients are found numerically; the wait by G. Franx, "A simple solution for the M/D/c
    waiting time distribution", Operations Research Letters 29 (2001). Exact but for rounding.
    Raises ValueError for a utilisation outside of 0 .. 1 (ends excluded), or no server.
    """

    def __init__(self, servers: int, utilisation: float) -> None:
        if servers < 1 or not 0 < utilisation < 1:
            raise ValueError(f"{servers} servers at a utilisation of {utilisation}")
        self.servers, self.utilisation = servers, utilisation

    @cached_property
    def _below(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The probability that so many, or fewer, are in the system."""
        c, load = self.servers, self.servers * self.utilisation
        turns = np.exp(2j * np.pi * np.arange(1, c) / c)
        roots = turns * math.exp(-self.utilisation)
        for _ in range(_STEPS * 4):
            roots = turns * np.exp(self.utilisation * (roots - 1))
        decay = self._decay()
        size = 1 << math.ceil(math.log2(max(64, 4 * c, -math.log(_TAIL) / decay)))
        radius = _DAMPING ** (1 / size)
        z = radius * np.exp(2j * np.pi * np.arange(size) / size)
        top = (c - load) * (z - 1) * np.prod(
            (z[None, :] - roots[:, None]) / (1 - roots[:, None]), axis=0
        )  # fmt: skip
        found = np.fft.fft(top / (z**c * np.exp(load * (1 - z)) - 1)).real / size
        return np.cumsum(np.maximum(found / radius ** np.arange(size), 0.0))

    def _decay(self) -> float:
        """How fast the number in the system gets improbable: log of the least root beyond 1."""
        low, high = 0.0, 1.0  # of log z: c log z = load (z - 1)
        while high < self.utilisation * math.expm1(high):
            high /= 2
        low, high = high, 2 * high
        while high > self.utilisation * math.expm1(high):
            low, high = high, 2 * high
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if middle > self.utilisation * math.expm1(middle):
                low = middle
            else:
                high = middle
        return low

    def wait_at_most(self, time: float) -> float:
        """The probability that a call waits so long or less."""
        c, below = self.servers, self._below
        turns = math.floor(time) + 1
        count = turns * c
        left = c * self.utilisation * (turns - time)
        n = np.arange(count)
        places = np.minimum(count - 1 - n + c, len(below) - 1)
        with np.errstate(divide="ignore"):
            logs = n * math.log(left) - left if left > 0 else np.where(n == 0, 0.0, -np.inf)
        weights = np.exp(logs - _log_factorials(count))
        return float(min(1.0, np.sum(weights * below[places])))

    def wait_percentile(self, share: float) -> float:
        """The wait that a share of the calls (0.99 for p99) does not exceed."""
        if self.wait_at_most(0.0) >= share:
            return 0.0
        high = 1.0
        while self.wait_at_most(high) < share:
            high *= 2
        low = 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.wait_at_most(middle) < share else (low, middle)
        return high

    def mean_wait(self) -> float:
        """The mean wait, by Little's law: of the number in the system, less those being served."""
        below = self._below
        waiting = float(np.sum(1.0 - below[self.servers :]))
        return waiting / (self.servers * self.utilisation)


def _log_factorials(count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count)))])


def highest_utilisation(servers: int, limit: float, share: float = 0.99) -> float:
    """The highest utilisation of M/D/c at which a share of calls is answered within a limit.

    limit: wait and service, in service times. 0 where the limit is below one service time.
    """
    if limit < 1:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        if DeterministicQueue(servers, middle).wait_at_most(limit - 1) >= share:
            low = middle
        else:
            high = middle
    return low
