"""Tuning on the workers of a Dask cluster: a batch is a task, and races on one worker.

Nothing of value lies on workers: what a batch gave is written down here as it comes, and a batch
whose worker is lost is done again. Workers tell what they are as they join; those of another class
of machine, or another version of Tensmith, are not used, and those that turn out noisy no longer.

Source: Dask.distributed documentation, "Futures" and "Resilience": what a lost worker had is run
again by the scheduler where any worker may do it; batches are bound to one, so this is done here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..._version import __version__
from ...compiler.errors import UsageError
from ...compiler.tuning.events import WORKER, Event, Listener
from ...compiler.tuning.jobs import BatchJob, JobResult, Watch, do_job, take
from ...compiler.tuning.race import noise_of
from ...compiler.tuning.statistics import spread
from ...compiler.tuning.task import MachineClass, Measurer

MakeMeasurer = Callable[[], Measurer]

LATE = 10.0  # times what batches take usually: one that takes longer is given to another worker
IDLE_LATE = 3.0  # the same where a worker has nothing else to do
LEAST_LATE = 5.0  # seconds
PATIENCE = 60.0  # seconds without any worker, after which they count as lost
POLL, SHORT = 0.25, 0.05  # seconds
STOP_SECONDS = 20.0  # that batches may go on after a stop
NOISY, NOISY_TURNS = 0.05, 6  # spread of the base against itself, over so many turns

_MEASURERS: dict[str, Measurer] = {}  # of a worker's process, by what they are for


@dataclass(frozen=True)
class Announced:
    """What a worker tells of itself."""

    version: str
    machine: MachineClass


def announce(name: str, make: MakeMeasurer) -> Announced:
    """On a worker: what it is."""
    return Announced(__version__, _measurer(name, make).machine)


def perform(name: str, make: MakeMeasurer, job: BatchJob) -> JobResult:
    """On a worker: a whole batch."""
    return do_job(_measurer(name, make), job)


def _measurer(name: str, make: MakeMeasurer) -> Measurer:
    if name not in _MEASURERS:
        _MEASURERS[name] = make()
    return _MEASURERS[name]


@dataclass
class _Worker:
    """A worker as it is known here. why_not: why it is not used, or ""."""

    address: str
    why_not: str = ""
    noise: list[float] = field(default_factory=list)


@dataclass
class _Running:
    """A batch on its way. copies: futures of it, with their workers and when they began."""

    job: BatchJob
    copies: dict[Any, tuple[str, float]] = field(default_factory=dict)


class ClusterPool:
    """The workers of a Dask client, a batch on each.

    name: of what is measured, for workers that measure several things; make: makes the measurer on
    a worker. wanted: name of the class of machines; "": the only one that there is. Raises
    UsageError where no worker is there, or of several classes none is named.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        make: MakeMeasurer,
        *,
        wanted: str = "",
        listener: Listener = lambda event: None,
        close: Callable[[], None] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        self.client, self.name, self.make = client, name, make
        self.listener, self.patience, self._close = listener, patience, close
        self.workers: dict[str, _Worker] = {}
        self.running: dict[str, _Running] = {}
        self.took: list[float] = []
        self._machine = self._one_class(wanted)
        self._look()

    @property
    def machine(self) -> MachineClass:
        """Of all workers that are used."""
        return self._machine

    def close(self) -> None:
        """End the connection, and the cluster where it was made for this."""
        self._close()

    # ------------------------------------------------------------------ workers

    def _one_class(self, wanted: str) -> MachineClass:
        deadline = time.monotonic() + self.patience
        while not (told := self._announced(list(self._addresses()))):
            if time.monotonic() > deadline:
                raise UsageError(
                    "the cluster has no workers", remedy="start some: `dask worker ADDRESS`"
                )
            time.sleep(POLL)
        classes = {one.machine.name: one.machine for one in told.values()}
        if wanted and wanted not in classes:
            raise UsageError(
                f"no worker is of the class '{wanted}'", why=f"there are {', '.join(classes)}"
            )
        if not wanted and len(classes) > 1:
            raise UsageError(
                "the workers are of several classes, and times of one do not count on another",
                why=", ".join(classes),
                remedy="name one: --machine CLASS",
            )
        return classes[wanted or next(iter(classes))]

    def _addresses(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _announced(self, addresses: list[str]) -> dict[str, Announced]:
        """What workers tell; those that are lost meanwhile tell nothing."""
        futures = {
            address: self.client.submit(
                announce, self.name, self.make, workers=[address], pure=False, retries=0
            )
            for address in addresses
        }
        found = {}
        deadline = time.monotonic() + self.patience
        for address, future in futures.items():
            while not future.done() and time.monotonic() < deadline:
                if address not in self._addresses():
                    break  # what is bound to a worker that has left waits for ever
                time.sleep(SHORT)
            try:
                found[address] = future.result(timeout=SHORT)
            except Exception as error:  # whatever a worker's own program raised
                self._tell(address, f"it does not answer: {type(error).__name__}: {error}")
                self.workers[address] = _Worker(address, "it does not answer")
                future.cancel(force=True)
        return found

    def _look(self) -> None:
        """Take in workers that have joined, and let go those that have left."""
        present = self._addresses()
        for address in [known for known in self.workers if known not in present]:
            del self.workers[address]
        new = [address for address in present if address not in self.workers]
        for address, told in self._announced(new).items():
            why = ""
            if told.version != __version__:
                why = f"it has Tensmith {told.version}, this is {__version__}"
            elif told.machine.name != self._machine.name:
                why = f"it is of the class {told.machine.name}, not {self._machine.name}"
            self.workers[address] = _Worker(address, why)
            self._tell(address, f"not used: {why}" if why else "joined")

    def _idle(self) -> list[str]:
        busy = {worker for run in self.running.values() for worker, _ in run.copies.values()}
        return [w.address for w in self.workers.values() if not w.why_not and w.address not in busy]

    def _tell(self, worker: str, text: str) -> None:
        self.listener(Event(WORKER, data={"worker": worker, "told": text}))

    # ------------------------------------------------------------------ batches

    def run(self, watch: Watch) -> None:
        """Do batches until there are none. Raises OSError when no worker is left."""
        alone = stopped = None
        while True:
            self._look()
            idle = self._idle()
            while idle and (job := watch.next_job()) is not None:
                self._start(_Running(job), idle.pop())
            if not self.running:
                if any(not worker.why_not for worker in self.workers.values()):
                    return  # nothing is left to do
                alone = alone or time.monotonic()
                if time.monotonic() - alone > self.patience:
                    raise OSError("the cluster has no workers left")
                time.sleep(POLL)
                continue
            alone = None
            self._hurry(idle)
            self._collect(watch)
            if watch.stopped(None):
                stopped = stopped or time.monotonic()
                if time.monotonic() - stopped > STOP_SECONDS:
                    self._give_up(watch)

    def _start(self, run: _Running, worker: str) -> None:
        future = self.client.submit(
            perform, self.name, self.make, run.job, workers=[worker], pure=False, retries=0
        )
        run.copies[future] = (worker, time.monotonic())
        self.running[run.job.task.key] = run

    def _hurry(self, idle: list[str]) -> None:
        """Give batches that take too long to a worker that is idle, too."""
        usual = median(self.took) if self.took else 0.0
        used = sum(not worker.why_not for worker in self.workers.values())
        for run in self.running.values():
            if not idle or not usual:
                return
            began = max(start for _, start in run.copies.values())
            late = (IDLE_LATE if len(self.running) < used else LATE) * usual
            if time.monotonic() - began > max(LEAST_LATE, late):
                slow = ", ".join(worker for worker, _ in run.copies.values())
                self._tell(slow, f"slow: its batch of {run.job.task.name} is done elsewhere, too")
                self._start(run, idle.pop())

    def _collect(self, watch: Watch) -> None:
        """Take what has come in the next moment."""
        from distributed import wait

        futures = [future for run in self.running.values() for future in run.copies]
        try:
            done = wait(futures, timeout=POLL, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        present = self._addresses()
        for key, run in list(self.running.items()):
            for future, (worker, _) in list(run.copies.items()):
                if key in self.running and (future in done or worker not in present):
                    self._take(watch, run, future)

    def _take(self, watch: Watch, run: _Running, future: Any) -> None:
        """What one copy of a batch gave; the first that is through counts."""
        worker, began = run.copies.pop(future)
        result = _result(future)
        future.cancel(force=True)
        if result.lost and run.copies:
            self._tell(worker, f"lost: {result.lost}")
            return  # another copy is on its way
        for other in run.copies:
            other.cancel(force=True)
        del self.running[run.job.task.key]
        if not result.lost:
            self.took.append(time.monotonic() - began)
        take(watch, run.job, result, worker)
        self._judge(worker, result)

    def _judge(self, worker: str, result: JobResult) -> None:
        """Use a worker no longer that measures equal code unequally, where there are others."""
        own = self.workers.get(worker)
        if own is None or own.why_not:
            return
        own.noise += noise_of(reading for _, reading in result.turns)
        others = [w for w in self.workers.values() if not w.why_not and w is not own]
        if len(own.noise) < NOISY_TURNS or not others:
            return
        measured = [spread(w.noise) for w in others if len(w.noise) >= NOISY_TURNS]
        limit = max(NOISY, 3 * median(measured)) if measured else 2 * NOISY
        if spread(own.noise) > limit:
            own.why_not = f"equal code differs by {spread(own.noise):.0%} there"
            self._tell(worker, f"no longer used: {own.why_not}")

    def _give_up(self, watch: Watch) -> None:
        for run in list(self.running.values()):
            for future in run.copies:
                future.cancel(force=True)
            watch.finished(run.job, "stopped", "")
        self.running.clear()


def _result(future: Any) -> JobResult:
    """What a batch gave, or that it was lost with its worker."""
    if not future.done():
        return JobResult(lost="its worker has left")
    try:
        found: JobResult = future.result()
    except Exception as error:  # of the cluster, or of the worker's program
        return JobResult(lost=f"{type(error).__name__}: {error}")
    return found
