"""What a session has done so far, as rows tell it, and how steps become rows.

All that is decided is a function of this, so that a session that was killed goes on as if it had
not been.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._version import __version__
from .records import Records, now
from .task import (
    BASE,
    PROTOCOL,
    Built,
    CallTimes,
    Candidate,
    MachineClass,
    Reading,
    Task,
    digest,
    packed,
)

RACE, CONFIRM = "race", "confirm"  # kinds of turns


@dataclass(frozen=True)
class PastTurn:
    """A turn that is over. number: within its batch; kind: RACE or CONFIRM."""

    number: int
    kind: str
    reading: Reading


@dataclass
class PastBatch:
    """A batch with what its turns gave. built: by position; keys of candidates."""

    id: int
    number: int
    wave: int
    built: tuple[Built, ...]
    seconds: float
    turns: list[PastTurn] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Seconds that it took in all."""
        return self.seconds + sum(turn.reading.seconds for turn in self.turns)

    @property
    def is_first(self) -> bool:
        """Whether it is the base against itself, with which a task begins."""
        return len({one.candidate for one in self.built}) == 1

    @property
    def base_code(self) -> str:
        """The digest of the base's machine code."""
        return self.built[BASE].code

    @property
    def failures(self) -> dict[int, str]:
        """Why candidates are out of the race, by position."""
        found = {n: one.error for n, one in enumerate(self.built) if one.error}
        for turn in self.turns:
            found |= turn.reading.failures
        return found

    def counted(self, kind: str) -> list[PastTurn]:
        """The turns of a kind whose samples count."""
        return [t for t in self.turns if t.kind == kind and not t.reading.disturbed]


@dataclass(frozen=True)
class Verdict:
    """What tuning a task has found. choice: the base's where no gain was confirmed.

    digests: of machine code. ratio, low, high: seconds of the choice as a share of the base's, with
    the interval that holds it at 95 %. pairs, wins: of the confirmation.
    """

    base: Mapping[str, Any]
    choice: Mapping[str, Any]
    base_digest: str
    digest: str
    pairs: int = 0
    wins: int = 0
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0

    @property
    def is_gain(self) -> bool:
        """Whether another choice than the base's was confirmed."""
        return self.choice != self.base


@dataclass
class PastTask:
    """A task in a session. verdict: the last; verdicts: how many there were, one for a wave. older:
    batches of machine code that this version of the compiler does not make; they count no more.
    gone: it makes no such task."""

    id: int
    task: Task
    skipped: str = ""
    batches: list[PastBatch] = field(default_factory=list)
    verdict: Verdict | None = None
    verdicts: int = 0
    older: list[PastBatch] = field(default_factory=list)
    gone: bool = False

    def keep(self, code: str) -> None:
        """Let those batches count whose base has this machine code, and no others."""
        every = sorted([*self.batches, *self.older], key=lambda batch: batch.number)
        self.batches = [batch for batch in every if batch.base_code == code]
        self.older = [batch for batch in every if batch.base_code != code]

    def give_up(self, batch: PastBatch) -> None:
        """Let a batch count no more."""
        self.batches.remove(batch)
        self.older.append(batch)

    @property
    def spent(self) -> float:
        """Seconds."""
        return sum(batch.spent for batch in self.batches)

    @property
    def tried(self) -> set[str]:
        """Keys of the candidates that were built, base included."""
        return {one.candidate for batch in self.batches for one in batch.built}

    @property
    def trials(self) -> int:
        """Candidates that were built, beside the base."""
        bases = {batch.built[0].candidate for batch in self.batches}
        return len(self.tried - bases)


@dataclass(frozen=True)
class SessionKey:
    """What a session is of: the same again is the same session, which goes on.

    model: a digest of its file. name: for people. options: all that changes what is tuned.
    """

    model: str
    name: str
    target: str
    machine: MachineClass
    options: Mapping[str, Any]
    seed: int = 0

    @property
    def text(self) -> str:
        """A natural key."""
        parts = [
            self.model,
            self.target,
            self.machine.name,
            dict(self.options),
            self.seed,
            PROTOCOL,
        ]
        return packed(parts)


@dataclass(frozen=True)
class PastOutcome:
    """A binary that was timed as a whole. tasks: keys of those whose choices it has."""

    tasks: tuple[str, ...]
    result: Mapping[str, Any]


VERDICTS = (
    "SELECT verdict.*, b.json AS base_json, c.json AS choice_json FROM verdict"
    " JOIN choice AS b ON b.id = verdict.base JOIN choice AS c ON c.id = verdict.choice"
)


def verdict_of(row: sqlite3.Row) -> Verdict:
    """The verdict that a row of `VERDICTS` holds."""
    names = ("base_digest", "digest", "pairs", "wins", "ratio", "low", "high")
    return Verdict(
        json.loads(row["base_json"]), json.loads(row["choice_json"]), *(row[n] for n in names)
    )


class History:
    """A session in a records file. tasks: in the order of a run, once `begin` has set them."""

    def __init__(self, records: Records, key: SessionKey, toolchain: str) -> None:
        self.records, self.key = records, key
        with records.transaction():
            self.machine = records.shared(
                "machine", ["class"],
                **{"class": key.machine.name, "facts": packed(dict(key.machine.facts))},
            )  # fmt: skip
            self.code = records.shared(
                "code", ["version", "toolchain"], version=__version__, toolchain=toolchain
            )
            self.id = records.shared(
                "session", ["key"], key=key.text, model=key.model, name=key.name,
                target=key.target, options=packed(dict(key.options)), machine=self.machine,
                protocol=PROTOCOL, seed=key.seed, started=now(),
            )  # fmt: skip
        self.choices: dict[str, Mapping[str, Any]] = {}  # by key, all that were built
        self._read()

    @classmethod
    def of(cls, records: Records, key: SessionKey) -> History:
        """A session that is there already, to be looked at. Raises KeyError where there is none."""
        found = records.rows("SELECT * FROM session WHERE key = ?", key.text)
        if not found:
            raise KeyError(key.name)
        own = cls.__new__(cls)
        own.records, own.key = records, key
        own.id, own.machine, own.code = found[0]["id"], found[0]["machine"], 0
        own.choices = {}
        own._read()
        return own

    def _read(self) -> None:
        self.tasks: list[PastTask] = self._tasks()
        self.waves: list[dict[str, Any]] = [
            json.loads(row["shares"])
            for row in self.records.rows(
                "SELECT shares FROM wave WHERE session = ? ORDER BY number", self.id
            )
        ]
        self.outcomes = [
            PastOutcome(tuple(json.loads(row["tasks"])), json.loads(row["result"]))
            for row in self.records.rows(
                "SELECT * FROM outcome WHERE session = ? ORDER BY number", self.id
            )
        ]

    # ------------------------------------------------------------------ reading

    def _tasks(self) -> list[PastTask]:
        rows = self.records.rows(
            "SELECT * FROM member JOIN task ON task.id = member.task WHERE session = ?"
            " ORDER BY number",
            self.id,
        )
        return [self._task(row) for row in rows]

    def _task(self, row: Any) -> PastTask:
        task = Task(
            row["key"], row["name"], row["choice_key"], json.loads(row["sizes"]), row["threads"],
            json.loads(row["regime"]), row["calls"], row["seconds"], row["roof_share"],
        )  # fmt: skip
        batches = self.records.rows(
            "SELECT * FROM batch WHERE session = ? AND task = ? ORDER BY number",
            self.id,
            row["task"],
        )
        past = PastTask(row["task"], task, row["skipped"], [self._batch(own) for own in batches])
        verdicts = self.records.rows(
            f"{VERDICTS} WHERE verdict.session = ? AND verdict.task = ? ORDER BY verdict.number",
            self.id,
            past.id,
        )
        past.verdicts = len(verdicts)
        past.verdict = verdict_of(verdicts[-1]) if verdicts else None
        return past

    def _batch(self, row: Any) -> PastBatch:
        trials = self.records.rows(
            "SELECT * FROM trial JOIN choice ON choice.id = trial.choice WHERE batch = ?"
            " ORDER BY position",
            row["id"],
        )
        built = tuple(Built(own["key"], own["digest"], own["error"]) for own in trials)
        self.choices |= {own["key"]: json.loads(own["json"]) for own in trials}
        batch = PastBatch(row["id"], row["number"], row["wave"], built, row["seconds"])
        for turn in self.records.rows(
            "SELECT * FROM turn WHERE batch = ? ORDER BY number", row["id"]
        ):
            samples = self.records.rows(
                "SELECT * FROM sample WHERE turn = ? ORDER BY place", turn["id"]
            )
            times = tuple(
                CallTimes(s["position"], s["least"], s["lower_quartile"], s["median"], s["count"])
                for s in samples
            )
            failures = {int(n): text for n, text in json.loads(turn["failures"]).items()}
            reading = Reading(times, turn["seconds"], failures, turn["disturbed"])
            batch.turns.append(PastTurn(turn["number"], turn["kind"], reading))
        return batch

    # ------------------------------------------------------------------ writing

    def begin(self, tasks: Sequence[tuple[Task, str]]) -> None:
        """Add tasks to those of the session, with why some are skipped."""
        with self.records.transaction():
            for number, (task, skipped) in enumerate(tasks, len(self.tasks)):
                row = self.records.shared(
                    "task", ["key"], key=task.key, name=task.name, choice_key=task.choice_key,
                    target=self.key.target, sizes=packed(dict(task.sizes)), threads=task.threads,
                    regime=packed(dict(task.regime)),
                )  # fmt: skip
                self.records.add(
                    "member", session=self.id, task=row, number=number, calls=task.calls,
                    seconds=task.seconds, roof_share=task.roof_share, skipped=skipped,
                )  # fmt: skip
        self.tasks += self._tasks()[len(self.tasks) :]

    def add_wave(self, shares: Mapping[str, Any]) -> int:
        """A new wave: what of the budget each task may use in it. Its number."""
        with self.records.transaction():
            self.records.add(
                "wave", session=self.id, number=len(self.waves), shares=packed(dict(shares))
            )
        self.waves.append(dict(shares))
        return len(self.waves) - 1

    def add_batch(
        self,
        past: PastTask,
        candidates: Sequence[Candidate],
        built: Sequence[Built],
        seconds: float,
        worker: str = "",
    ) -> PastBatch:
        """A batch that was built and checked; candidates: by position."""
        number = len(past.batches) + len(past.older)
        wave = len(self.waves) - 1
        with self.records.transaction():
            batch = self.records.add(
                "batch", session=self.id, task=past.id, number=number, wave=wave, code=self.code,
                seconds=seconds, worker=worker,
            )  # fmt: skip
            for position, (one, own) in enumerate(zip(built, candidates, strict=True)):
                self.records.add(
                    "trial", batch=batch, position=position, choice=self._choice(own.choice),
                    exact=int(own.exact), predicted=own.predicted, digest=one.code,
                    error=one.error,
                )  # fmt: skip
        self.choices |= {own.key: own.choice for own in candidates}
        past.batches.append(PastBatch(batch, number, wave, tuple(built), seconds))
        return past.batches[-1]

    def add_turn(self, batch: PastBatch, kind: str, reading: Reading) -> None:
        """A turn that is over."""
        number = len(batch.turns)
        with self.records.transaction():
            turn = self.records.add(
                "turn", batch=batch.id, number=number, kind=kind, seconds=reading.seconds,
                disturbed=reading.disturbed,
                failures=packed({str(n): text for n, text in reading.failures.items()}),
            )  # fmt: skip
            for place, own in enumerate(reading.samples):
                self.records.add(
                    "sample", turn=turn, place=place, position=own.position, least=own.least,
                    lower_quartile=own.lower_quartile, median=own.median, count=own.count,
                )  # fmt: skip
        batch.turns.append(PastTurn(number, kind, reading))

    def conclude(self, past: PastTask, verdict: Verdict) -> None:
        """What was found of a task; a later wave may find better."""
        with self.records.transaction():
            self.records.add(
                "verdict", session=self.id, task=past.id, number=past.verdicts,
                machine=self.machine, protocol=PROTOCOL, base=self._choice(verdict.base),
                choice=self._choice(verdict.choice), base_digest=verdict.base_digest,
                digest=verdict.digest, pairs=verdict.pairs, wins=verdict.wins,
                ratio=verdict.ratio, low=verdict.low, high=verdict.high, date=now(),
            )  # fmt: skip
        past.verdict, past.verdicts = verdict, past.verdicts + 1

    def add_outcome(self, tasks: Sequence[str], result: Mapping[str, Any]) -> None:
        """What a binary with the choices of these tasks came to, against one without."""
        with self.records.transaction():
            self.records.add(
                "outcome", session=self.id, number=len(self.outcomes), tasks=packed(list(tasks)),
                result=packed(dict(result)), date=now(),
            )  # fmt: skip
        self.outcomes.append(PastOutcome(tuple(tasks), dict(result)))

    def _choice(self, choice: Mapping[str, Any]) -> int:
        text = packed(dict(choice))
        return self.records.shared("choice", ["key"], key=digest(text), json=text)
