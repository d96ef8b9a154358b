"""`tensmith cascade`: two models as one binary; the larger answers where the smaller is unsure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cascading import USUAL_DROP
from ..options import (
    USUAL,
    Evaluation,
    Json,
    Metric,
    Verbose,
    with_compilation,
)
from .compile import Emit, Verify, destination

if TYPE_CHECKING:
    from ..artifacts import Artifact
    from ..cascading.cascade import Stages
    from ..request import CompileRequest

Small = Annotated[Path, typer.Argument(metavar="SMALL", help="ONNX file of the small model.")]
Large = Annotated[
    Path | None,
    typer.Argument(
        metavar="[LARGE]", help="ONNX file of the large model; none with --exits.",
        show_default=False,
    ),
]  # fmt: skip
Exits = Annotated[
    str | None,
    typer.Option(
        "--exits", metavar="OUT1,OUT2,...", show_default=False,
        help="Outputs of one model, the earliest first, the last of which always answers: what "
        "lies behind an exit runs for rows that it is not sure of.",
    ),
]  # fmt: skip
Confidence = Annotated[
    str,
    typer.Option(
        "--confidence", metavar="HOW",
        help="How sure the small model is: max_softmax, margin, entropy, or the name of an output "
        "that has a number for every row (of exits: one for each but the last, with commas).",
    ),
]  # fmt: skip
Router = Annotated[
    Path | None,
    typer.Option(
        "--router", metavar="ONNX", show_default=False,
        help="A third model of the same inputs, whose first output says how sure the small one is.",
    ),
]  # fmt: skip
Threshold = Annotated[
    str,
    typer.Option(
        "--threshold",
        help="The least confidence (of several exits: of each but the last, with commas), or auto: "
        "chosen on --eval.",
    ),
]
Drop = Annotated[
    str,
    typer.Option(
        "--max-accuracy-drop", metavar="DROP", help="What auto may lose against the large model."
    ),
]
Single = Annotated[
    bool, typer.Option("--single", help="Rows come one by one: a binary for a batch of 1.")
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="File to write (default: LARGE's name, .so)."),
]


@with_compilation(*USUAL)
def command(
    small: Small,
    large: Large = None,
    output: Output = None,
    exits: Exits = None,
    confidence: Confidence = "max_softmax",
    router: Router = None,
    threshold: Threshold = "auto",
    eval: Evaluation = None,
    metric: Metric = None,
    max_accuracy_drop: Drop = USUAL_DROP,
    single: Single = False,
    *,
    request: CompileRequest,
    emit: Emit = None,
    verify: Verify = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compile two models as one, in which the large one runs for rows that the small one is not
    sure of; or one model with --exits. Thresholds are chosen on every second sample of --eval, and
    told of the others; the output `deferred` (`exit`) says who has answered a row (docs/plan.md).
    """
    from ...compiler.scratch import temporary_folder
    from ..cascading.cascade import CascadeRequest, make_cascade
    from ..console import Console

    console = Console(json=json, verbose=verbose)
    stages = _stages(small, large, exits, confidence, router, single)
    output, kind, _ = destination(large or small, output, emit, request.target)
    with console.progress("compiling") as progress, temporary_folder("tensmith-cascade-") as folder:
        request = replace(request, progress=progress)
        asked = CascadeRequest(stages, request, threshold, eval, metric, max_accuracy_drop)
        found = make_cascade(asked, Path(folder))
        files = found.artifact.save(output, kind)
        if verify is not False:
            _verify(found.artifact, required=bool(verify))
    console.result(
        {
            "manifest": found.artifact.manifest, "files": [str(path) for path in files],
            "report": found.report.to_json() if found.report else None,
        }
    )  # fmt: skip
    for line in found.report.lines() if found.report else ():
        console.print(line)
    for path in files:
        console.print(str(path))


def _stages(
    small: Path, large: Path | None, exits: str | None, confidence: str, router: Path | None,
    single: bool,
) -> Stages:  # fmt: skip
    """The stages that the options name. Raises UsageError where they are not of one kind."""
    from ...compiler.errors import UsageError
    from ...frontends.onnx.cascading.exits import ExitStages
    from ...frontends.onnx.cascading.merging import CascadeStages
    from ..argument_checks import check_file

    if (large is None) == (exits is None):
        raise UsageError(
            "a cascade is of two models, or of the exits of one",
            remedy="give SMALL and LARGE, or MODEL with --exits EARLY,FINAL",
        )
    first = check_file(small, "model")
    if large is not None:
        third = None if router is None else check_file(router, "router")
        return CascadeStages(first, check_file(large, "large model"), confidence, third, single)
    if router is not None:
        raise UsageError(
            "--router decides between two models, not between exits",
            remedy="let the model have an output that does, and name it: --confidence OUTPUT",
        )
    names = tuple(part.strip() for part in (exits or "").split(","))
    return ExitStages(first, names, tuple(part.strip() for part in confidence.split(",")), single)


def _verify(artifact: Artifact, *, required: bool) -> None:
    """Raise where the binary is not what the reference says, or, if required, that is unknown."""
    report = artifact.verify()
    report.raise_if_failed()
    error = report.error() if required else None
    if error is not None:
        raise error
