"""What is tuned, what it can be, and what measures it: the interface between tuning and a target.

A backend opens a model as a `Tunable`: its tasks, and for each the candidates, of which the first
is the base, what a compilation takes by itself. It builds candidates in batches; a `Measurer`,
which may be another machine, checks and times them. Nothing here knows what a candidate decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

PROTOCOL = 1  # of measuring: samples of another one are not compared
BASE = 0  # position of the base in every batch
KEY_DIGITS = 16


@dataclass(frozen=True)
class Task:
    """One piece of work whose candidates are timed against each other.

    key: a digest of what is computed (operators, types, alignments, sizes, threads), of the target
    and of the regime, without names. name: for people. choice_key: under which a compilation looks
    a choice up. sizes: of symbolic dims. regime: what surrounds a measured call: bytes of other
    memory read between two of them, for instance. calls: in one run of the model. seconds: of one
    call of the base, as it is predicted. roof_share: the least possible time as a share of that.
    """

    key: str
    name: str
    choice_key: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    threads: int = 1
    regime: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 1
    seconds: float = 0.0
    roof_share: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """One way to do a task.

    choice: the decision, as files hold it. exact: its results are the base's, bit for bit; others
    differ in the order of sums. predicted: seconds of a call, or 0. features: numbers that a model
    of times may look at, as many for every candidate of a target. steps: by how many single
    decisions it differs from the base. expected: the logarithm of its time as a share of the
    base's, by what was measured of other tasks; 0 where nothing is known.
    """

    choice: Mapping[str, Any]
    exact: bool = True
    predicted: float = 0.0
    features: tuple[float, ...] = ()
    steps: int = 0
    expected: float = 0.0

    @property
    def key(self) -> str:
        """A digest of the choice."""
        return digest(packed(self.choice))


@dataclass(frozen=True)
class Built:
    """A candidate as it was built. code: a digest of its machine code, relocations blanked.
    error: why it could not be built; it is not measured then."""

    candidate: str
    code: str = ""
    error: str = ""


@dataclass(frozen=True)
class Batch:
    """Candidates of a task that are built together, the base first.

    files: what a measurer needs, by name. seconds: that building took.
    """

    task: str
    built: tuple[Built, ...]
    files: Mapping[str, bytes]
    seconds: float = 0.0


@dataclass(frozen=True)
class Turn:
    """One visit to the measurer: a new process, in which the candidates at these positions of the
    batch are timed one after another, for about so many seconds each. A position may come twice.
    number: of the turn in its batch."""

    order: tuple[int, ...]
    seconds: float
    number: int = 0


@dataclass(frozen=True)
class CallTimes:
    """One entry of a turn's order. Times in seconds of one call; count: of timed calls."""

    position: int
    least: float
    lower_quartile: float
    median: float
    count: int


@dataclass(frozen=True)
class Reading:
    """What a turn gave. samples: in the turn's order; entries of candidates that failed are left
    out, and failures says how they ended, by position in the batch. seconds: that the turn took.
    disturbed: why the samples do not count (stolen time, another frequency), or ""."""

    samples: tuple[CallTimes, ...]
    seconds: float
    failures: Mapping[int, str] = field(default_factory=dict)
    disturbed: str = ""


@dataclass(frozen=True)
class MachineClass:
    """A kind of machine: records of one count on another of the same name only.

    name: made of what decides times (processor family, model and stepping, caches, instructions).
    facts: all that is known of it, for people.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphAlternative:
    """Something that a whole model can do otherwise: the form of a block, its layout, what is
    fused.

    key: a digest of what it changes. name: for people. choices: by the key under which a
    compilation looks them up. exact: no bit of a result changes. replaces: groups the choices for
    which mean nothing with it.
    """

    key: str
    name: str
    choices: Mapping[str, Mapping[str, Any]]
    exact: bool = False
    replaces: frozenset[str] = frozenset()


class WaitEndedError(Exception):
    """It was asked to stop while another program measured."""


Waiting = Callable[[float], bool]  # asked now and then: seconds of waiting; whether to give up


class Measurer(Protocol):
    """What times candidates: a process on this machine or another, or an exact oracle.

    exact: `time` gives costs without noise, and one reading decides.
    """

    exact: bool

    @property
    def machine(self) -> MachineClass:
        """On which it measures."""
        ...

    def check(self, batch: Batch) -> Mapping[int, str]:
        """Why candidates of a batch do not compute what its base does, by position; a crash, a hang
        or an illegal instruction is such a reason. To be called before `time`."""
        ...

    def time(self, batch: Batch, turn: Turn) -> Reading:
        """One turn. Raises OSError when the measurer is lost; a candidate that fails is told."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class Tunable(Protocol):
    """A model that is open for tuning."""

    @property
    def tasks(self) -> Sequence[Task]:
        """In the order of a run."""
        ...

    def candidates(self, task: Task) -> Sequence[Candidate]:
        """All that are legal, the base first; always in the same order."""
        ...

    def neighbours(self, task: Task, candidate: Candidate) -> Sequence[Candidate]:
        """Those that differ from one by a single decision."""
        ...

    def base(self, task: Task) -> Candidate:
        """What a compilation takes by itself: the first candidate."""
        ...

    def candidate(self, task: Task, choice: Mapping[str, Any]) -> Candidate:
        """A candidate that a record holds. Raises ScheduleError for a choice that is none."""
        ...

    def build(self, task: Task, candidates: Sequence[Candidate]) -> Batch:
        """Machine code of the candidates, of which the first is the base."""
        ...

    def graph_alternatives(self) -> Sequence[GraphAlternative]:
        """What the whole model could do otherwise, that with most to be won first: it is timed in
        whole binaries, beside what tasks have found."""
        ...

    def codes(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[Built]:
        """As `build`, for the digests alone: nothing is there to be measured."""
        ...


def machine_of(measurer: Measurer) -> MachineClass:
    """The machine that a measurer, which is closed, measures on."""
    try:
        return measurer.machine
    finally:
        measurer.close()


def packed(value: Any) -> str:
    """JSON, the same for equal values."""
    return json.dumps(value, sort_keys=True)


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
