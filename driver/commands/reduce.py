"""`tensmith reduce`: a model that fails, made small enough to be reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json, Model, Verbose, with_compilation

if TYPE_CHECKING:
    from ..request import CompileRequest

Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="File to write (default: MODEL's name, .reduced.onnx)."),
]
InputFile = Annotated[
    Path | None,
    typer.Option("--inputs", help="A .npz with which the model fails (default: random)."),
]
Time = Annotated[
    float, typer.Option("--time", min=1.0, metavar="SECONDS", help="About how long it may take.")
]
TrialTime = Annotated[
    float,
    typer.Option(
        "--trial-time", min=1.0, metavar="SECONDS", help="A model that takes longer hangs."
    ),
]
Anonymous = Annotated[
    bool,
    typer.Option("--anonymous", help="With random weights and numbers for names, to be shown."),
]


@with_compilation("target", "opt_level", "shape")
def command(
    model: Model,
    output: Output = None,
    *,
    request: CompileRequest,
    inputs: InputFile = None,
    time: Time = 600.0,
    trial_time: TrialTime = 120.0,
    anonymous: Anonymous = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Shrink a model that fails to a small one that fails in the same way.

    The failure may be an error, a crash or a hang of the compiler, a model that does not run, or
    results that differ from the reference or from ONNX Runtime: whatever this model shows first.
    """
    from ..argument_checks import check_file, check_writable
    from ..console import Console
    from ..reduce import reduce_model

    console = Console(json=json, verbose=verbose)
    path = check_file(model, "model")
    output = output or Path(f"{path.stem}.reduced.onnx")
    check_writable(output)
    with console.progress("reducing") as progress:
        found = reduce_model(
            path,
            output,
            replace(request, progress=progress),
            inputs=check_file(inputs, "file of inputs") if inputs else None,
            seconds=time,
            trial_seconds=trial_time,
            anonymous=anonymous,
        )
    console.result({"file": str(output), **found.to_json()})
    console.print(f"{found.failure.kind}: {found.failure.text}")
    console.print(
        f"{output}  {found.after[0]} of {found.before[0]} nodes, {found.after[1]} of "
        f"{found.before[1]} weights, {found.trials} trials in {found.seconds:.0f} s"
    )
    if anonymous and not found.anonymous:
        console.log(
            "warning: without its own weights or names the model does not fail: they are in it"
        )
