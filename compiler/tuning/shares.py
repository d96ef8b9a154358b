"""How a budget is divided among tasks: by the time that there is to be won.

What a task may cost is estimated from its first batch, in which the base ran against itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .history import RACE, PastTask
from .task import BASE

FEWEST_TRIALS = 8  # of a task that is tuned at all
# Of a task's time, what may be won whatever share the least possible time has: that is uncertain,
# and kernels at 0.92 to 1.00 of it gained up to 5 % (ResNet-50, Zen 5).
LEAST_LEFT = 0.03
CONFIRMING = 0.15  # of a task's share, kept for confirmation
_TURNS = 5 + 12  # of a race and a confirmation
_LONGER = 1.5  # a turn of a race than one of the first batch, with few candidates


@dataclass(frozen=True)
class Budget:
    """Of a whole session, however often it is continued; infinite where there is no limit."""

    trials: float = math.inf
    seconds: float = math.inf


@dataclass(frozen=True)
class Share:
    """What a task may use in one wave."""

    trials: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Numbers; None for what is not limited."""
        return {
            name: None if math.isinf(value) else value
            for name, value in (("trials", self.trials), ("seconds", self.seconds))
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Share:
        """What `to_json` wrote."""
        return cls(*(math.inf if data[n] is None else data[n] for n in ("trials", "seconds")))


def base_seconds(past: PastTask) -> float:
    """Of one call of the base: measured in the first batch, or as it is predicted."""
    times = [
        sample.lower_quartile
        for batch in past.batches[:1]
        for turn in batch.turns
        for sample in turn.reading.samples
        if sample.position == BASE
    ]
    return median(times) if times else past.task.seconds


def roof_share(past: PastTask) -> float:
    """The least possible time as a share of the measured one."""
    seconds = base_seconds(past)
    return past.task.roof_share * past.task.seconds / seconds if seconds else 0.0


def to_be_won(past: PastTask) -> float:
    """Seconds of a run, at most."""
    return past.task.calls * base_seconds(past) * max(LEAST_LEFT, 1.0 - roof_share(past))


def trial_seconds(past: PastTask) -> float:
    """About what one more candidate costs to build."""
    return past.batches[0].seconds / 2 if past.batches else 0.0


def turn_seconds(past: PastTask) -> float:
    """About what a turn takes."""
    turns = [t.reading.seconds for b in past.batches[:1] for t in b.turns if t.kind == RACE]
    return _LONGER * median(turns) if turns else 0.0


def least_seconds(past: PastTask) -> float:
    """What the fewest trials of a task cost, confirmation included."""
    return (FEWEST_TRIALS + 1) * trial_seconds(past) + _TURNS * turn_seconds(past)


def divided(tasks: Sequence[PastTask], left: Budget) -> dict[str, Share]:
    """What each task may use of what is left, by key; tasks for which too little is left get none.

    Those with most to be won come first; each gets what the fewest trials cost at least.
    """
    ranked = sorted(tasks, key=lambda past: (-to_be_won(past), past.task.key))
    if left.trials < 1 or left.seconds <= 0:
        return {}
    while len(ranked) > 1 and not (
        len(ranked) * FEWEST_TRIALS <= left.trials
        and sum(map(least_seconds, ranked)) <= left.seconds
    ):
        ranked.pop()
    weights = [to_be_won(past) for past in ranked]
    trials = _filled(weights, [float(FEWEST_TRIALS)] * len(ranked), left.trials)
    seconds = _filled(weights, [least_seconds(past) for past in ranked], left.seconds)
    return {
        past.task.key: Share(count if math.isinf(count) else math.floor(count), most)
        for past, count, most in zip(ranked, trials, seconds, strict=True)
    }


def _filled(weights: Sequence[float], floors: Sequence[float], total: float) -> list[float]:
    """Parts of a total by weight, none below its floor (the only one gets all there is)."""
    if math.isinf(total) or len(weights) <= 1:
        return [total] * len(weights)
    at_floor: set[int] = set()
    while True:
        rest = total - sum(floors[n] for n in at_floor)
        whole = sum(w for n, w in enumerate(weights) if n not in at_floor) or 1.0
        parts = {n: rest * w / whole for n, w in enumerate(weights) if n not in at_floor}
        low = {n for n, part in parts.items() if part < floors[n]}
        if not low:
            return [parts.get(n, floors[n]) for n in range(len(weights))]
        at_floor |= low
