"""`tensmith verify`: does the compiled model compute what the ONNX model says?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import (
    Atol,
    Calibration,
    Json,
    OptLevel,
    Precision,
    Rtol,
    Runnable,
    Shapes,
    Target,
    Threads,
    Verbose,
    VerifyTime,
    requested,
)

if TYPE_CHECKING:
    from ..console import Console
    from ..verify import Verification, VerifyReport


Library = Annotated[
    Path | None,
    typer.Option("--library", help="Check this shared library instead of compiling MODEL."),
]
InputFile = Annotated[
    Path | None, typer.Option("--inputs", help="A .npz with the inputs (default: random).")
]
OutputFile = Annotated[
    Path | None, typer.Option("--outputs", help="A .npz with the right outputs.")
]
Against = Annotated[
    str, typer.Option("--against", help="reference, onnx, onnxruntime or openvino.")
]


def command(
    model: Runnable,
    library: Library = None,
    inputs: InputFile = None,
    outputs: OutputFile = None,
    against: Against = "reference",
    target: Target = "native",
    precision: Precision = "fp32",
    calibration: Calibration = None,
    opt_level: OptLevel = 2,
    threads: Threads = 1,
    shape: Shapes = None,
    verify_time: VerifyTime = None,
    rtol: Rtol = None,
    atol: Atol = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a compiled model with the reference, a peer, or stored outputs."""
    from ...compiler.knobs import VERIFY_TIME
    from .. import api
    from ..compare import Tolerance
    from ..console import Console
    from ..engines import EngineSpec
    from ..request import reference_precision
    from ..verify import Verification

    console = Console(json=json, verbose=verbose)
    given = _library(model, library, inputs, outputs, against)
    _check_known(precision, given, outputs)
    request = requested(
        shape,
        target=target,
        precision=precision,
        calibration=calibration,
        opt_level=opt_level,
        threads=threads,
        force_precision=True,
    )
    with console.progress("compiling") as progress:
        artifact = None  # named, so that it and its files live until the end
        if given is not None:
            subject = EngineSpec("tensmith", given, threads)
        else:
            artifact = api.compile_request(model, replace(request, progress=progress))
            subject = artifact.subject()
        job = Verification(
            subject=subject,
            model=artifact.compiled if artifact else model,
            shapes=request.shapes,
            against="stored outputs" if outputs else against,
            precision=reference_precision(precision),
            target=target,
            tolerance=Tolerance(rtol, atol),
            time_limit=float(VERIFY_TIME.value) if verify_time is None else verify_time,
            progress=progress,
        )
        report = _verify(job, inputs, outputs)
    _show(console, report)


def _library(
    model: Path, library: Path | None, inputs: Path | None, outputs: Path | None, against: str
) -> Path | None:
    """The compiled library that the user names, if any. Raises UsageError for options that do not
    go together."""
    from ...compiler.errors import UsageError
    from ..argument_checks import check_choice, check_file
    from ..engines import PEERS
    from ..session import is_compiled

    check_choice("--against", against, ("reference", "onnx", *PEERS))
    if outputs is not None and inputs is None:
        raise UsageError("--outputs needs --inputs: what are they the outputs of?")
    if is_compiled(model):
        if outputs is None:
            raise UsageError(
                f"'{model}' is a compiled model: what should it agree with?",
                remedy="give the ONNX file and --library, or --inputs and --outputs",
            )
        return model
    return check_file(library, "library") if library else None


def _check_known(precision: str, library: Path | None, outputs: Path | None) -> None:
    """Raise UsageError for a library whose reference only its compilation could make."""
    from ...compiler.errors import UsageError
    from ..request import INT8

    if precision == INT8 and library is not None and outputs is None:
        raise UsageError(
            "what a model is in int8 is decided when it is compiled",
            remedy="`tensmith quantize` writes it: verify that file and its library in fp32",
        )


def _show(console: Console, report: VerifyReport) -> None:
    """Print the report; ends the program with the code of its error, if it has one."""
    console.result(report.to_json())
    console.table(
        "Outputs",
        ("output", "shape", "max |a-b|", "atol", "rtol", "agrees"),
        [
            (
                d.name,
                list(d.shape),
                f"{d.max_abs:.3g}",
                f"{d.atol:.3g}",
                f"{d.rtol:.3g}",
                "yes" if d.agrees else "NO",
            )
            for trial in report.trials
            for d in trial
        ],
        left=2,
    )
    console.print(report.summary())
    error = report.error()
    if error is not None:
        console.exit(error)


def _verify(job: Verification, inputs: Path | None, outputs: Path | None) -> VerifyReport:
    from ..building import import_model
    from ..samples import Sampler
    from ..second_opinion import add_opinions
    from ..tensor_files import read_file
    from ..verify import verify_given, verify_random, verify_stored

    if inputs is not None and outputs is not None:
        return verify_stored(job, read_file(inputs), read_file(outputs))
    sampler = Sampler(import_model(job.model, job.shapes))
    job = replace(job, tolerance=replace(job.tolerance, quantised=sampler.quantised))
    if inputs is not None:
        return verify_given(job, read_file(inputs))
    report = verify_random(job, sampler)
    if job.against == "reference":
        return add_opinions(job, report, sampler)
    return report
