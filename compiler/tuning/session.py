"""A tuning session: what is measured next, until the budget is used or nothing is left.

First the base of every task runs against itself: that tells how long it takes, and how noisy the
machine is. Then, in waves, each task gets a share of the budget; in it, batches of candidates race.
Whatever comes of a step is written down before the next, and every step follows from what is
written down, so that a session goes on where it was, in any process, with equal results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import events
from .events import Event, Listener
from .history import CONFIRM, RACE, History, PastBatch, PastTask, Verdict
from .jobs import BatchJob, Clock, Pool, with_failures
from .race import RULES, RaceRules, kept_positions, next_turn, noise, verdict_from
from .search import CandidateSpace, left_over, next_candidates
from .shares import (
    CONFIRMING,
    FEWEST_TRIALS,
    Budget,
    Share,
    base_seconds,
    divided,
    trial_seconds,
    turn_seconds,
)
from .task import BASE, Batch, Candidate, Reading, Task, Tunable

BATCH = 16  # candidates that are built and raced together, beside the base
IDLE_BATCHES = 2  # without a newly confirmed gain, after which a task waits for the next wave
WORTH_A_WAVE = 0.05  # of a budget: what is left that another wave begins with
LONGEST_STOP = 20.0  # seconds that a confirmation may go on after it was asked to stop
BEGINNING = 0.4  # of the budget: what the first batches of all tasks may use
SMALL = 0.003  # of the time of a run: what shorter tasks could win cannot be seen
MOST_LOSSES = 8  # of workers over one batch; few are its fault: candidates have their own processes


@dataclass(frozen=True)
class Settings:
    """Of a session. budget: in all. inexact: candidates too whose results differ from the base's in
    the order of sums. seeds: for a task, choices that did well elsewhere. skip: why a task is left
    out, or ""."""

    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    inexact: bool = False
    seeds: Callable[[Task], Sequence[Mapping[str, Any]]] = lambda task: ()
    skip: Callable[[Task], str] = lambda task: ""
    rules: RaceRules = RULES
    clock: Clock = time.monotonic


@dataclass
class TuningSession:
    """Tunes the tasks of a model. It is a `jobs.Watch`: a pool does what it says."""

    history: History
    tunable: Tunable
    pool: Pool
    settings: Settings = field(default_factory=Settings)
    listener: Listener = lambda event: None

    def __post_init__(self) -> None:
        self.space = CandidateSpace(self.tunable)
        self.stops = 0
        self.in_flight: dict[str, BatchJob] = {}
        self.overheads: dict[str, float] = {}
        self.losses: dict[str, int] = {}
        self.candidates: dict[tuple[str, int], list[Candidate]] = {}
        self.known = {task.key: task for task in self.tunable.tasks}

    # ------------------------------------------------------------------ from outside

    def run(self) -> None:
        """Tune until the budget is used, nothing is left, or `stop` was called.

        Raises OSError when no measurer is left.
        """
        self._take_up()
        self._tell(events.STARTED, tasks=len(self.history.tasks), continued=self.spent > 0)
        self.pool.run(self)
        for past in self.history.tasks:
            self._conclude(past)
        self._tell(events.FINISHED, stopped=self.stops > 0)

    def _take_up(self) -> None:
        """Join what the session has done with what this version of the compiler makes: tasks that
        are new begin, those that there are no more are left, and so are batches of other machine
        code."""
        there = {past.task.key for past in self.history.tasks}
        new = [task for task in self.tunable.tasks if task.key not in there]
        if new:
            self.history.begin([(task, self._skipped(task)) for task in new])
        for past in self.history.tasks:
            past.gone = past.task.key not in self.known
            if past.batches and not past.gone:
                base = self.space.base(past.task)
                past.keep(self.tunable.codes(self.known[past.task.key], [base])[BASE].code)

    def stop(self) -> None:
        """Do no further turn, or, the first time, finish a confirmation that is nearly through."""
        self.stops += 1
        self._tell(events.STOPPING)

    @property
    def spent(self) -> float:
        """Seconds of the budget that were used."""
        return sum(past.spent for past in self.history.tasks)

    @property
    def trials(self) -> int:
        """Candidates that were built."""
        return sum(past.trials for past in self.history.tasks)

    @property
    def noise(self) -> list[float]:
        """What equal code differed by, of every turn."""
        return [n for past in self.history.tasks for batch in past.batches for n in noise(batch)]

    # ------------------------------------------------------------------ what is next

    def next_job(self) -> BatchJob | None:
        """The next batch; None: nothing, or nothing until what is in flight is back."""
        begun = self.settings.clock()
        job = self._next_job()
        if job is not None:
            took = self.settings.clock() - begun
            self.overheads[job.task.key] = max(0.0, took - job.batch.seconds)
        return job

    def _next_job(self) -> BatchJob | None:
        if self.stops:
            return None
        for past in self._to_begin():
            if past.task.key not in self.in_flight:
                return self._job(past, self._first(past))
        if any(past.task.key in self.in_flight for past in self._to_begin()):
            return None  # shares follow from all first batches
        while self.spent < self.settings.budget.seconds:
            for past in self._open_tasks():
                job = self._next_of(past) if past.task.key not in self.in_flight else None
                if job is not None:
                    return job
            begun = [past for past in self._open_tasks() if past.batches]
            if self.in_flight or not begun or not self._new_wave():
                return None
        return None

    def _open_tasks(self) -> list[PastTask]:
        return [past for past in self.history.tasks if not past.skipped and not past.gone]

    def _to_begin(self) -> list[PastTask]:
        """Tasks whose first batch is not through, while that leaves enough to tune the others."""
        if self.spent >= BEGINNING * self.settings.budget.seconds:
            return []
        waiting = [
            past
            for past in self._open_tasks()
            if not past.batches or not self._through(past.batches[0])
        ]
        return sorted(waiting, key=lambda past: (-past.task.calls * past.task.seconds, past.id))

    def _skipped(self, task: Task) -> str:
        """Why a task is left out, or ""."""
        whole = sum(own.calls * own.seconds for own in self.tunable.tasks)
        if task.calls * task.seconds < SMALL * whole:
            return f"it is less than {SMALL:.1%} of a run"
        return self.settings.skip(task)

    def _first(self, past: PastTask) -> list[Candidate]:
        """The base against itself."""
        base = self.space.base(past.task)
        return [base, base]

    def _next_of(self, past: PastTask) -> BatchJob | None:
        """The next batch of a task within its share of the wave; None: it is through with it."""
        share = self._share(past)
        if share is None:
            return None
        last = past.batches[-1]
        if not self._through(last):
            return self._job(past, self._built_before(past, last))
        room = self._room(past, share)
        candidates = self._more(past, room) if room else []
        if not candidates:
            self._conclude(past)
            return None
        return self._job(past, candidates)

    def _share(self, past: PastTask) -> Share | None:
        data = self.history.waves[-1].get(past.task.key) if self.history.waves else None
        return Share.from_json(data) if data else None

    def _room(self, past: PastTask, share: Share) -> int:
        """How many candidates a task may still build in this wave."""
        wave = len(self.history.waves) - 1
        own = [b for b in past.batches if not b.is_first and b.wave == wave]
        if self._idle(past, own) >= IDLE_BATCHES:
            return 0
        trials = share.trials - sum(len(b.built) - 1 for b in own)
        seconds = share.seconds * (1 - CONFIRMING) - sum(b.spent for b in own)
        first = [past.batches[0]] if past.batches else []
        known = own or first
        per_trial = max(
            trial_seconds(past),
            sum(b.seconds for b in known) / max(1, sum(len(b.built) for b in known)),
        )
        by_time = (seconds - 5 * turn_seconds(past)) / per_trial if per_trial else trials
        room = int(min(BATCH, trials, by_time, self.settings.budget.trials - self.trials))
        return room if room >= min(FEWEST_TRIALS // 2, trials) and room > 0 else 0

    def _idle(self, past: PastTask, own: Sequence[PastBatch]) -> int:
        """Batches of this wave since the last that confirmed something new."""
        idle = 0
        for batch in own:
            place = past.batches.index(batch)
            before, after = self._verdict(past, place), self._verdict(past, place + 1)
            idle = 0 if after and before and after.choice != before.choice else idle + 1
        return idle

    def _verdict(self, past: PastTask, batches: int | None = None) -> Verdict | None:
        """What the first so many batches found."""
        part = PastTask(past.id, past.task, "", past.batches[:batches])
        return verdict_from(part, self.history.choices, self.settings.rules)

    def _more(self, past: PastTask, room: int) -> list[Candidate]:
        return next_candidates(
            self.space, past, self.history.choices, self.settings.seeds(past.task),
            str(self.settings.seed), room, inexact=self.settings.inexact,
        )  # fmt: skip

    def _built_before(self, past: PastTask, batch: PastBatch) -> list[Candidate]:
        """The candidates of a batch that is not through."""
        found = []
        for one in batch.built:
            choice = self.history.choices[one.candidate]
            found.append(self.space.of(past.task, choice) or Candidate(choice))
        return found

    def _through(self, batch: PastBatch) -> bool:
        if batch.failures.get(BASE) or all(one.error for one in batch.built):
            return True
        if batch.turns and batch.turns[-1].kind == CONFIRM and self._exact(batch):
            return True
        return next_turn(batch, "", self._keep(batch), self.settings.rules) is None

    def _exact(self, batch: PastBatch) -> bool:
        """Whether costs are without noise: there was no race."""
        return not any(turn.kind == RACE for turn in batch.turns)

    def _keep(self, batch: PastBatch) -> list[int]:
        past = next(p for p in self.history.tasks if batch in p.batches)
        return kept_positions(batch, self._verdict(past, past.batches.index(batch)))

    # ------------------------------------------------------------------ waves

    def _new_wave(self) -> bool:
        """Divide what is left of the budget; False: there is too little, or nothing to try."""
        budget = self.settings.budget
        left = Budget(budget.trials - self.trials, budget.seconds - self.spent)
        if self.history.waves and not (
            left.trials >= max(FEWEST_TRIALS, WORTH_A_WAVE * _finite(budget.trials))
            and left.seconds >= WORTH_A_WAVE * _finite(budget.seconds)
        ):
            return False
        if self.history.waves and not self._wave_did():
            return False
        tasks = [past for past in self._open_tasks() if self._worth(past)]
        shares = divided(tasks, left)
        if not shares:
            return False
        self.history.add_wave({key: share.to_json() for key, share in shares.items()})
        self._tell(events.WAVE, number=len(self.history.waves), tasks=len(shares))
        return True

    def _wave_did(self) -> bool:
        """Whether the last wave built anything: else the next one would not, either."""
        last = len(self.history.waves) - 1
        return any(not b.is_first and b.wave == last for p in self.history.tasks for b in p.batches)

    def _worth(self, past: PastTask) -> bool:
        """Whether there is anything to be won, and to be tried."""
        if not past.batches or past.batches[0].failures.get(BASE):
            return False
        begun = len(past.batches) > 1  # what was never tried is not listed for this alone
        return not begun or left_over(self.space, past, inexact=self.settings.inexact)

    # ------------------------------------------------------------------ jobs

    def _job(self, past: PastTask, candidates: list[Candidate]) -> BatchJob | None:
        """A batch, built anew where it was built before."""
        key = past.task.key
        task = self.known[key]
        batch = self.tunable.build(task, candidates)
        number = len(past.batches) + len(past.older)
        unfinished = past.batches[-1] if past.batches else None
        if unfinished is not None and self._through(unfinished):
            unfinished = None
        if unfinished is not None and not _same_code(unfinished, batch):
            past.give_up(unfinished)
            unfinished = None
        if unfinished is not None:
            own, number = unfinished, unfinished.number
        else:
            own = PastBatch(-1, number, len(self.history.waves) - 1, batch.built, 0.0)
        verdict = self._verdict(past, len(past.batches) - (unfinished is not None))
        job = BatchJob(
            task, batch, own, f"{self.settings.seed}:{key}",
            tuple(kept_positions(own, verdict)), unfinished is not None, self.settings.rules,
        )  # fmt: skip
        self.in_flight[key] = job
        self.candidates[key, number] = candidates
        self._tell(events.BUILT, key, candidates=len(candidates) - 1, batch=number)
        return job

    def checked(
        self, job: BatchJob, failures: Mapping[int, str], seconds: float, worker: str
    ) -> PastBatch:
        """Write a batch down, with what it took to find, build and check."""
        past = self._past(job)
        built = with_failures(job.batch.built, failures)
        candidates = self.candidates[job.task.key, job.past.number]
        whole = self.overheads.get(job.task.key, 0.0) + job.batch.seconds + seconds
        return self.history.add_batch(past, candidates, built, whole, worker)

    def turn(self, job: BatchJob, past: PastBatch, kind: str, reading: Reading) -> None:
        """Write a turn down."""
        self.history.add_turn(past, kind, reading)
        self._tell(events.TURN, job.task.key, batch=past.number, turn=kind)

    def finished(self, job: BatchJob, lost: str, worker: str) -> None:
        """A job is over; one that was lost too often is given up."""
        key = job.task.key
        self.in_flight.pop(key, None)
        if not lost:
            self.losses.pop(key, None)
            return
        self.losses[key] = self.losses.get(key, 0) + 1
        self._tell(events.WORKER, key, lost=lost, worker=worker)
        if self.losses[key] >= MOST_LOSSES:
            reason = f"{MOST_LOSSES} workers were lost over its batch: {lost}"
            failures = dict.fromkeys(range(len(job.batch.built)), reason)
            last = self._past(job).batches[-1:]
            if last and last[0].number == job.past.number:
                self.history.add_turn(last[0], RACE, Reading((), 0.0, failures))
            else:
                self.checked(job, failures, 0.0, worker)

    def stopped(self, past: PastBatch | None) -> bool:
        """Whether to do no further turn of a batch."""
        if not self.stops:
            return False
        if self.stops > 1 or past is None or not past.turns:
            return True
        last = past.turns[-1]
        left = 2 * self.settings.rules.pairs - sum(t.kind == CONFIRM for t in past.turns)
        return last.kind != CONFIRM or left * last.reading.seconds > LONGEST_STOP

    def _past(self, job: BatchJob) -> PastTask:
        return next(past for past in self.history.tasks if past.task.key == job.task.key)

    def _conclude(self, past: PastTask) -> None:
        """Write down what was found of a task, where that is new."""
        verdict = self._verdict(past)
        if verdict is None or verdict == past.verdict:
            return
        self.history.conclude(past, verdict)
        self._tell(
            events.VERDICT, past.task.key, ratio=verdict.ratio, low=verdict.low,
            high=verdict.high, gain=verdict.is_gain, seconds=base_seconds(past),
        )  # fmt: skip

    def _tell(self, kind: str, task: str = "", **data: Any) -> None:
        self.listener(Event(kind, task, self.spent, self.trials, data))


def _same_code(past: PastBatch, batch: Batch) -> bool:
    """Whether candidates that were built again are what was measured."""
    pairs = zip(past.built, batch.built, strict=True)
    return all(old.code == new.code for old, new in pairs if old.code and new.code)


def _finite(value: float) -> float:
    return 0.0 if value == float("inf") else value
