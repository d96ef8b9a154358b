"""Whether what was measured still runs: machine code decides, not versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ScheduleError
from .task import Tunable


@dataclass(frozen=True)
class Remembered:
    """What a record says of a task: the winner's choice, and digests of its and the base's code."""

    choice: Mapping[str, Any]
    code: str
    base_code: str


def unchanged(tunable: Tunable, records: Mapping[str, Remembered]) -> dict[str, bool]:
    """For every task that a record is for, by key: whether what a compilation takes by itself and
    the winner are both the machine code that was measured. A record whose choice is none any more
    is changed; those for other tasks are left out."""
    found = {}
    for task in tunable.tasks:
        record = records.get(task.key)
        if record is None:
            continue
        try:
            winner = tunable.candidate(task, record.choice)
        except ScheduleError:
            found[task.key] = False
            continue
        built = tunable.codes(task, [tunable.base(task), winner])
        wanted = [record.base_code, record.code]
        found[task.key] = [one.code for one in built] == wanted and not any(b.error for b in built)
    return found
