"""Two binaries timed against each other: in pairs of fresh processes, which take turns.

What a process finds (its pages, what lies beside them) moves times as much as many a gain; so a
pair of processes is one observation, and there are several. So does where the pages of a file lie
in memory, for as long as the system keeps them (measured on a Zen 5: copies of one library of
134 MB differ by up to 3 %, each of them lastingly); so every process gets a copy of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from ...compiler.errors import RunError, UsageError
from ...compiler.scratch import temporary_folder
from ...compiler.tuning.whole_model import FASTER, Paired
from ..artifacts import Artifact
from ..compare import compare_outputs
from ..engines import EngineSpec
from ..processes import DeadlineError, EngineProcess
from ..request import CompileRequest
from ..tensor_files import Array, Arrays
from ..timed_inputs import timed_inputs
from ..timing import Timer, share_of

PAIRS = 15  # of processes
DOUBTS = 4  # pairs that are no gain, after which the interval cannot be one, either
VISIT_SECONDS = 0.15  # of one binary in a turn; each has two in a pair of processes
LATE_SECONDS, LATE_TIMES = 60.0, 100.0  # that a pair may take: so long, and times a first run
UNTUNED, TUNED = "untuned", "tuned"


class NotComparedError(Exception):
    """Timing was given up: somebody asked to stop."""


class BinaryPair:
    """Times tuned binaries against one untuned. stopped: asked before every pair of processes."""

    def __init__(
        self,
        untuned: Artifact,
        request: CompileRequest,
        folder: Path,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.untuned, self.request = untuned, request
        self._folder, self._stopped = folder, stopped
        self._inputs, self._outputs = self._first_inputs()

    def _first_inputs(self) -> tuple[Arrays, Arrays]:
        """Inputs that the model takes, with what it gives for them."""
        numbers = count()

        def new_folder() -> Path:
            folder = self._folder / f"inputs{next(numbers)}"
            folder.mkdir()
            return folder

        data = (self.request.calibration, self.request.eval)
        for inputs in timed_inputs(self.untuned, data, new_folder):
            with EngineProcess(self.untuned.subject()) as engine:
                engine.open()
                begun = time.monotonic()
                try:
                    outputs = engine.run(inputs)
                    self._first_seconds = time.monotonic() - begun
                    return inputs, outputs
                except RunError:
                    continue  # of sizes that do not fit together
        raise UsageError(
            "the model cannot be timed: it takes no inputs that were tried",
            remedy="give --calibration: inputs as the model gets them",
        )

    def time(self, tuned: Artifact, *, exact: bool) -> Paired:
        """How a tuned binary does. exact: its outputs have to be the untuned one's, bit for bit.

        Raises NotComparedError when it was stopped.
        """
        if self.request.timer is not None:
            return self._in_process(tuned, self.request.timer, exact)
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {UNTUNED: [], TUNED: []}
        while len(ratios) < PAIRS and sum(ratio > FASTER for ratio in ratios) < DOUBTS:
            if self._stopped():
                raise NotComparedError
            try:
                times, problem = self._pair(tuned, exact, turned=len(ratios) % 2 == 1)
            except RunError as error:
                return Paired(problem=f"it does not run: {error.what}")
            except DeadlineError:
                limit = self._longest()
                return Paired(problem=f"it was not timed in {limit:.0f} s, as the untuned one is")
            if problem:
                return Paired(problem=problem)
            ratios.append(times[TUNED] / times[UNTUNED])
            for name, value in times.items():
                seconds[name].append(value)
        return Paired(tuple(ratios), median(seconds[UNTUNED]), median(seconds[TUNED]))

    def _longest(self) -> float:
        """Seconds that a pair of processes may take."""
        return LATE_SECONDS + LATE_TIMES * self._first_seconds

    def _pair(self, tuned: Artifact, exact: bool, *, turned: bool) -> tuple[dict[str, float], str]:
        """Lower quartiles of calls in a pair of processes; and what is wrong with the outputs."""
        specs = {UNTUNED: self.untuned.subject(), TUNED: tuned.subject()}
        calls: dict[str, list[int]] = {UNTUNED: [], TUNED: []}
        with ExitStack() as stack:
            folder = stack.enter_context(temporary_folder("tensmith-pair-", near=self._folder))
            own = {name: copied_spec(spec, Path(folder, name)) for name, spec in specs.items()}
            deadline = time.monotonic() + self._longest()
            engines = {
                name: stack.enter_context(EngineProcess(spec, deadline))
                for name, spec in own.items()
            }
            for engine in engines.values():
                engine.open()
            engines[UNTUNED].run(self._inputs)
            problem = self._difference(engines[TUNED].run(self._inputs), exact)
            if problem:
                return {}, problem
            order = [UNTUNED, TUNED, TUNED, UNTUNED]
            for visit, name in enumerate(order[::-1] if turned else order):
                calls[name] += engines[name].measure(
                    warmup=2 if visit < 2 else 1, iterations=2, duration=VISIT_SECONDS
                )
        return {name: _lower_quartile(own) * 1e-9 for name, own in calls.items()}, ""

    def _in_process(self, tuned: Artifact, timer: Timer, exact: bool) -> Paired:
        """By a timer that was given, in this process."""
        modules = {UNTUNED: self.untuned.load(), TUNED: tuned.load()}
        problem = self._difference(modules[TUNED](self._inputs), exact)
        if problem:
            return Paired(problem=problem)
        ratios: list[float] = []
        seconds: dict[str, list[float]] = {UNTUNED: [], TUNED: []}
        for _ in range(PAIRS):
            times = timer({name: lambda m=own: m(self._inputs) for name, own in modules.items()})  # type: ignore[misc]
            ratios.append(share_of(times, TUNED, UNTUNED))
            for name, own in times.items():
                seconds[name] += own
        return Paired(tuple(ratios), median(seconds[UNTUNED]), median(seconds[TUNED]))

    def _difference(self, given: Mapping[str, Array], exact: bool) -> str:
        """Why outputs are not what they should be; "" where they are."""
        wanted = self._outputs
        if exact:
            other = [name for name, array in wanted.items() if not _same_bits(array, given[name])]
            return f"other bits in the outputs {', '.join(other)}" if other else ""
        differences = compare_outputs(wanted, dict(given), self.untuned.tolerance())
        wrong = [f"{own.name}: {own.message}" for own in differences if not own.agrees]
        return f"outputs differ too much: {'; '.join(wrong)}" if wrong else ""


def copied_spec(spec: EngineSpec, folder: Path) -> EngineSpec:
    """The same engine for a copy of its file, and of the weights beside that, in a new folder."""
    folder.mkdir()
    weights = spec.path.with_name(f"{spec.path.name}.weights")
    for path in (spec.path, weights) if weights.exists() else (spec.path,):
        shutil.copy(path, folder)
    return replace(spec, path=folder / spec.path.name)


def _lower_quartile(values: list[int]) -> float:
    return quantiles(values, n=4, method="inclusive")[0]


def _same_bits(one: Array, other: Array) -> bool:
    return (
        one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    )
