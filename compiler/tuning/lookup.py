"""Which verdicts hold for a model here and now, and which do not.

A verdict is used where the same task was tuned on a machine of the same class by the same protocol,
and where the machine code of base and choice is still what was measured; whatever made it, and
whatever version. Everything else is a seed for a search, no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .exchange import Tree, damage_told, verdict_in
from .history import Verdict, verdict_of
from .records import Records
from .reuse import why_changed
from .task import PROTOCOL, Candidate, MachineClass, Task, Tunable, digest, packed

MOST_SEEDS = 4  # of one task


@dataclass(frozen=True)
class Recorded:
    """The last verdict of a session about a task. session: its key; model: the digest of its
    file."""

    machine: str
    protocol: int
    session: str
    model: str
    verdict: Verdict


class VerdictSource(Protocol):
    """Where verdicts and outcomes are: a records file, or records that were exported."""

    def verdicts(self, task: Task) -> Sequence[Recorded]:
        """All about a task."""
        ...

    def outcomes(self, model: str, target: str, machine: str) -> Sequence[Mapping[str, Any]]:
        """Whole binaries of a model that were timed; with `session`, the key."""
        ...


@dataclass(frozen=True)
class RecordsSource:
    """An open file."""

    records: Records

    def verdicts(self, task: Task) -> Sequence[Recorded]:
        """All about a task."""
        query = (
            "SELECT verdict.*, b.json AS base_json, c.json AS choice_json, machine.class,"
            " session.key, session.model FROM verdict"
            " JOIN choice AS b ON b.id = verdict.base JOIN choice AS c ON c.id = verdict.choice"
            " JOIN machine ON machine.id = verdict.machine"
            " JOIN session ON session.id = verdict.session"
            " JOIN task ON task.id = verdict.task WHERE task.key = ?"
            " ORDER BY verdict.session, verdict.number"
        )
        with damage_told(self.records.path):
            last = {row["key"]: row for row in self.records.rows(query, task.key)}
            return [
                Recorded(
                    row["class"], row["protocol"], row["key"], row["model"], verdict_of(row)
                )
                for row in last.values()
            ]  # fmt: skip

    def outcomes(self, model: str, target: str, machine: str) -> Sequence[Mapping[str, Any]]:
        """Of all sessions of a model, the earliest first."""
        query = (
            "SELECT outcome.result, session.key FROM outcome"
            " JOIN session ON session.id = outcome.session"
            " JOIN machine ON machine.id = session.machine"
            " WHERE session.model = ? AND session.target = ? AND machine.class = ?"
            " AND session.protocol = ? ORDER BY outcome.id"
        )
        with damage_told(self.records.path):
            rows = self.records.rows(query, model, target, machine, PROTOCOL)
            return [{**json.loads(row["result"]), "session": row["key"]} for row in rows]


@dataclass(frozen=True)
class TreeSource:
    """Exported records."""

    tree: Tree

    def verdicts(self, task: Task) -> Sequence[Recorded]:
        """All about a task."""
        found = []
        for key, session in self.tree["sessions"].items():
            own = [verdict for verdict in session["verdicts"] if verdict["task"] == task.key]
            if own:
                last = own[-1]
                verdict = verdict_in(self.tree, last)
                found.append(
                    Recorded(
                        last["machine"], last["protocol"], key, session["model"], verdict
                    )
                )  # fmt: skip
        return found

    def outcomes(self, model: str, target: str, machine: str) -> Sequence[Mapping[str, Any]]:
        """Of all sessions of a model."""
        wanted = (model, target, machine, PROTOCOL)
        return [
            {**outcome["result"], "session": key}
            for key, own in sorted(self.tree["sessions"].items())
            if (own["model"], own["target"], own["machine"], own["protocol"]) == wanted
            for outcome in own["outcomes"]
        ]


@dataclass(frozen=True)
class Improvement:
    """A verdict that holds: another choice for a task than a compilation makes by itself."""

    task: Task
    verdict: Verdict
    machine: str
    session: str

    @property
    def identity(self) -> str:
        """Everything that decides what becomes of it, as text."""
        own = self.verdict
        return packed(
            [self.task.key, self.machine, PROTOCOL, own.base_digest, own.digest, own.choice]
        )


@dataclass
class Usable:
    """improvements: the surest first. stale: why verdicts do not hold any more, a line each.
    elsewhere: kernels of which other machines alone have verdicts. inexact: kernels whose verdict
    changes the order of sums, which was not allowed."""

    improvements: list[Improvement] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)


def look_up(
    source: VerdictSource,
    tunable: Tunable,
    machine: MachineClass,
    model: str,
    *,
    inexact: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Usable:
    """The verdicts about a model's tasks that hold.

    model: the digest of its file, whose own sessions come first. inexact: choices too that change
    the order of sums. tell: told the name of each kernel whose code is compared.
    """
    found = Usable()
    for task in tunable.tasks:
        every = source.verdicts(task)
        gains = [own for own in every if own.verdict.is_gain]
        here = [o for o in every if o.machine == machine.name and o.protocol == PROTOCOL]
        ranked = _surest_first(here, model)
        if not ranked:
            if gains and not here:
                found.elsewhere.append(task.name)
            continue
        tell(task.name)
        reasons = [why_changed(tunable, task, own.verdict) for own in ranked]
        holding = [own for own, why in zip(ranked, reasons, strict=True) if not why]
        allowed = [
            own for own in holding if inexact or tunable.candidate(task, own.verdict.choice).exact
        ]
        if allowed:
            own = allowed[0]
            found.improvements.append(Improvement(task, own.verdict, machine.name, own.session))
        elif holding:
            found.inexact.append(task.name)
        else:
            found.stale.append(f"{task.name}: {reasons[0]}")
    _drop_conflicts(tunable.tasks, found)
    found.improvements.sort(key=lambda own: (own.verdict.high, own.verdict.ratio, own.task.key))
    return found


def _surest_first(recorded: Sequence[Recorded], model: str) -> list[Recorded]:
    """Gains, those of the model's own sessions before others.

    That another session confirmed nothing says little: it may not have tried that choice.
    """
    gains = [one for one in recorded if one.verdict.is_gain]
    return sorted(
        gains,
        key=lambda own: (
            own.model != model, own.verdict.high, own.verdict.ratio, own.session,
        ),
    )  # fmt: skip


def _drop_conflicts(tasks: Sequence[Task], found: Usable) -> None:
    """Leave out choices that would also meet tasks for which they were not confirmed."""
    by_task = {own.task.key: own for own in found.improvements}
    for own in list(found.improvements):
        others = [t for t in tasks if t.choice_key == own.task.choice_key and t.key != own.task.key]
        for other in others:
            its = by_task.get(other.key)
            if its is None or its.verdict.choice != own.verdict.choice:
                found.stale.append(
                    f"{own.task.name}: its choice would be that of other kernels, too, for which "
                    "it was not confirmed"
                )
                found.improvements.remove(own)
                break


def seeds_in(source: VerdictSource, task: Task) -> list[Mapping[str, Any]]:
    """Choices that won anywhere: what a search tries first."""
    gains = [own for own in source.verdicts(task) if own.verdict.is_gain]
    ranked = sorted(gains, key=lambda own: (own.verdict.ratio, own.session))
    found = {Candidate(own.verdict.choice).key: own.verdict.choice for own in ranked}
    return list(found.values())[:MOST_SEEDS]


def short_key(session: str) -> str:
    """A session's name for people, as tables have it."""
    return digest(session)
