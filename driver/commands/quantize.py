"""`tensmith quantize`: an ONNX model of floats to one of 8-bit products for any engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Block, Calibration, Json, Model, Verbose, with_compilation

if TYPE_CHECKING:
    from ..request import CompileRequest

QuantisedPrecision = Annotated[
    str,
    typer.Option("--precision", help="int8, int8-weights or int4-weights."),
]


@with_compilation("threads", "shape")
def command(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="ONNX file to write.")
    ],
    precision: QuantisedPrecision = "int8",
    calibration: Calibration = None,
    block: Block = None,
    *,
    request: CompileRequest,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a quantised model: QuantizeLinear and DequantizeLinear in front of convolutions and
    matrix products, weights of 8 bits; or with weights alone of 8 or 4 bits."""
    from ...compiler.errors import UsageError
    from ...compiler.scratch import temporary_folder
    from ..argument_checks import check_choice, check_writable
    from ..console import Console
    from ..quantisation import quantise, summary_of
    from ..request import INT8, WEIGHT_BITS
    from ..weight_quantisation import quantise_weights

    check_choice("--precision", precision, (INT8, *WEIGHT_BITS))
    console = Console(json=json, verbose=verbose)
    check_writable(output, other_than=model)
    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' is no ONNX file", remedy="name it .onnx")
    request = replace(request, precision=precision, calibration=calibration, block=block)
    with (
        console.progress("quantising") as progress,
        temporary_folder("tensmith-quantise-", near=output.parent) as folder,
    ):
        request = replace(request, progress=progress)
        if precision == INT8:
            found = quantise(model, output, request, Path(folder))
        else:
            found = quantise_weights(model, output, request, Path(folder))
    told = found.to_json()
    console.result({"file": str(output), "notes": list(found.notes), **told})
    for note in found.notes:
        console.log(f"warning: {note}")
    for line in summary_of(told):
        console.print(line)
    console.print(str(output))
