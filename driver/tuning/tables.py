"""Rows of the tables about sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...compiler.tuning.summaries import SessionSummary, TaskSummary
from ..console import human_seconds
from ..durations import human_duration


def gain_text(ratio: float) -> str:
    """What of the time is saved; an empty text where nothing is."""
    return f"-{1 - ratio:.1%}" if ratio < 1 else ""


def interval_text(low: float, high: float) -> str:
    """An interval of the time that is saved, the greater saving first."""
    return (
        f"-{1 - low:.1%} .. -{1 - high:.1%}" if high < 1 else f"-{1 - low:.1%} .. {high - 1:+.1%}"
    )


def outcome_text(session: SessionSummary) -> str:
    """What the whole model came to."""
    outcome = session.outcome
    if outcome is None:
        return "not timed"
    return gain_text(outcome["ratio"]) if outcome["accepted"] else "untuned is kept"


def session_row(session: SessionSummary) -> list[Any]:
    """Of the table of sessions."""
    return [
        session.id, session.name, session.target, session.last[:16].replace("T", " "),
        session.trials, human_duration(session.spent), len(session.gains), len(session.tasks),
        outcome_text(session), f"{session.noise:.1%}" if session.noises else "",
    ]  # fmt: skip


def task_rows(session: SessionSummary) -> Iterator[list[Any]]:
    """Of the table of a session's kernels, those that take most first."""
    for task in sorted(session.tasks, key=lambda own: -own.share):
        yield [
            f"{task.calls} x {task.name}" if task.calls > 1 else task.name,
            f"{task.share:.1%}", human_seconds(task.seconds),
            gain_text(task.ratio) or state_text(task),
            interval_text(task.low, task.high) if task.is_gain else "",
            task.trials, sum(task.failures.values()) or "", ", ".join(task.decisions),
        ]  # fmt: skip


def state_text(task: TaskSummary) -> str:
    """What became of a task of which no gain was confirmed."""
    if task.skipped:
        return "left out"
    if not task.trials:
        return "not tried"
    return "no gain" if task.is_judged else "under way"


def tuned_text(manifest: Mapping[str, Any]) -> str:
    """What a manifest says of tuning, in a line; "" where no records were named."""
    told = manifest.get("tuning")
    if told is None:
        return ""
    counts = ((len(told["used"]), "kernel(s)"), (len(told["graph"]), "segment(s) of the graph"))
    parts = [f"{count} {name}" for count, name in counts if count]
    if not parts:
        return "untuned: no choice of the records is used here"
    text = f"tuned: choices of records for {' and '.join(parts)}"
    if told["interval"] is None:
        return f"{text}, not timed together"
    return f"{text}; when timed, a run took {interval_text(*told['interval'])}"
