"""`tensmith verify`: does the compiled model compute what the ONNX model says?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import (
    NPU,
    USUAL,
    Atol,
    Calibration,
    Json,
    Precision,
    Rtol,
    Runnable,
    Verbose,
    VerifyTime,
    with_compilation,
)

if TYPE_CHECKING:
    from ..artifacts import Artifact
    from ..console import Console
    from ..layer_checks import LayerChecks
    from ..request import CompileRequest
    from ..verify import Verification
    from ..verify_report import VerifyReport


Library = Annotated[
    Path | None,
    typer.Option("--library", help="Check this shared library instead of compiling MODEL."),
]
InputFile = Annotated[
    Path | None,
    typer.Option("--inputs", help="The inputs: .npz, or .npy for a single one (default: random)."),
]
OutputFile = Annotated[
    Path | None, typer.Option("--outputs", help="A .npz with the right outputs.")
]
Against = Annotated[
    str, typer.Option("--against", help="reference, onnx, onnxruntime or openvino.")
]

Layers = Annotated[
    bool,
    typer.Option(
        "--layers",
        help="Compare layer by layer, too: name the first that diverges and, with --precision "
        "int8, where the error of quantising enters.",
    ),
]


@with_compilation(*USUAL, *NPU)
def command(
    model: Runnable,
    library: Library = None,
    inputs: InputFile = None,
    outputs: OutputFile = None,
    against: Against = "reference",
    precision: Precision = "fp32",
    calibration: Calibration = None,
    *,
    request: CompileRequest,
    layers: Layers = False,
    verify_time: VerifyTime = None,
    rtol: Rtol = None,
    atol: Atol = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a compiled model with the reference, a peer, or stored outputs."""
    from .. import api
    from ..console import Console
    from ..engines import EngineSpec
    from ..request import reference_precision
    from ..verify import Verification

    console = Console(json=json, verbose=verbose)
    given = _library(model, library, inputs, outputs, against)
    _check_known(precision, given, outputs, layers=layers, against=against)
    request = replace(request, precision=precision, calibration=calibration, force_precision=True)
    with console.progress("compiling") as progress:
        artifact = None  # named, so that it and its files live until the end
        if given is not None:
            _refuse_without_effect(request, stored=outputs is not None)
            subject = EngineSpec("tensmith", given, request.threads)
        else:
            artifact = api.compile_request(model, replace(request, progress=progress))
            subject = artifact.subject()
        job = Verification(
            subject=subject,
            model=artifact.compiled if artifact else model,
            shapes=request.shapes,
            against="stored outputs" if outputs else against,
            precision=artifact.reference if artifact else reference_precision(precision),
            target=request.target,
            ranges=artifact.ranges if artifact else (),
            progress=progress,
            **_limits(rtol, atol, verify_time),
        )
        report = _verify(job, inputs, outputs)
        found = (
            _layers(job, model, artifact, request, report, inputs) if layers and artifact else None
        )
    _show(console, report, found)


def _limits(rtol: float | None, atol: float | None, seconds: float | None) -> dict[str, Any]:
    """What differences, and how much time, a verification is given."""
    from ...compiler.knobs import VERIFY_TIME
    from ..compare import Tolerance

    limit = float(VERIFY_TIME.value) if seconds is None else seconds
    return {"tolerance": Tolerance(rtol, atol), "time_limit": limit}


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


def _refuse_without_effect(request: CompileRequest, *, stored: bool) -> None:
    """Raise UsageError for options that neither a compiled library follows nor what it is compared
    with: `stored` outputs, of whose precision the tolerance is, or those of a reference."""
    from ..session import refuse_for_library

    followed = ("precision",) if stored else ("precision", "target", "shapes")
    refuse_for_library(request, *followed, "threads")


def _check_known(
    precision: str, library: Path | None, outputs: Path | None, *, layers: bool, against: str
) -> None:
    """Raise UsageError for no single precision, for a library whose reference only its compilation
    could make, and where layers are to be compared and cannot be."""
    from ...compiler.errors import UsageError
    from ..request import AUTO, INT8, WEIGHT_BITS

    if precision == AUTO:
        raise UsageError(
            "which precision auto is depends on data and times",
            remedy="name a precision, or compile with --precision auto, which verifies the binary",
        )
    if layers and library is not None:
        raise UsageError(
            "a compiled library does not hand out what lies between its layers",
            remedy="leave --library out: --layers compiles the model itself",
        )
    if layers and against != "reference":
        raise UsageError(f"layers are compared with the reference, not with {against}")
    if precision in (INT8, *WEIGHT_BITS) and library is not None and outputs is None:
        raise UsageError(
            f"what a model is in {precision} is decided when it is compiled",
            remedy="`tensmith quantize` writes it: verify that file and its library in fp32",
        )


def _layers(
    job: Verification,
    model: Path,
    artifact: Artifact,
    request: CompileRequest,
    report: VerifyReport,
    inputs: Path | None,
) -> LayerChecks:
    from ...compiler.scratch import temporary_folder
    from ..layer_checks import check_layers
    from ..tensor_files import read_file

    with temporary_folder("tensmith-samples-") as folder:
        return check_layers(
            model,
            artifact,
            request,
            read_file(inputs) if inputs else None,
            draws=report.draws,
            tolerance=job.tolerance,
            time_limit=job.time_limit,
            folder=Path(folder),
        )


def _show_layers(console: Console, found: LayerChecks) -> None:
    console.table(
        "Layers",
        ("operators", "tensor", "shape", "by its operators", "of the model", "dB", "agrees"),
        [
            (
                ", ".join(layer.nodes),
                layer.tensor,
                list(layer.shape),
                "" if layer.kernel is None else f"{layer.kernel.max_abs:.3g}",
                "" if layer.model is None else f"{layer.model.max_abs:.3g}",
                "" if layer.decibels is None else f"{layer.decibels:.0f}",
                "NO" if layer.fault else "yes" if layer.kernel or layer.model else layer.note,
            )
            for layer in found.code.layers
        ],
        left=3,
    )
    if found.noise:
        console.table(
            "Quantisation error, dB below the tensor",
            ("operator", "tensor", "its own", "in all"),
            [(n.node, n.tensor, f"{n.own:.1f}", f"{n.total:.1f}") for n in found.noise.layers],
            left=2,
        )
    for text in found.code.missing:
        console.print(f"not compared: {text}")
    for line in found.summary():
        console.print(line)


def _show(console: Console, report: VerifyReport, layers: LayerChecks | None) -> None:
    """Print the report; ends the program with the code of its error, if it has one."""
    console.result(report.to_json() | ({"layers": layers.to_json()} if layers else {}))
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
    if layers:
        _show_layers(console, layers)
    console.print(report.summary())
    error = (layers and layers.error()) or report.error()
    if error is not None:
        console.exit(error)


def _verify(job: Verification, inputs: Path | None, outputs: Path | None) -> VerifyReport:
    from ..model_build import import_model
    from ..samples import Sampler
    from ..second_opinion import add_opinions
    from ..tensor_files import as_types, read_file, read_inputs
    from ..verify import verify_given, verify_random, verify_stored

    if inputs is not None and outputs is not None:
        return verify_stored(job, read_file(inputs), read_file(outputs))
    graph = import_model(job.model, job.shapes)
    sampler = Sampler(graph)
    job = replace(job, tolerance=replace(job.tolerance, quantised=sampler.quantised))
    if inputs is not None:
        types = {v.name: v.dtype.value for v in graph.inputs if v.dtype.is_narrow}
        arrays = read_inputs([str(inputs)], [value.name for value in graph.inputs])
        return verify_given(job, as_types(arrays, types))
    report = verify_random(job, sampler)
    if job.against == "reference":
        return add_opinions(job, report, sampler)
    return report
