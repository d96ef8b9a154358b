"""What a session has come to, in figures: for a table, a page, or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from .exchange import Tree, past_tasks
from .history import PastTask
from .merging import last_day
from .race import noise, scores
from .search import changed
from .shares import base_seconds, roof_share
from .statistics import interval, spread
from .task import BASE, digest


@dataclass(frozen=True)
class TaskSummary:
    """A task. share: of the time of a run. seconds: of one call of the base, measured where it was.

    roof_share: the least possible time as a share of that. ratio, low, high: of the choice that was
    confirmed, to the base (1 where none was). best: ratio of what raced best, confirmed or not.
    decisions: fields in which the choice differs from the base's.
    """

    key: str
    name: str
    calls: int
    share: float
    seconds: float
    roof_share: float
    skipped: str
    trials: int
    failures: Mapping[str, int]
    spent: float
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0
    best: float = 1.0
    is_judged: bool = False
    is_gain: bool = False
    choice: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class SessionSummary:
    """A session. noises: times of equal code, as shares of each other; noise: their spread.

    expected: time of a run with all confirmed choices as a share of the untuned one's, from the
    kernels. progress: (seconds spent, candidates built) after every batch. outcome: of the last
    whole binary.
    """

    id: str
    name: str
    model: str
    target: str
    machine: str
    options: Mapping[str, Any]
    seed: int
    protocol: int
    started: str
    last: str
    spent: float
    trials: int
    noise: float
    noises: tuple[float, ...]
    expected: float
    tasks: tuple[TaskSummary, ...]
    outcome: Mapping[str, Any] | None = None
    progress: tuple[tuple[float, int], ...] = ()

    @property
    def gains(self) -> list[TaskSummary]:
        """Tasks of which a faster choice was confirmed."""
        return [task for task in self.tasks if task.is_gain]

    def to_json(self) -> dict[str, Any]:
        """All fields, of noises how many there are."""
        return {**asdict(self), "noises": len(self.noises)}


def summaries(tree: Tree) -> list[SessionSummary]:
    """Of every session, the latest last."""
    found = [summary_of(tree, key) for key in tree["sessions"]]
    return sorted(found, key=lambda own: (own.last, own.started, own.id))


def summary_of(tree: Tree, key: str) -> SessionSummary:
    """Of the session with a key."""
    session = tree["sessions"][key]
    past = past_tasks(tree, session)
    whole = sum(own.task.calls * base_seconds(own) for own in past) or 1.0
    tasks = tuple(task_summary(own, own.task.calls * base_seconds(own) / whole) for own in past)
    noises = [value for own in past for batch in own.batches for value in noise(batch)]
    outcomes = session["outcomes"]
    return SessionSummary(
        id=digest(key), name=session["name"], model=session["model"], target=session["target"],
        machine=session["machine"], options=session["options"], seed=session["seed"],
        protocol=session["protocol"], started=session["started"], last=last_day(session),
        spent=sum(own.spent for own in past), trials=sum(own.trials for own in past),
        noise=spread(noises), noises=tuple(noises), expected=expected(tasks), tasks=tasks,
        outcome=outcomes[-1]["result"] if outcomes else None, progress=_progress(session),
    )  # fmt: skip


def expected(tasks: tuple[TaskSummary, ...]) -> float:
    """Time of a run with all confirmed choices as a share of that without."""
    return 1.0 - sum(task.share * (1.0 - task.ratio) for task in tasks)


def task_summary(past: PastTask, share: float) -> TaskSummary:
    """Of one task, given its share of a run."""
    verdict = past.verdict
    failures = Counter(
        reason.partition(":")[0] for batch in past.batches for reason in batch.failures.values()
    )
    raced = [
        score
        for batch in past.batches
        for position, score in scores(batch).items()
        if position != BASE and batch.built[position].candidate != batch.built[BASE].candidate
    ]
    judged = () if verdict is None else (verdict.ratio, verdict.low, verdict.high)
    gain = verdict is not None and verdict.is_gain
    return TaskSummary(
        past.task.key, past.task.name, past.task.calls, share, base_seconds(past),
        min(1.0, roof_share(past)), past.skipped, past.trials, dict(sorted(failures.items())),
        past.spent, *(judged or (1.0, 1.0, 1.0)), min([1.0, *raced]), verdict is not None, gain,
        verdict.choice if verdict and gain else {},
        tuple(sorted(set(changed(verdict.base, verdict.choice)))) if verdict and gain else (),
    )  # fmt: skip


def _progress(session: Tree) -> tuple[tuple[float, int], ...]:
    spent, built, found = 0.0, 0, []
    for batch in session["batches"]:
        spent += batch["seconds"] + sum(turn["seconds"] for turn in batch["turns"])
        base = batch["trials"][BASE]["choice"]
        built += sum(1 for trial in batch["trials"] if trial["choice"] != base)
        found.append((spent, built))
    return tuple(found)


@dataclass(frozen=True)
class Winners:
    """How often a decision is part of a confirmed choice. ratio: of those choices, the median, with
    its interval; where: names of the tasks."""

    decision: str
    tasks: int
    ratio: float
    low: float
    high: float
    where: tuple[str, ...]


def winners(sessions: list[SessionSummary]) -> list[Winners]:
    """Which decisions win, and where: what a heuristic may learn from, the most frequent first."""
    found: dict[str, list[TaskSummary]] = {}
    for session in sessions:
        for task in session.gains:
            for decision in task.decisions:
                found.setdefault(decision, []).append(task)
    rows = []
    for decision, tasks in found.items():
        ratios = [task.ratio for task in tasks]
        low, high = interval(ratios)
        names = tuple(sorted({task.name for task in tasks}))
        rows.append(Winners(decision, len(tasks), median(ratios), low, high, names))
    return sorted(rows, key=lambda row: (-row.tasks, row.decision))
