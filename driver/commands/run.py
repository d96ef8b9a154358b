"""`tensmith run`: one run of a model on tensors from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import USUAL, Inputs, Json, Runnable, Verbose, with_compilation

if TYPE_CHECKING:
    from ..request import CompileRequest
    from ..tensor_files import Array


@with_compilation(*USUAL, "calibration")
def command(
    model: Runnable,
    input: Inputs = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .npz file for the outputs; .npy for a single one."),
    ] = None,
    *,
    request: CompileRequest,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a model once; an ONNX file is compiled first (and not verified)."""
    from ..argument_checks import check_choice, check_writable
    from ..console import Console
    from ..session import compile_or_load, run_once
    from ..tensor_files import read_inputs, write_file

    console = Console(json=json, verbose=verbose)
    if output is not None:
        check_choice("an output's suffix", output.suffix, ("", ".npz", ".npy"))
        check_writable(output)
    with console.progress("compiling") as progress:
        module = compile_or_load(model, replace(request, progress=progress))
    inputs = read_inputs(input or [], [spec.name for spec in module.inputs])
    outputs = run_once(module, inputs)
    if output is not None:
        write_file(output, outputs)
        console.detail(f"wrote {output}")
    summaries = {name: _summary(array) for name, array in outputs.items()}
    console.result({"outputs": summaries, "file": str(output) if output else None})
    columns = ("output", "type", "shape", "min", "max", "mean")
    console.table(
        "Outputs", columns, [(name, *row.values()) for name, row in summaries.items()], left=3
    )


def _summary(array: Array) -> dict[str, Any]:
    """Type, shape and range of the finite elements (None: there are none)."""
    import numpy as np

    values = array.astype(np.float64) if array.dtype.kind != "U" else np.zeros(0)
    values = values[np.isfinite(values)]
    known = values.size > 0
    return {
        "type": str(array.dtype),
        "shape": list(array.shape),
        "min": float(values.min()) if known else None,
        "max": float(values.max()) if known else None,
        "mean": float(values.mean()) if known else None,
    }
