"""`tensmith quantize`: an ONNX model of floats to one of 8-bit products for any engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..options import Calibration, Json, Model, Shapes, Threads, Verbose, requested


def command(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="ONNX file to write.")
    ],
    calibration: Calibration = None,
    threads: Threads = 1,
    shape: Shapes = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a quantised model: QuantizeLinear and DequantizeLinear in front of convolutions and
    matrix products, weights of 8 bits."""
    from ...compiler.errors import UsageError
    from ...compiler.scratch import temporary_folder
    from ..argument_checks import check_writable
    from ..console import Console
    from ..quantisation import quantise, summary_of
    from ..request import INT8

    console = Console(json=json, verbose=verbose)
    check_writable(output, other_than=model)
    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' is no ONNX file", remedy="name it .onnx")
    request = requested(shape, precision=INT8, calibration=calibration, threads=threads)
    with (
        console.progress("quantising") as progress,
        temporary_folder("tensmith-quantise-", near=output.parent) as folder,
    ):
        found = quantise(model, output, replace(request, progress=progress), Path(folder))
    told = found.to_json()
    console.result({"file": str(output), "notes": list(found.notes), **told})
    for note in found.notes:
        console.log(f"warning: {note}")
    for line in summary_of(told):
        console.print(line)
    console.print(str(output))
