"""What a plan works with; tests give it other things."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..artifacts import Artifact
from ..request import CompileRequest
from ..roofline import roofline
from .energy_readers import counters
from .energy_use import FindCounters
from .profiles import ProfileModel
from .rounds import RunProbe, run_probe


@dataclass(frozen=True)
class PlanTools:
    """What a plan is made with. compile: makes artifacts. probe: measures programs.
    clock: seconds, for the time budget. find_counters, sleep: for energy. profile: measures a
    model's kernels one by one."""

    compile: Callable[[Path, CompileRequest], Artifact]
    probe: RunProbe = run_probe
    clock: Callable[[], float] = time.monotonic
    find_counters: FindCounters = counters
    sleep: Callable[[float], None] = time.sleep
    profile: ProfileModel = roofline
