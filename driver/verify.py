"""Does a compiled model compute what the model says? Random or given inputs, two processes.

The compiled model and what it is compared with each run in a process of their own: a crash is a
failed verification, not a crash of the compiler, and the time limit holds whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import RunError
from ..compiler.scratch import in_our_words
from .compare import Tolerance, compare_outputs
from .engines import CrashError, EngineSpec
from .processes import DeadlineError, EngineProcess
from .roundings import RUNS, RoundingSpread, spreads, within_roundings
from .samples import Sampler
from .shapes import DimSpec
from .verify_report import FAILED, INCOMPLETE, PASSED, VerifyReport

Array = np.ndarray[Any, Any]

TRIALS = 2  # one with normal, one with uniform floats; also two sizes of the symbolic dims


@dataclass(frozen=True)
class Verification:
    """What to verify and how.

    subject: the compiled model. model: the ONNX file. shapes: as it was imported with.
    against: "reference" (numpy evaluation of the imported, unoptimised graph, or what `precision`
    makes of it for `target`) or a peer. ranges: as in `EngineSpec`.
    time_limit: seconds, everything included; None for no limit. spreads: how far roundings move
    outputs, where that was measured, by the number of the trial.
    """

    subject: EngineSpec
    model: Path
    shapes: Mapping[str, tuple[DimSpec, ...]] = field(default_factory=dict)
    against: str = "reference"
    precision: str = "fp32"
    target: str = "native"
    ranges: tuple[tuple[float, float], ...] = ()
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tolerance: Tolerance = field(default_factory=Tolerance)
    time_limit: float | None = None
    seed: int = 0
    progress: Callable[[str], None] | None = None
    spreads: Mapping[int, Mapping[str, RoundingSpread]] = field(default_factory=dict)

    def truth(self, kind: str, *, plain: bool = False, nudged: bool = False) -> EngineSpec:
        """An engine that the compiled model is compared with."""
        return EngineSpec(
            kind,
            self.model,
            self.subject.threads,
            self.shapes,
            plain=plain,
            precision=self.precision,
            target=self.target,
            nudged=nudged,
            ranges=self.ranges,
            choices=self.choices,
        )

    def note(self, text: str) -> None:
        """Tell the user what happens now."""
        if self.progress:
            self.progress(text)


class _Outcome(Exception):
    """Ends a verification early with a status and a reason."""

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


def verify_random(job: Verification, sampler: Sampler) -> VerifyReport:
    """Compare on `TRIALS` sets of random inputs drawn by the sampler of the imported graph.

    Sizes of symbolic dims are such that the reference takes them; a peer may compute something
    where the ONNX standard gives no result (a pooling window that does not fit).
    """

    def steps(report: VerifyReport, deadline: float | None) -> None:
        screened = job.against != "reference" and bool(sampler.symbols)
        with _sides(job, report, deadline, screened=screened) as sides:
            sides.trials(sampler)

    return _run(job, steps)


def verify_draws(
    job: Verification, sampler: Sampler, draws: Sequence[tuple[Mapping[str, int], int]]
) -> VerifyReport:
    """Compare on random inputs of the given sizes and seeds."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with _sides(job, report, deadline) as sides:
            for sizes, seed in draws:
                sides.trial(sampler.draw(sizes, seed), sizes)
            if not report.trials:
                raise _Outcome(INCOMPLETE, (report.unusable + report.refusals)[-1])

    return _run(job, steps)


def verify_given(job: Verification, inputs: Mapping[str, Array]) -> VerifyReport:
    """Compare on inputs that the caller gives."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with _sides(job, report, deadline) as sides:
            if not sides.trial(inputs, {}):
                status = FAILED if report.refusals else INCOMPLETE
                raise _Outcome(status, (report.refusals + report.unusable)[-1])

    return _run(job, steps)


def verify_stored(
    job: Verification, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> VerifyReport:
    """Compare with outputs that the caller knows to be right."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with EngineProcess(job.subject, deadline) as ours:
            _open_ours(job, ours)
            job.note("running the compiled model")
            try:
                actual = ours.run(dict(inputs))
            except RunError as error:
                raise _Outcome(FAILED, f"the compiled model does not run: {error.what}") from None
            _compare(job, report, actual, outputs, "", dict)

    return _run(job, steps)


def _run(job: Verification, steps: Callable[[VerifyReport, float | None], None]) -> VerifyReport:
    start = time.monotonic()
    report = VerifyReport(PASSED, job.against)
    try:
        steps(report, None if job.time_limit is None else start + job.time_limit)
    except DeadlineError:
        report.status = INCOMPLETE
        report.reason = f"the time limit of {job.time_limit:g} s passed"
    except _Outcome as outcome:
        report.status, report.reason = outcome.status, outcome.reason
    if report.status == PASSED and not any(d.informative for t in report.trials for d in t):
        report.status = INCOMPLETE
        report.reason = "no output had a finite element, so nothing was compared"
    report.seconds = time.monotonic() - start
    return report


@contextmanager
def _sides(
    job: Verification, report: VerifyReport, deadline: float | None, *, screened: bool = False
) -> Iterator[_Sides]:
    """Both sides, loaded, and the reference too when it is to screen the inputs."""
    with ExitStack() as stack:

        def start(spec: EngineSpec) -> EngineProcess:
            return stack.enter_context(EngineProcess(spec, deadline))

        truth = start(job.truth(job.against, plain=True))
        ours = start(job.subject)
        screen = start(job.truth("reference")) if screened else None
        for engine in filter(None, (truth, screen)):
            kind = engine.spec.kind
            job.note(f"loading {kind}")
            try:
                engine.open()
            except RunError as error:
                raise _Outcome(
                    INCOMPLETE, f"{kind} cannot load the model: {in_our_words(str(error))}"
                ) from None
        _open_ours(job, ours)
        yield _Sides(job, report, truth, ours, screen, start)


def _open_ours(job: Verification, ours: EngineProcess) -> None:
    job.note("loading the compiled model")
    try:
        ours.open()
    except CrashError as error:
        raise _Outcome(FAILED, f"the compiled model does not load: {error}") from None
    except RunError as error:
        raise _Outcome(INCOMPLETE, f"the compiled model does not load here: {error}") from None


@dataclass(frozen=True)
class _Sides:
    """Loaded engines. screen: runs first, and only inputs that it takes count. start: a further
    engine, which ends with these."""

    job: Verification
    report: VerifyReport
    truth: EngineProcess
    ours: EngineProcess
    screen: EngineProcess | None
    start: Callable[[EngineSpec], EngineProcess]

    def trials(self, sampler: Sampler) -> None:
        """Look for sizes that both sides accept, compare there, then once more: at the next
        sizes, or at the same ones where those are refused."""
        accepted: dict[str, int] | None = None
        first = self.job.seed
        candidates = sampler.candidate_sizes()
        for sizes in candidates:
            if self.drawn(sampler, sizes, first):
                accepted = sizes
                break
            if not sizes:
                break
        if accepted is None:
            self._refused(sampler)
            return
        for seed in range(first + 1, first + TRIALS):
            sizes = next(candidates, accepted)
            if not self.drawn(sampler, sizes, seed):
                self.drawn(sampler, accepted, seed)

    def drawn(self, sampler: Sampler, sizes: Mapping[str, int], seed: int) -> bool:
        """Compare on random inputs; False when either side refuses them."""
        try:
            accepted = self.trial(sampler.draw(sizes, seed), sizes)
        except _Outcome:
            self.report.draws.append((sizes, seed))
            raise
        if accepted:
            self.report.draws.append((sizes, seed))
        return accepted

    def _refused(self, sampler: Sampler) -> None:
        """No inputs were accepted by both. Where the truth ran, the fault is the model's."""
        if self.report.refusals:
            reason = f"the compiled model does not run: {self.report.refusals[-1]}"
            raise _Outcome(FAILED, reason)
        remedy = "; give --inputs, or sizes with --shape" if sampler.symbols else ""
        reason = f"{self.job.against} refused all random inputs: {self.report.unusable[-1]}"
        raise _Outcome(INCOMPLETE, reason + remedy)

    def trial(self, inputs: Mapping[str, Array], sizes: Mapping[str, int]) -> bool:
        """Compare on one set of inputs; False when either side refuses them."""
        at = " at " + ", ".join(f"{name}={size}" for name, size in sizes.items()) if sizes else ""
        expected: Mapping[str, Array] = {}
        for engine in filter(None, (self.screen, self.truth)):
            kind = engine.spec.kind
            self.job.note(f"running {kind}")
            try:
                expected = engine.run(dict(inputs))
            except CrashError as error:
                raise _Outcome(INCOMPLETE, f"{kind} crashed{at}: {error.what}") from None
            except RunError as error:
                self.report.unusable.append(f"{error.what}{at}")
                return False
        self.job.note("running the compiled model")
        try:
            actual = self.ours.run(dict(inputs))
        except CrashError as error:
            raise _Outcome(FAILED, f"the compiled model crashes{at}: {error.what}") from None
        except RunError as error:
            self.report.refusals.append(f"{error.what}{at}")
            return False
        _compare(self.job, self.report, actual, expected, at, lambda: self._spreads(inputs))
        return True

    def _spreads(self, inputs: Mapping[str, Array]) -> Mapping[str, RoundingSpread]:
        """How far roundings move the outputs; nothing where none are to integers."""
        number = len(self.report.trials)
        if number in self.job.spreads:
            return self.job.spreads[number]
        tolerance = self.job.tolerance.of(self.job.against, self.job.precision)
        if not tolerance.quantised and tolerance.rounded is None:
            return {}
        self.job.note("measuring how far roundings move the results")
        engine = self.start(self.job.truth("reference", nudged=True))
        engine.open()
        found = spreads(engine.run(dict(inputs)) for _ in range(RUNS))
        self.report.spreads[number] = found
        return found


def _compare(
    job: Verification,
    report: VerifyReport,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    at: str,
    spreads_of: Callable[[], Mapping[str, RoundingSpread]],
) -> None:
    """Note the differences. spreads_of: how far roundings move outputs, asked for where they are
    not within the tolerance. Raises _Outcome where an output is wrong."""
    differences = compare_outputs(actual, expected, job.tolerance.of(job.against, job.precision))
    if not all(d.agrees for d in differences):
        differences = within_roundings(differences, actual, expected, spreads_of())
    report.trials.append(differences)
    wrong = [f"output '{d.name}': {d.message}{at}" for d in differences if not d.agrees]
    if wrong:
        raise _Outcome(FAILED, "; ".join(wrong))
