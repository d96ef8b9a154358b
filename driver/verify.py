"""Does a compiled model compute what the model says? Random or given inputs, two processes.

The compiled model and what it is compared with each run in a process of their own: a crash is a
failed verification, not a crash of the compiler, and the time limit holds whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import BudgetError, RunError, TensmithError, VerificationError
from ..compiler.scratch import in_our_words
from .compare import Difference, Tolerance, compare_outputs
from .engines import CrashError, EngineSpec
from .processes import DeadlineError, EngineProcess
from .samples import Sampler
from .shapes import DimSpec

Array = np.ndarray[Any, Any]

TRIALS = 2  # one with normal, one with uniform floats; also two sizes of the symbolic dims

PASSED, FAILED, INCOMPLETE = "passed", "failed", "incomplete"


@dataclass(frozen=True)
class Verification:
    """What to verify and how.

    subject: the compiled model. model: the ONNX file. shapes: as it was imported with.
    against: "reference" (numpy evaluation of the imported, unoptimised graph, or what `precision`
    makes of it for `target`) or a peer.
    time_limit: seconds, everything included; None for no limit.
    """

    subject: EngineSpec
    model: Path
    shapes: Mapping[str, tuple[DimSpec, ...]] = field(default_factory=dict)
    against: str = "reference"
    precision: str = "fp32"
    target: str = "native"
    tolerance: Tolerance = field(default_factory=Tolerance)
    time_limit: float | None = None
    seed: int = 0
    progress: Callable[[str], None] | None = None

    def truth(self, kind: str, *, plain: bool = False) -> EngineSpec:
        """An engine that the compiled model is compared with."""
        return EngineSpec(
            kind,
            self.model,
            self.subject.threads,
            self.shapes,
            plain=plain,
            precision=self.precision,
            target=self.target,
        )

    def note(self, text: str) -> None:
        """Tell the user what happens now."""
        if self.progress:
            self.progress(text)


@dataclass
class VerifyReport:
    """The answer. status: "passed", "failed" or "incomplete" (which is never a success).

    trials: differences of every comparison made. reason: why it failed or is incomplete.
    unusable: inputs that the other side refused, and why. refusals: inputs that it took and the
    compiled model refused (sizes of symbolic dims that do not fit together, as a rule). draws:
    sizes and seed of the random inputs compared, those that fail last. opinion: what another engine
    says of the same inputs, where one was asked (`second_opinion.py`). precision_error: against the
    model in fp32, which nothing judges.
    """

    status: str
    against: str
    reason: str = ""
    trials: list[list[Difference]] = field(default_factory=list)
    seconds: float = 0.0
    unusable: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    draws: list[tuple[Mapping[str, int], int]] = field(default_factory=list)
    opinion: VerifyReport | None = None
    precision_error: VerifyReport | None = None

    @property
    def disputed(self) -> bool:
        """Whether it agrees with the reference and not with another engine."""
        return self.status == PASSED and bool(self.opinion and self.opinion.status == FAILED)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference seen."""
        return max((d.max_abs for trial in self.trials for d in trial), default=0.0)

    @property
    def max_share(self) -> float:
        """The largest difference seen, as a share of the largest element of its output."""
        trials = (d for trial in self.trials for d in trial if d.peak)
        return max((d.max_abs / d.peak for d in trials), default=0.0)

    def summary(self) -> str:
        """One line for people."""
        count = len(self.trials)
        done = f"{count} input set{'s' * (count != 1)}"
        if self.disputed and self.opinion:
            return (
                f"DISPUTED: agrees with the {self.against}, but {self.opinion.against} says "
                f"otherwise: {self.opinion.reason}"
            )
        if self.status == PASSED:
            sides = self.against
            if self.opinion and self.opinion.status == PASSED:
                sides += f" and {self.opinion.against}"
            text = f"verified against {sides}: {done}, max |a-b| {self.max_abs:.3g}"
            if self.precision_error:
                text += f"; up to {self.precision_error.max_share:.2%} of the peak away from fp32"
            return text
        if self.status == FAILED:
            return f"verification against {self.against} FAILED: {self.reason}"
        agreed = f"; {done} agreed" if count else ""
        return f"NOT VERIFIED: {self.reason}{agreed}"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "status": self.status,
            "against": self.against,
            "reason": self.reason,
            "max_abs": self.max_abs,
            "seconds": self.seconds,
            "refusals": self.refusals,
            "trials": [[asdict(difference) for difference in trial] for trial in self.trials],
            "opinion": self.opinion.to_json() if self.opinion else None,
            "precision_error": self.precision_error.to_json() if self.precision_error else None,
        }

    def error(self) -> TensmithError | None:
        """VerificationError when it failed or is disputed, BudgetError when it is incomplete."""
        if self.status == FAILED:
            return VerificationError(
                f"the compiled model disagrees with {self.against}", why=self.reason
            )
        if self.status == INCOMPLETE:
            return BudgetError("the verification was not completed", why=self.reason)
        if self.disputed and self.opinion:
            other = self.opinion.against
            return VerificationError(
                f"the compiled model agrees with the {self.against}, but not with {other}",
                why=f"{self.opinion.reason}; one of the two reads the standard differently",
                remedy="find out which is right for the model (`tensmith reduce` makes it small); "
                "TENSMITH_SECOND_OPINION=off asks nobody else",
            )
        return None

    def raise_if_failed(self) -> None:
        """Raise VerificationError for a report of status "failed"."""
        error = self.error()
        if self.status == FAILED and error is not None:
            raise error


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
            _compare(job, report, actual, outputs, "")

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
        yield _Sides(job, report, truth, ours, screen)


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
    """Loaded engines. screen: runs first, and only inputs that it takes count."""

    job: Verification
    report: VerifyReport
    truth: EngineProcess
    ours: EngineProcess
    screen: EngineProcess | None

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
        _compare(self.job, self.report, actual, expected, at)
        return True


def _compare(
    job: Verification,
    report: VerifyReport,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    at: str,
) -> None:
    differences = compare_outputs(actual, expected, job.tolerance.of(job.against, job.precision))
    report.trials.append(differences)
    wrong = [f"output '{d.name}': {d.message}{at}" for d in differences if not d.agrees]
    if wrong:
        raise _Outcome(FAILED, "; ".join(wrong))
