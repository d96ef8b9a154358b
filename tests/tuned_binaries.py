"""Models that are tuned by the fake backend of `driver/conftest.py`, binaries timed by made-up
clocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensmith
from tensmith.compiler.tuning.exchange import tree_of
from tensmith.compiler.tuning.records import Records
from tensmith.driver.timing import Runs
from tensmith.driver.tuning import pairs
from tensmith.driver.tuning.pairs import TUNED, UNTUNED

TRIALS = 240  # enough for three tasks


class Clock:
    """Seconds of a call by name, whatever the machine does; a list is used up, time by time."""

    def __init__(self, *ratios: float) -> None:
        self.ratios, self.calls = list(ratios), 0

    def __call__(self, runs: Runs) -> Mapping[str, list[float]]:
        for run in runs.values():
            run()
        binary = self.calls // pairs.PAIRS
        self.calls += 1
        ratio = self.ratios[min(binary, len(self.ratios) - 1)]
        return {UNTUNED: [1.0, 1.1, 0.9], TUNED: [ratio, 1.1 * ratio, 0.9 * ratio]}

    @property
    def binaries(self) -> int:
        return self.calls // pairs.PAIRS


def tuned(model: Path, db: Path, clock: Clock, **given: Any) -> Any:
    return tensmith.tune(model, records=db, timer=clock, **{"trials": TRIALS, **given})


def contents(path: Path) -> dict[str, Any]:
    with Records(path, write=False) as records:
        return tree_of(records)
