"""Batches that are to be measured, and where: on this machine, one after another, or elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, runtime_checkable

from .events import WORKER, Event, Listener
from .history import PastBatch, PastTurn
from .race import RULES, RaceRules, run_batch
from .task import Batch, Built, MachineClass, Measurer, Reading, Task, WaitEndedError, Waiting

TOLD_SECONDS = 5.0  # of waiting for another program, after which that is told
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class BatchJob:
    """One batch. past: what was done of it already; its turns are empty and its id -1 where nothing
    was. keep: positions that are confirmed again. checked: whether that is done."""

    task: Task
    batch: Batch
    past: PastBatch
    seed: str
    keep: tuple[int, ...] = ()
    checked: bool = False
    rules: RaceRules = RULES


@dataclass(frozen=True)
class JobResult:
    """What a job gave. failures: of the check, by position; None: it was not done. seconds: that
    the check took. turns: in order. lost: why the job was not finished, or ""; what it gave counts
    all the same."""

    failures: Mapping[int, str] | None = None
    seconds: float = 0.0
    turns: Sequence[tuple[str, Reading]] = ()
    lost: str = ""


class Watch(Protocol):
    """Who is told what a job gives, as it comes."""

    def next_job(self) -> BatchJob | None:
        """What to do next; None: nothing at the moment."""
        ...

    def checked(
        self, job: BatchJob, failures: Mapping[int, str], seconds: float, worker: str
    ) -> PastBatch:
        """The check is done, in so many seconds; what turns are to be added to."""
        ...

    def turn(self, job: BatchJob, past: PastBatch, kind: str, reading: Reading) -> None:
        """A turn is done."""
        ...

    def finished(self, job: BatchJob, lost: str, worker: str) -> None:
        """Nothing more comes of a job. lost: why, where it is not through."""
        ...

    def stopped(self, past: PastBatch | None) -> bool:
        """Whether to do no further turn."""
        ...


class Pool(Protocol):
    """Where jobs are done."""

    @property
    def machine(self) -> MachineClass:
        """The class of its machines; one, as races never cross classes."""
        ...

    def run(self, watch: Watch) -> None:
        """Do jobs until there are none."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


@runtime_checkable
class WaitsForOthers(Protocol):
    """A measurer that waits while another program measures, and asks `waiting` meanwhile."""

    waiting: Waiting


@dataclass
class LocalPool:
    """One measurer, whose turns are told as they come."""

    measurer: Measurer
    clock: Clock = time.monotonic
    listener: Listener = lambda event: None
    _told: bool = field(default=False, init=False)

    @property
    def machine(self) -> MachineClass:
        """The measurer's."""
        return self.measurer.machine

    def run(self, watch: Watch) -> None:
        """Do jobs until there are none. Raises OSError when the measurer is lost."""
        self._told = False
        if isinstance(self.measurer, WaitsForOthers):
            self.measurer.waiting = partial(self._gives_up, watch)
        while (job := watch.next_job()) is not None:
            past = job.past
            if not job.checked:
                begun = self.clock()
                failures = self.measurer.check(job.batch)
                past = watch.checked(job, failures, self.clock() - begun, "")
            lost = ""
            try:
                run_batch(
                    self.measurer, job.batch, past, job.seed, job.keep,
                    commit=lambda kind, reading, j=job, p=past: watch.turn(j, p, kind, reading),  # type: ignore[misc]
                    stopped=lambda p=past: watch.stopped(p),  # type: ignore[misc]
                    rules=job.rules,
                )  # fmt: skip
            except WaitEndedError:
                lost = "stopped"
            watch.finished(job, lost, "")

    def _gives_up(self, watch: Watch, seconds: float) -> bool:
        """Tell that another program measures; whether to wait no longer."""
        if seconds >= TOLD_SECONDS and not self._told:
            self._told = True
            text = "it waits for another program that measures on this machine"
            self.listener(Event(WORKER, data={"worker": "", "told": text}))
        return watch.stopped(None)

    def close(self) -> None:
        """Close the measurer."""
        self.measurer.close()


def do_job(measurer: Measurer, job: BatchJob, clock: Clock = time.monotonic) -> JobResult:
    """A whole job where nobody watches: on a worker. What it gave before a loss is told."""
    past = PastBatch(-1, job.past.number, job.past.wave, job.past.built, 0.0, list(job.past.turns))
    failures: Mapping[int, str] | None = {} if job.checked else None
    turns: list[tuple[str, Reading]] = []
    begun = clock()
    seconds = 0.0

    def commit(kind: str, reading: Reading) -> None:
        past.turns.append(PastTurn(len(past.turns), kind, reading))
        turns.append((kind, reading))

    try:
        if not job.checked:
            failures = measurer.check(job.batch)
            seconds = clock() - begun
            past.built = with_failures(past.built, failures)
        run_batch(measurer, job.batch, past, job.seed, job.keep, commit, rules=job.rules)
    except OSError as error:
        return JobResult(failures, seconds, turns, lost=str(error) or type(error).__name__)
    return JobResult(failures, seconds, turns)


def take(watch: Watch, job: BatchJob, result: JobResult, worker: str) -> None:
    """Tell what a job that nobody watched gave."""
    if result.failures is not None:
        past = (
            job.past if job.checked else watch.checked(job, result.failures, result.seconds, worker)
        )
        for kind, reading in result.turns:
            watch.turn(job, past, kind, reading)
    watch.finished(job, result.lost, worker)


def with_failures(built: Sequence[Built], failures: Mapping[int, str]) -> tuple[Built, ...]:
    """Candidates of a batch, with why some are out."""
    return tuple(
        replace(one, error=one.error or failures.get(position, ""))
        for position, one in enumerate(built)
    )
