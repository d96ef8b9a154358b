"""Who checks the reference? An engine that shares nothing with it, where one is installed.

The reference evaluates the graph that our own importer made: what the importer gets wrong, both
sides of a verification get wrong. ONNX Runtime, or the evaluator of the onnx package where that
cannot take the model, computes the same inputs again. A difference is reported; which of the two is
right is for people to say.
"""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.util import find_spec

from ..compiler.errors import UsageError
from ..compiler.knobs import SECOND_OPINION
from .compare import Tolerance
from .samples import Sampler
from .verify import Verification, verify_draws
from .verify_report import INCOMPLETE, PASSED, VerifyReport

ENGINES = ("onnxruntime", "onnx")
_ANY = Tolerance(0.0, 1e30)  # of what is reported, and not judged
_MOST_BYTES = 1 << 29  # of a binary: engines hold weights twice, in an order of their own as well
_TOO_LARGE = "the model is large, and the engine would hold its weights in memory twice"
_LEAST_SECONDS = 1.0  # less than this is not worth starting for


def engines_to_ask() -> tuple[str, ...]:
    """The engines to ask, in order, by the knob. Raises UsageError for one that does not exist."""
    wanted = str(SECOND_OPINION.value)
    if wanted == "auto":
        return tuple(name for name in ENGINES if find_spec(name))
    if wanted not in (*ENGINES, "off"):
        raise UsageError(
            f"{SECOND_OPINION.variable}={wanted!r} is no engine",
            remedy=f"choose from auto, {', '.join(ENGINES)}, off",
        )
    return () if wanted == "off" else (wanted,)


def add_opinions(job: Verification, report: VerifyReport, sampler: Sampler) -> VerifyReport:
    """The report of a verification against the reference, with all that is to be said beside it."""
    report.opinion = second_opinion(job, report, sampler)
    report.precision_error = error_of_precision(job, report, sampler)
    return report


def second_opinion(
    job: Verification, report: VerifyReport, sampler: Sampler
) -> VerifyReport | None:
    """What another engine says of the inputs on which model and reference agreed.

    None where nobody is asked: the comparison did not pass, no time is left, the knob says so, the
    model was compiled in a lower precision, or it draws random numbers. A report of status
    "incomplete" says why it has no opinion.
    """
    from ..frontends.onnx.evaluator import incomparable

    asked = report.status == PASSED and job.precision == "fp32"
    engines = engines_to_ask() if asked else ()
    large = job.subject.path.stat().st_size > _MOST_BYTES
    if engines and large and SECOND_OPINION.value == "auto":
        return VerifyReport(INCOMPLETE, engines[0], _TOO_LARGE)
    start, opinion = time.monotonic(), None
    for engine in engines:
        left = None
        if job.time_limit is not None:
            left = job.time_limit - report.seconds - (time.monotonic() - start)
            if left < _LEAST_SECONDS:
                break
        reason = incomparable(job.model, engine)
        if reason:
            opinion = VerifyReport(INCOMPLETE, engine, reason)
            continue
        job.note(f"asking {engine}")
        asked_for = replace(job, against=engine, time_limit=left, spreads=report.spreads)
        opinion = verify_draws(asked_for, sampler, report.draws)
        if opinion.status != INCOMPLETE:
            break
    return opinion


def error_of_precision(
    job: Verification, report: VerifyReport, sampler: Sampler
) -> VerifyReport | None:
    """How far the compiled model is from the one in fp32, on inputs on which it was verified.

    None where it is in fp32, or was not verified.
    """
    if job.precision == "fp32" or report.status != PASSED:
        return None
    job.note("comparing with fp32")
    wide = replace(job, precision="fp32", ranges=(), against="reference", tolerance=_ANY)
    return replace(verify_draws(wide, sampler, report.draws), status=PASSED, reason="")
