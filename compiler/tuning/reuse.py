"""Whether what was measured still runs: machine code decides, not versions."""

from __future__ import annotations

from ..errors import ScheduleError
from .history import Verdict
from .task import Candidate, Task, Tunable


def why_changed(tunable: Tunable, task: Task, verdict: Verdict) -> str:
    """Why a verdict about a task does not hold any more: what a compilation takes by itself, or the
    winner, is not the machine code that was measured. "" where both are."""
    try:
        winner = tunable.candidate(task, verdict.choice)
    except ScheduleError as error:
        return f"its choice is none any more ({error.what})"
    base = tunable.base(task)
    own, chosen = tunable.codes(task, [base, winner])
    for what, one in (("the kernel's own", own), ("the choice's", chosen)):
        if one.error:
            return f"{what} machine code cannot be made any more ({one.error})"
    if own.code != verdict.base_digest and base.key != Candidate(verdict.base).key:
        return "the compiler itself decides otherwise than when it was tuned"
    if own.code != verdict.base_digest:
        return "the kernel's own machine code is not what was measured"
    if chosen.code != verdict.digest:
        return "the choice's machine code is not what was measured"
    return ""
