"""Times of runs that take turns in one process, so that a change of the machine's speed meets all.

A `Timer` is given wherever times decide: that of a target (`timer_of`), or what a test has in its
place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from ..compiler.backend import AnyBackend
from ..compiler.knobs import TIME_PRECISION
from ..compiler.target import CpuTarget, Target

Clock = Callable[[], float]  # seconds
Runs = Mapping[str, Callable[[], object]]
Times = Mapping[str, Sequence[float]]
Timer = Callable[[Runs], Times]

ROUND_SECONDS = 0.02  # of each run in a round, about
MOST_ROUNDS, FEWEST_ROUNDS = 15, 3
MOST_CALLS = 2000  # of a run in a round
ALL_SECONDS = 3.0
SAME = 1.01  # times that differ by less are not told apart


def why_not_timed(backend: AnyBackend, target: Target) -> str:
    """Why times decide nothing about the precision of a target's code here; "" where they do."""
    if not TIME_PRECISION.value:
        return f"{TIME_PRECISION.variable} is off"
    elsewhere = backend.runs_here(target)
    return f"compiled for another machine ({elsewhere})" if elsewhere else ""


def clock_of(target: Target, alone: bool) -> Clock:
    """What `timer_of` times by: `time.thread_time` or `time.perf_counter`."""
    return time.thread_time if alone and isinstance(target, CpuTarget) else time.perf_counter


def timer_of(target: Target, alone: bool, seconds: float = ALL_SECONDS) -> Timer:
    """What times binaries for a target. seconds: of all rounds, about.

    alone: whether they have one thread.

    By the processor time of the calling thread, where that computes everything: what else a busy
    machine does meanwhile is no part of it. Else by the clock.
    """
    return partial(interleaved, seconds=seconds, clock=clock_of(target, alone))


def interleaved(
    runs: Runs, seconds: float = ALL_SECONDS, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of a call, by name: the median of every round.

    In a round every run is called for about `ROUND_SECONDS`, once at least; each is called twice
    before, untimed. The order turns with the rounds: none always follows the same. seconds: of all
    rounds, about, unless the fewest take longer.
    """
    counts = {name: _calls(run, clock) for name, run in runs.items()}
    whole = sum(max(ROUND_SECONDS, once) for _, once in counts.values())
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, round(seconds / whole)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for _ in range(rounds):
        for name in order:
            times[name].append(_median(runs[name], counts[name][0], clock))
        order = order[1:] + order[:1]
    return times


def _calls(run: Callable[[], object], clock: Clock) -> tuple[int, float]:
    """How often to call it in a round, and about how long one call takes."""
    run()
    seconds = _median(run, 1, clock)
    return min(MOST_CALLS, max(1, round(ROUND_SECONDS / max(seconds, 1e-7)))), seconds


def _median(run: Callable[[], object], calls: int, clock: Clock) -> float:
    found = []
    last = clock()
    for _ in range(calls):
        run()
        now = clock()
        found.append(now - last)
        last = now
    return median(found)


def share_of(times: Times, name: str, other: str) -> float:
    """How long one run takes as a share of another: the median over rounds of the quotient."""
    return median(a / b for a, b in zip(times[name], times[other], strict=True))
