"""Measurers for workers of a cluster: times are made up, durations are real."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from fake_tuning import FakeMeasurer

from tensmith.compiler.tuning.task import Batch, MachineClass, Reading, Turn

GAINS = {"a": 0.9, "b": 1.2, "c": 0.97, "d": 0.8}


@dataclass
class SlowMeasurer(FakeMeasurer):
    """seconds: that a turn takes."""

    seconds: float = 0.005

    def time(self, batch: Batch, turn: Turn) -> Reading:
        time.sleep(self.seconds)
        return super().time(batch, turn)


@dataclass(frozen=True)
class MakeFake:
    """Makes the measurer of a worker. folder: where workers that start take a number: the second is
    ten times slower, the third of another class."""

    folder: Path
    seconds: float = 0.005
    gains: dict[str, float] = field(default_factory=lambda: dict(GAINS))

    def __call__(self) -> SlowMeasurer:
        number = 0
        while True:
            try:
                os.close(os.open(self.folder / f"worker{number}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                number += 1
        own = SlowMeasurer(self.gains, seconds=self.seconds * (10 if number == 1 else 1))
        if number == 2:
            own.machine = MachineClass("another")
        return own

    def __hash__(self) -> int:
        return hash(self.folder)
