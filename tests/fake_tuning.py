"""A model with made-up kernels, and a machine that times them without a clock: times follow from
what is asked for, so that a session gives the same however often it is interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.tuning.task import (
    Batch,
    Built,
    CallTimes,
    Candidate,
    GraphAlternative,
    MachineClass,
    Reading,
    Task,
    Turn,
)

ROWS, UNROLLS, BLOCKS = (1, 2, 3, 4, 6, 8), (1, 2, 4, 8), (0, 64, 128)


def drawn(*parts: object) -> float:
    """A number between 0 and 1 that follows from the parts."""
    text = ":".join(map(str, parts))
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def choice_of(rows: int, unroll: int, block: int) -> dict[str, object]:
    return {"form": "", "stages": [{"rows": rows, "unroll": unroll, "block": block}]}


@dataclass
class FakeModel:
    """Tasks whose best candidates are faster than the base by known shares.

    gains: by task, the ratio of its best candidate's time to the base's; all others are slower than
    the base. inexact: whether that best one changes results' bits. emitter: another one makes other
    machine code.
    """

    gains: Mapping[str, float]
    built: list[str] = field(default_factory=list)
    broken: Sequence[str] = ()
    emitter: str = ""
    roof_share: float = 0.3

    @property
    def tasks(self) -> Sequence[Task]:
        return [
            Task(
                key,
                f"kernel_{key}",
                f"{key}-key",
                seconds=1e-3 * (n + 1),
                roof_share=self.roof_share,
            )
            for n, key in enumerate(self.gains)
        ]

    def candidates(self, task: Task) -> Sequence[Candidate]:
        every = [
            self._candidate(rows, unroll, block)
            for rows in ROWS
            for unroll in UNROLLS
            for block in BLOCKS
        ]
        return [self._candidate(4, 4, 0), *(c for c in every if c.steps)]

    def _candidate(self, rows: int, unroll: int, block: int) -> Candidate:
        steps = (rows != 4) + (unroll != 4) + (block != 0)
        features = (float(rows), float(unroll), float(block > 0))
        return Candidate(choice_of(rows, unroll, block), block == 0, 0.0, features, steps)

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        own = candidate.choice["stages"][0]
        return [
            one
            for one in self.candidates(task)
            if sum(one.choice["stages"][0][name] != own[name] for name in own) == 1
        ]

    def base(self, task: Task) -> Candidate:
        return self.candidates(task)[0]

    def candidate(self, task: Task, choice: Mapping[str, object]) -> Candidate:
        found = next((c for c in self.candidates(task) if c.choice == choice), None)
        if found is None:
            raise ScheduleError(f"{choice} is none")
        return found

    def build(self, task: Task, candidates: Sequence[Candidate]) -> Batch:
        built = []
        for one in candidates:
            self.built.append(one.key)
            failed = "it cannot be emitted" if one.key in self.broken else ""
            built.append(
                Built(
                    one.key, hashlib.sha256(f"{self.emitter}{one.key}".encode()).hexdigest(), failed
                )
            )
        return Batch(task.key, tuple(built), {"task": task.key.encode()}, 0.1 * len(candidates))

    def graph_alternatives(self) -> Sequence[GraphAlternative]:
        return ()

    def codes(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[Built]:
        return self.build(task, candidates).built


@dataclass
class FakeMeasurer:
    """gains: as the model's. noise: of a turn, as a share; each turn is also faster or slower as a
    whole. wrong: keys of candidates that compute something else."""

    gains: Mapping[str, float]
    noise: float = 0.01
    exact: bool = False
    wrong: Mapping[str, str] = field(default_factory=dict)
    disturbed: float = 0.0
    closed: bool = False
    turns: list[tuple[str, Turn]] = field(default_factory=list)
    machine: MachineClass = field(default_factory=lambda: MachineClass("fake", {"cores": 2}))

    def check(self, batch: Batch) -> Mapping[int, str]:
        return {
            n: self.wrong[one.candidate]
            for n, one in enumerate(batch.built)
            if one.candidate in self.wrong
        }

    def true_ratio(self, task: str, key: str) -> float:
        best = Candidate(choice_of(3, 2, 0)).key
        base = Candidate(choice_of(4, 4, 0)).key
        if key == base:
            return 1.0
        return self.gains[task] if key == best else 1.01 + 0.5 * drawn(task, key)

    def time(self, batch: Batch, turn: Turn) -> Reading:
        self.turns.append((batch.task, turn))
        about = (batch.task, turn.order, turn.number, *(b.candidate for b in batch.built))
        speed = 1.0 + 0.3 * drawn("speed", *about)
        samples = []
        for place, position in enumerate(turn.order):
            ratio = self.true_ratio(batch.task, batch.built[position].candidate)
            error = 0.0 if self.exact else self.noise * (drawn(place, *about) - 0.5)
            base = 1e-3 * (1 + list(self.gains).index(batch.task))
            seconds = base * speed * ratio * (1 + error)
            samples.append(CallTimes(position, seconds * 0.99, seconds, seconds * 1.02, 10))
        late = "stolen time" if drawn("late", *about) < self.disturbed else ""
        return Reading(tuple(samples), 0.02 + turn.seconds * len(turn.order), {}, late)

    def close(self) -> None:
        self.closed = True


def still() -> float:
    """A clock that stands."""
    return 0.0
