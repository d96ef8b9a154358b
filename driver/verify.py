"""Does a compiled model compute what the model says? Random or given inputs, two processes.

The compiled model and what it is compared with each run in a process of their own: a crash is a
failed verification, not a crash of the compiler, and the time limit holds whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import BudgetError, RunError, TensmithError, VerificationError
from .compare import Difference, Tolerance, compare_outputs
from .engines import EngineSpec
from .processes import CrashError, DeadlineError, EngineProcess
from .samples import Sampler
from .shapes import DimSpec

Array = np.ndarray[Any, Any]

TRIALS = 2  # one with normal, one with uniform floats; also two sizes of the symbolic dims

PASSED, FAILED, INCOMPLETE = "passed", "failed", "incomplete"


@dataclass(frozen=True)
class Verification:
    """What to verify and how.

    library: the compiled model (.so). model: the ONNX file. shapes: as it was imported with.
    against: "reference" (numpy evaluation of the imported, unoptimised graph) or a peer.
    time_limit: seconds, everything included; None for no limit.
    """

    library: Path
    model: Path
    shapes: Mapping[str, tuple[DimSpec, ...]] = field(default_factory=dict)
    against: str = "reference"
    threads: int = 1
    tolerance: Tolerance = field(default_factory=Tolerance)
    time_limit: float | None = None
    seed: int = 0
    progress: Callable[[str], None] | None = None

    def note(self, text: str) -> None:
        """Tell the user what happens now."""
        if self.progress:
            self.progress(text)


@dataclass
class VerifyReport:
    """The answer. status: "passed", "failed" or "incomplete" (which is never a success).

    trials: differences of every comparison made. reason: why it failed or is incomplete.
    unusable: inputs that the other side refused, and why. refusals: inputs that it took and the
    compiled model refused (sizes of symbolic dims that do not fit together, as a rule).
    """

    status: str
    against: str
    reason: str = ""
    trials: list[list[Difference]] = field(default_factory=list)
    seconds: float = 0.0
    unusable: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference seen."""
        return max((d.max_abs for trial in self.trials for d in trial), default=0.0)

    def summary(self) -> str:
        """One line for people."""
        count = len(self.trials)
        done = f"{count} input set{'s' * (count != 1)}"
        if self.status == PASSED:
            return f"verified against {self.against}: {done}, max |a-b| {self.max_abs:.3g}"
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
        }

    def error(self) -> TensmithError | None:
        """VerificationError when it failed, BudgetError when it was not completed."""
        if self.status == FAILED:
            return VerificationError(
                f"the compiled model disagrees with {self.against}", why=self.reason
            )
        if self.status == INCOMPLETE:
            return BudgetError("the verification was not completed", why=self.reason)
        return None

    def raise_if_failed(self) -> None:
        """Raise VerificationError for a report of status "failed"."""
        error = self.error()
        if isinstance(error, VerificationError):
            raise error


class _Outcome(Exception):
    """Ends a verification early with a status and a reason."""

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


def verify_random(job: Verification, sampler: Sampler) -> VerifyReport:
    """Compare on `TRIALS` sets of random inputs drawn by the sampler of the imported graph."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with _both(job, deadline) as (truth, ours):
            _trials(job, sampler, report, truth, ours)

    return _run(job, steps)


def verify_given(job: Verification, inputs: Mapping[str, Array]) -> VerifyReport:
    """Compare on inputs that the caller gives."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with _both(job, deadline) as (truth, ours):
            if not _trial(job, inputs, {}, report, truth, ours):
                status = FAILED if report.refusals else INCOMPLETE
                raise _Outcome(status, (report.refusals + report.unusable)[-1])

    return _run(job, steps)


def verify_stored(
    job: Verification, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> VerifyReport:
    """Compare with outputs that the caller knows to be right."""

    def steps(report: VerifyReport, deadline: float | None) -> None:
        with EngineProcess(EngineSpec("tensmith", job.library, job.threads), deadline) as ours:
            _open(job, None, ours)
            job.note("running the compiled model")
            try:
                actual = ours.run(dict(inputs))
            except RunError as error:
                raise _Outcome(FAILED, f"the compiled model does not run: {error.what}") from None
            _compare(job, report, actual, outputs)

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
def _both(
    job: Verification, deadline: float | None
) -> Iterator[tuple[EngineProcess, EngineProcess]]:
    """The two sides, loaded."""
    truth_spec = EngineSpec(job.against, job.model, job.threads, job.shapes)
    with (
        EngineProcess(truth_spec, deadline) as truth,
        EngineProcess(EngineSpec("tensmith", job.library, job.threads), deadline) as ours,
    ):
        _open(job, truth, ours)
        yield truth, ours


def _open(job: Verification, truth: EngineProcess | None, ours: EngineProcess) -> None:
    if truth is not None:
        job.note(f"loading {job.against}")
        try:
            truth.open()
        except RunError as error:
            raise _Outcome(INCOMPLETE, f"{job.against} cannot load the model: {error}") from None
    job.note("loading the compiled model")
    try:
        ours.open()
    except CrashError as error:
        raise _Outcome(FAILED, f"the compiled model does not load: {error}") from None
    except RunError as error:
        raise _Outcome(INCOMPLETE, f"the compiled model does not load here: {error}") from None


def _trials(
    job: Verification,
    sampler: Sampler,
    report: VerifyReport,
    truth: EngineProcess,
    ours: EngineProcess,
) -> None:
    """Look for sizes that both sides accept, compare there, then once more: at the next sizes, or
    at the same ones where those are refused."""
    accepted: dict[str, int] | None = None
    candidates = sampler.candidate_sizes()
    for sizes in candidates:
        if _trial(job, sampler.draw(sizes, job.seed), sizes, report, truth, ours):
            accepted = sizes
            break
        if not sizes:
            break
    if accepted is None:
        _refused(job, sampler, report)
        return
    for seed in range(job.seed + 1, job.seed + TRIALS):
        sizes = next(candidates, accepted)
        if not _trial(job, sampler.draw(sizes, seed), sizes, report, truth, ours):
            _trial(job, sampler.draw(accepted, seed), accepted, report, truth, ours)


def _refused(job: Verification, sampler: Sampler, report: VerifyReport) -> None:
    """No inputs were accepted by both. Where the reference ran, the fault is the model's."""
    if report.refusals:
        raise _Outcome(FAILED, f"the compiled model does not run: {report.refusals[-1]}")
    remedy = "; give --inputs, or sizes with --shape" if sampler.symbols else ""
    why = f"{job.against} refused all random inputs: {report.unusable[-1]}"
    raise _Outcome(INCOMPLETE, why + remedy)


def _trial(
    job: Verification,
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int],
    report: VerifyReport,
    truth: EngineProcess,
    ours: EngineProcess,
) -> bool:
    """Compare on one set of inputs; False when either side refuses them."""
    at = " at " + ", ".join(f"{name}={size}" for name, size in sizes.items()) if sizes else ""
    job.note(f"running {job.against}")
    try:
        expected = truth.run(dict(inputs))
    except CrashError as error:
        raise _Outcome(INCOMPLETE, f"{job.against} crashed{at}: {error.what}") from None
    except RunError as error:
        report.unusable.append(f"{error.what}{at}")
        return False
    job.note("running the compiled model")
    try:
        actual = ours.run(dict(inputs))
    except CrashError as error:
        raise _Outcome(FAILED, f"the compiled model crashes{at}: {error.what}") from None
    except RunError as error:
        report.refusals.append(f"{error.what}{at}")
        return False
    _compare(job, report, actual, expected)
    return True


def _compare(
    job: Verification,
    report: VerifyReport,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
) -> None:
    differences = compare_outputs(actual, expected, job.tolerance)
    report.trials.append(differences)
    wrong = [f"output '{d.name}': {d.message}" for d in differences if not d.agrees]
    if wrong:
        raise _Outcome(FAILED, "; ".join(wrong))
